"""Running a function with its scans tapped: traced, then evaluated with what was found."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from jax.extend.core import ClosedJaxpr

from everystate.frameworks.jax.internals import closed, fresh_trace, source_of
from everystate.frameworks.jax.records import Found
from everystate.frameworks.jax.tap import Scope, evaluate, functions_of


@dataclass(frozen=True, eq=False)
class Traced:
    """A function traced for some arguments.

    Parameters
    ----------
    jaxpr : ClosedJaxpr
        The trace; its results are the arrays among the function's results.
    treedef : PyTreeDef
        The structure of the function's results.
    fixed : list
        The leaves of the results: what is no array as it is, a place to fill of each array.
    """

    jaxpr: ClosedJaxpr
    treedef: Any
    fixed: list[Any]

    def run(self, arrays: Sequence[Any]) -> tuple[Any, list[Found]]:
        """Evaluate with its scans tapped; return the function's result, and what was found."""
        results, found = evaluate(self.jaxpr, arrays, Scope())
        filled = iter(results)
        leaves = [next(filled) if leaf is _ARRAY else leaf for leaf in self.fixed]
        return jax.tree.unflatten(self.treedef, leaves), found


_ARRAY = object()
Watching = Callable[[Callable[..., Any], Any], AbstractContextManager[object]]


def trace(
    fn: Callable[..., Any],
    args: Sequence[Any],
    kwargs: dict[str, Any] | None = None,
    watching: Watching | None = None,
) -> tuple[Traced, list[Any]]:
    """Trace a function; return the trace and the arrays among its arguments.

    Parameters
    ----------
    fn : callable
        The function. It may be under `jax.jit` and everything else of JAX.
    args, kwargs : sequence and dict
        Its arguments; arrays in them, of JAX or NumPy, are traced, all else is passed as it is.
    watching : callable, optional
        Given the function and its arguments as they are traced, returns a context in which
        values are tagged.
    """
    leaves, treedef = jax.tree.flatten((tuple(args), kwargs or {}))
    places = [k for k, leaf in enumerate(leaves) if is_array(leaf)]
    seen: dict[str, Any] = {}

    def flat(*arrays: Any) -> list[Any]:
        filled = list(leaves)
        for place, array in zip(places, arrays, strict=True):
            filled[place] = array
        given, named = jax.tree.unflatten(treedef, filled)
        with nullcontext() if watching is None else watching(fn, (given, named)):
            results, seen["treedef"] = jax.tree.flatten(fn(*given, **named))
        seen["fixed"] = [_ARRAY if is_array(r) else r for r in results]
        return [r for r in results if is_array(r)]

    arrays = [leaves[place] for place in places]
    with nullcontext() if watching is None else fresh_trace():
        jaxpr = jax.make_jaxpr(flat)(*arrays)
    return Traced(jaxpr, seen["treedef"], seen["fixed"]), arrays


def is_array(value: object) -> bool:
    """Whether a value is an array of JAX, traced or not, or of NumPy."""
    return isinstance(value, (jax.Array, np.ndarray, np.generic))


def while_loops(jaxpr: Any) -> list[str]:
    """Return where the ``while_loop`` s of a trace were defined, those of JAX itself apart."""
    found = []
    for eqn in closed(jaxpr).jaxpr.eqns:
        if eqn.primitive.name == "while":
            found.append(source_of(eqn.params["body_jaxpr"].jaxpr))
        for inner in functions_of(eqn):
            found += while_loops(inner)
    return [where for where in dict.fromkeys(found) if "/jax/_src/" not in where]
