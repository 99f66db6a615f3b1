"""Equinox's cells: where they are in a model, their equations, and their calls, tagged.

Weights are rows, gates in the order i f g o, and r z n with a recurrent bias of the candidate
(``equinox/nn/_rnn.py``).
"""

import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from functools import partial
from types import CodeType, FunctionType, MethodType
from typing import Any, Final

import equinox as eqx
import jax
from array_api_compat import array_namespace

from everystate.cells import GRU, LSTM, Cell, Weights
from everystate.errors import UnsupportedModelError
from everystate.frameworks.jax.swapping import watched
from everystate.frameworks.jax.tags import Call, tag, tag_all
from everystate.recording import custom

WEIGHTS: Final = ("weight_ih", "weight_hh", "bias", "bias_n")


def _lstm(w: Mapping[str, Any]) -> Weights:
    return Weights(w["weight_ih"], w["weight_hh"], w.get("bias"))


def _gru(w: Mapping[str, Any]) -> Weights:
    b_n, b_R = w.get("bias_n"), None
    if b_n is not None:
        xp = array_namespace(b_n)
        b_R = xp.concat([xp.zeros(2 * len(b_n), dtype=b_n.dtype), b_n])
    return Weights(w["weight_ih"], w["weight_hh"], w.get("bias"), b_R)


Known = tuple[tuple[str, ...], Cell, Callable[[Mapping[str, Any]], Weights], str]
KNOWN: Final[Mapping[type, Known]] = {
    eqx.nn.LSTMCell: (("h", "c"), LSTM(), _lstm, "i f g o"),
    eqx.nn.GRUCell: (("h",), GRU(), _gru, "r z n"),
}
"""States, equations, reader of the weights and gate order of Equinox's own cells."""


def is_cell(value: object) -> bool:
    """Whether a value is a cell of Equinox, or a module that names its states."""
    named = isinstance(value, eqx.Module) and custom.is_cell(type(value))
    return named or isinstance(value, tuple(KNOWN))


def places(model: Any) -> list[tuple[str, Any]]:
    """Return the path and object of each cell in a model, each object once."""
    leaves = jax.tree_util.tree_flatten_with_path(model, is_leaf=is_cell)[0]
    found = {id(one): (_path(keys, one), one) for keys, one in reversed(leaves) if is_cell(one)}
    return list(reversed(found.values()))


_WRAPPERS: Final = ("_fun", "__self__")
"""Fields in which Equinox's transformations and bound methods hold a module."""


def _path(keys: Any, cell: object) -> str:
    parts = [str(getattr(k, "name", getattr(k, "key", getattr(k, "idx", k)))) for k in keys]
    path = "/".join(part for part in parts if part not in _WRAPPERS)
    return path or type(cell).__name__.lower()


def watching(fn: Callable[..., Any], args: Any) -> AbstractContextManager[None]:
    """Return a context in which the cells of a function's models tag their values."""
    is_module = partial(lambda value: isinstance(value, eqx.Module))
    given = [a for a in jax.tree.leaves(args, is_leaf=is_module) if is_module(a)]
    models = {f"model_{k}": model for k, model in enumerate(given)} | dict(_models_of(fn))
    models = {name: model for name, model in models.items() if places(model)}
    found = [
        (path if len(models) == 1 else f"{name}/{path}", cell)
        for name, model in models.items()
        for path, cell in places(model)
    ]
    return watched(found, _watch())


def _models_of(fn: object) -> Iterator[tuple[str, eqx.Module]]:
    """Yield the modules that a function is, is a method of, wraps, or refers to, with a name."""
    if isinstance(fn, eqx.Module):
        yield "model", fn
    elif isinstance(fn, partial):
        given = {**{f"model_{k}": a for k, a in enumerate(fn.args)}, **fn.keywords}
        yield from ((name, a) for name, a in given.items() if isinstance(a, eqx.Module))
        yield from _models_of(fn.func)
    elif isinstance(fn, MethodType):
        yield from _models_of(fn.__self__)
    elif hasattr(fn, "__wrapped__"):
        yield from _models_of(fn.__wrapped__)
    elif isinstance(fn, FunctionType):
        names = set(_names_in(fn.__code__))
        seen = {name: a for name, a in fn.__globals__.items() if name in names}
        seen |= inspect.getclosurevars(fn).nonlocals
        yield from ((name, a) for name, a in seen.items() if isinstance(a, eqx.Module))


def _names_in(code: CodeType) -> Iterator[str]:
    """Yield the global names that a function uses, and the functions written inside it."""
    yield from code.co_names
    for inner in code.co_consts:
        if isinstance(inner, CodeType):
            yield from _names_in(inner)


def _watch() -> Callable[..., Any]:
    calls: dict[str, Call] = {}

    def watch(path: str, run: Any, cell: Any, *args: Any, **kwargs: Any) -> Any:
        given = inspect.signature(run).bind(*args, **kwargs)  # what lacks is told as Equinox does
        x, state, *rest = given.args
        if path not in calls:
            calls[path] = call_of(path, type(cell).__mro__[1])
        call = calls[path]
        for name in WEIGHTS:
            tag(getattr(cell, name, None), call, "weight", name)
        x, before = tag(x, call, "input", "x"), tag_all(state, call, "before")
        result = run(x, before, *rest, **given.kwargs)
        state = state_of(result, call)
        after = tag_all(state, call, "after")
        return after if state is result else (result[0], after)

    return watch


def state_of(result: Any, call: Call) -> Any:
    """Return the state in what a step returns: the state itself, or a pair of output and state.

    Raises
    ------
    UnsupportedModelError
        If neither has as many arrays as the cell has states.
    """
    pair = isinstance(result, tuple) and len(result) == 2
    for state in (result, *result[1:]) if pair else (result,):
        if len(jax.tree.leaves(state)) == len(call.states):
            return state
    raise UnsupportedModelError(
        f"{call.path}: its states are {', '.join(call.states)}, but a step returned "
        f"{len(jax.tree.leaves(result))} arrays. A step returns its state, or (output, state)."
    )


def call_of(path: str, cls: type) -> Call:
    """Return what tags of a cell belong to."""
    attrs = {"module": cls.__name__}
    for base, (states, cell, read, order) in KNOWN.items():
        if issubclass(cls, base):
            if cls.__call__ is not base.__call__:
                return Call(path, states=states, attrs=attrs)
            attrs["framework_gate_order"] = order
            return Call(path, cell=cell, states=states, attrs=attrs, weights=read)
    return Call(path, states=custom.state_names(cls), attrs=attrs)
