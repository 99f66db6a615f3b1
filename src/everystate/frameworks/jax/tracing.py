"""Running a function with its scans tapped: traced, then evaluated with what was found."""

from collections.abc import Callable, Hashable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, Final

import jax
import numpy as np
from jax.extend.core import ClosedJaxpr

from everystate.frameworks.jax.carries import Carries, Scope
from everystate.frameworks.jax.internals import closed, fresh_trace, source_of
from everystate.frameworks.jax.records import Found
from everystate.frameworks.jax.tap import evaluate, functions_of

Along = Mapping[int, Sequence[Any] | None]


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
        results, found = jax.tree.map(as_array, evaluate(self.jaxpr, arrays, Scope()))
        return self._result(results), found

    def compiled(self, arrays: Sequence[Any], along: Along | None = None) -> "Compiled":
        """Return it with its scans tapped once and for all, to be run as often as one likes.

        Parameters
        ----------
        arrays : sequence of array
            Arguments as those that it will be given.
        along : mapping, optional
            What those scans begin with that go on from chunk to chunk, as of `Carries`; when it
            is run, such arrays are given behind the arguments.
        """
        seen: dict[str, Any] = {}

        def flat(arrays: Sequence[Any], along: Along | None) -> list[Any]:
            scope = Scope(carries=None if along is None else Carries(along))
            leaves, seen["treedef"] = jax.tree.flatten(evaluate(self.jaxpr, arrays, scope))
            return leaves

        return Compiled(self, jax.make_jaxpr(flat)(arrays, along), seen["treedef"])

    def found(self, arrays: Sequence[Any]) -> list[Found]:
        """Return what is in it, with shapes in the place of arrays; nothing is computed."""
        shapes: list[Found] = jax.eval_shape(
            lambda arrays: evaluate(self.jaxpr, arrays, Scope(carries=Carries()))[1], list(arrays)
        )
        return shapes

    def _result(self, arrays: Sequence[Any]) -> Any:
        filled = iter(arrays)
        leaves = [next(filled) if leaf is _ARRAY else leaf for leaf in self.fixed]
        return jax.tree.unflatten(self.treedef, leaves)


@dataclass(frozen=True, eq=False)
class Compiled:
    """A traced function with its scans tapped, as a trace of its own: JAX compiles it once."""

    traced: Traced
    jaxpr: ClosedJaxpr
    treedef: Any

    def run(self, arrays: Sequence[Any]) -> tuple[Any, list[Found]]:
        """Evaluate as `Traced.run` does."""
        leaves = map(as_array, jax.core.eval_jaxpr(self.jaxpr.jaxpr, self.jaxpr.consts, *arrays))
        results, found = jax.tree.unflatten(self.treedef, leaves)
        return self.traced._result(results), found


_ARRAY = object()
Watching = Callable[[Callable[..., Any], Any], AbstractContextManager[object]]


_NOTE: Final = (
    "everystate was tracing the function, as jax.jit does, and what works under jax.jit can be "
    "recorded. A model that is changed when it is called may have to be given as an argument."
)


def trace(fn: Callable[..., Any], given: "Arguments", watching: Watching | None = None) -> Traced:
    """Trace a function.

    Parameters
    ----------
    fn : callable
        The function. It may be under `jax.jit` and everything else of JAX.
    given : Arguments
        What it is called with.
    watching : callable, optional
        Given the function and its arguments as they are traced, returns a context in which
        values are tagged.
    """
    seen: dict[str, Any] = {}

    def flat(*arrays: Any) -> list[Any]:
        args, kwargs = given.filled(arrays)
        with nullcontext() if watching is None else watching(fn, (args, kwargs)):
            results, seen["treedef"] = jax.tree.flatten(fn(*args, **kwargs))
        seen["fixed"] = [_ARRAY if is_array(r) else r for r in results]
        return [r for r in results if is_array(r)]

    try:
        with nullcontext() if watching is None else fresh_trace():
            jaxpr = jax.make_jaxpr(flat)(*given.arrays)
    except Exception as error:
        error.add_note(_NOTE)
        raise
    return Traced(jaxpr, seen["treedef"], seen["fixed"])


class Arguments:
    """What a function is called with: arrays, of JAX or NumPy, and all else as it is.

    Parameters
    ----------
    args, kwargs : sequence and dict
        The arguments.
    """

    def __init__(self, args: Sequence[Any], kwargs: Mapping[str, Any] | None = None) -> None:
        leaves, self._treedef = jax.tree.flatten((tuple(args), dict(kwargs or {})))
        self.arrays = [leaf for leaf in leaves if is_array(leaf)]
        self._fixed = [_ARRAY if is_array(leaf) else leaf for leaf in leaves]

    def filled(self, arrays: Sequence[Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Return arguments with other arrays in their places."""
        rest = iter(arrays)
        leaves = [next(rest) if leaf is _ARRAY else leaf for leaf in self._fixed]
        args, kwargs = jax.tree.unflatten(self._treedef, leaves)
        return args, kwargs

    @property
    def kind(self) -> Hashable:
        """What arguments have in common that a trace serves alike."""
        shapes = tuple((np.shape(a), str(a.dtype), jax.typeof(a).weak_type) for a in self.arrays)
        return self._treedef, shapes, tuple(self._fixed)


def is_array(value: object) -> bool:
    """Whether a value is an array of JAX, traced or not, or of NumPy."""
    return isinstance(value, (jax.Array, np.ndarray, np.generic))


def as_array(value: Any) -> Any:
    """Return a number that stands in the trace itself, as ``0.0`` in a carry, as an array."""
    return value if hasattr(value, "shape") else jax.numpy.asarray(value, value.dtype)


def while_loops(jaxpr: Any) -> list[str]:
    """Return where the ``while_loop`` s of a trace were defined, those of JAX itself apart."""
    found = []
    for eqn in closed(jaxpr).jaxpr.eqns:
        if eqn.primitive.name == "while":
            found.append(source_of(eqn.params["body_jaxpr"].jaxpr))
        for inner in functions_of(eqn):
            found += while_loops(inner)
    return [where for where in dict.fromkeys(found) if "/jax/_src/" not in where]
