"""Tags: marks on values while a function is traced, which tell what a value is to a cell.

A tag is an operation that gives its argument back. Whoever watches a cell puts tags on what
goes into it and what comes out, and the tap finds them wherever they are in the trace, under
`jax.jit`, `jax.vmap` and `jax.grad` alike. Tags are gone before anything runs.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import jax
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir

from everystate.cells import Cell, Weights
from everystate.errors import UnsupportedModelError


@dataclass(frozen=True, eq=False)
class Call:
    """One call of a watched cell, or of the layer that steps it; equal only to itself.

    Parameters
    ----------
    path : str
        Leaf path in the trace.
    cell : Cell, optional
        The equations to replay with. None: states are recorded as they are.
    states : tuple of str
        Names of the states, in the order in which they are tagged.
    attrs : mapping
        Attributes of the leaf.
    feature_axes : int
        Number of axes of a state that are not rows: 1, but 3 of a convolutional cell.
    reverse : bool
        Whether the sequence was turned before the cell was stepped over it.
    within : Call, optional
        The call of the layer that steps this cell.
    precision : str, optional
        The dtype it computes in, where that is less than its states'. None: theirs.
    weights : callable, optional
        Turns the tagged weights, by name, into canonical form.
    """

    path: str
    cell: Cell | None = None
    states: tuple[str, ...] = ()
    attrs: Mapping[str, str | int | float] = field(default_factory=dict)
    feature_axes: int = 1
    reverse: bool = False
    within: "Call | None" = None
    precision: str | None = None
    weights: Callable[[Mapping[str, Any]], Weights] | None = None


@dataclass(frozen=True)
class Mark:
    """What a tagged value is.

    Parameters
    ----------
    call : Call
        Whose it is.
    role : str
        ``before``, ``after``, ``input``, ``weight``, or ``lengths``.
    name : str
        Which of these.
    rank : int
        Number of its axes where it was tagged.
    """

    call: Call
    role: str
    name: str
    rank: int


def tag_all(tree: Any, call: Call, role: str) -> Any:
    """Return the states of a cell, in whatever structure, tagged by their names."""
    leaves, treedef = jax.tree.flatten(tree)
    named = zip(leaves, names_in(tree, call), strict=True)
    return jax.tree.unflatten(treedef, [tag(a, call, role, name) for a, name in named])


def names_in(tree: Any, call: Call) -> tuple[str, ...]:
    """Return which state each array in a structure is, in JAX's order of its arrays.

    A dict whose keys are the names goes by them; else JAX's order is that of the names. In a
    dict, that is the order of the sorted keys.

    Raises
    ------
    UnsupportedModelError
        If there are more arrays in it, or fewer, than the cell has states.
    """
    found = jax.tree_util.tree_flatten_with_path(tree)[0]
    if len(found) != len(call.states):
        raise UnsupportedModelError(
            f"{call.path}: its states are {', '.join(call.states)}, but a step was given or "
            f"returned {len(found)} arrays."
        )
    if isinstance(tree, Mapping) and set(tree) == set(call.states):
        return tuple(keys[0].key for keys, _ in found)
    return call.states


tag_p: Final = Primitive("everystate_tag")


def tag(value: Any, call: Call, role: str, name: str) -> Any:
    """Return `value`, tagged; what is no array of JAX is given back untagged."""
    if not isinstance(value, jax.Array):
        return value
    return tag_p.bind(value, mark=Mark(call, role, name, value.ndim), mapped=())


def _batched(args: Any, axes: Any, *, mark: Mark, mapped: tuple[int, ...]) -> Any:
    """Keep the mapped axis where it is, and note where that is."""
    return tag_p.bind(*args, mark=mark, mapped=(*mapped, axes[0])), axes[0]


def _jvp(primals: Any, tangents: Any, **params: Any) -> Any:
    return tag_p.bind(*primals, **params), tangents[0]


tag_p.def_impl(lambda x, **_: x)
tag_p.def_abstract_eval(lambda x, **_: x)
batching.primitive_batchers[tag_p] = _batched
ad.primitive_jvps[tag_p] = _jvp
mlir.register_lowering(tag_p, lambda _context, x, **_: [x])
