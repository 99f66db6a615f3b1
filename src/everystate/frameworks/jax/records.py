"""What a tap finds: pytrees, so that they pass through every transformation of JAX."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import jax

from everystate.frameworks.jax.tags import Mark

Array = Any
Where = tuple[Literal["before", "after", "xs", "stacked", "constant"], int]
"""Where a tagged value is to be found: among what a scan carries, reads, stacks, or is given."""


@dataclass(frozen=True)
class Tagged:
    """A tag in the body of a scan.

    Parameters
    ----------
    mark : Mark
        What the value is.
    mapped : tuple of int
        Where `jax.vmap` put its axes, in the order in which they came.
    where : tuple of (str, int)
        Where the value is to be found.
    """

    mark: Mark
    mapped: tuple[int, ...]
    where: Where


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class FoundTag:
    """A tag outside of scans, with its value."""

    value: Array
    mark: Mark = field(metadata={"static": True})
    mapped: tuple[int, ...] = field(metadata={"static": True})


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class FoundScan:
    """A ``lax.scan``, with what it carried at every step.

    Parameters
    ----------
    initial : list of array
        What it carried before its first step.
    carried : list of array, each of shape (time, ...)
        The same after every step, in the order of the inputs.
    xs, constants : list of array
        What it was given: step by step, and as a whole; those with a tag only.
    sources : tuple of int or None
        For each tagged constant, which of those of the scan around it that is; None for its own,
        which stand in `constants`.
    stacked : list of array, each of shape (time, ...)
        Further tagged values of its body.
    inner : list
        What was found in its body; each array has the scan's own time in front.
    ran : array of bool
        Whether it ran: a branch of ``lax.cond`` that was not taken does not.
    final : list of array
        What goes on in the next chunk of a sequence that is cut in time: its last carry, as far
        as it moves. Empty elsewhere.
    names : tuple of str
        Names of what is carried, as far as the function's own arguments tell.
    tags : tuple of Tagged
        The tags in its body.
    scope : str
        Its place in the model as JAX's name stack has it; may be empty.
    source : str
        Where its body was defined.
    reverse : bool
        Whether it runs from the last step to the first.
    place : int or None
        Its place among the outermost scans of a function, in order of evaluation; None where
        these are not counted, and of scans within other things.
    """

    initial: list[Array]
    carried: list[Array]
    xs: list[Array]
    constants: list[Array]
    stacked: list[Array]
    inner: "list[FoundTag | FoundScan | Untapped]"
    ran: Array
    final: list[Array]
    sources: tuple[int | None, ...] = field(metadata={"static": True})
    names: tuple[str, ...] = field(metadata={"static": True})
    tags: tuple[Tagged, ...] = field(metadata={"static": True})
    scope: str = field(metadata={"static": True})
    source: str = field(metadata={"static": True})
    reverse: bool = field(metadata={"static": True})
    place: int | None = field(metadata={"static": True})


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Untapped:
    """An operation with scans in it that cannot be tapped, and why."""

    reason: str = field(metadata={"static": True})


Found = FoundTag | FoundScan | Untapped


def is_key(a: Any) -> bool:
    """Whether an array holds random keys, which are no numbers."""
    return bool(jax.numpy.issubdtype(a.dtype, jax.dtypes.prng_key))


def absent(found: Sequence[Found]) -> list[Found]:
    """Return `found` of a branch that is not taken: NaN, or 0 of integers, and not run."""

    def gone(a: Any) -> Array:
        if is_key(a):
            return jax.random.wrap_key_data(
                jax.numpy.zeros_like(jax.eval_shape(jax.random.key_data, a)),
                impl=jax.random.key_impl(a),
            )
        inexact = jax.numpy.issubdtype(a.dtype, jax.numpy.inexact)
        return jax.numpy.full(a.shape, jax.numpy.nan if inexact else 0, a.dtype)

    return list(jax.tree.map(gone, list(found)))
