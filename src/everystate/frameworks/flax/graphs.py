"""Flax NNX: a module as a model."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from math import prod
from typing import Any

import jax
from flax import nnx

from everystate.frameworks.flax.calls import Calls, joined
from everystate.frameworks.flax.cells import KNOWN
from everystate.frameworks.jax.running import Target
from everystate.frameworks.jax.swapping import watched


def places(model: nnx.Module) -> list[tuple[str, Any]]:
    """Return the path and module of each `RNN`, `Bidirectional` and cell in a model."""
    return [
        (joined(path, node), node)
        for path, node in nnx.iter_graph(model)
        if isinstance(node, nnx.RNN | nnx.Bidirectional | nnx.nn.recurrent.RNNCellBase)
    ]


def layers(model: nnx.Module) -> list[str]:
    """Return the leaf path of each recurrent layer and direction."""
    found, inner = [], set()
    nodes = places(model)
    for path, node in nodes:
        if isinstance(node, nnx.Bidirectional):
            found += [f"{path}/forward", f"{path}/backward"]
            inner |= {id(node.forward_rnn), id(node.backward_rnn)}
    for path, node in nodes:
        if isinstance(node, nnx.RNN):
            inner.add(id(node.cell))
            found += [] if id(node) in inner else [path]
    cells = [n for n in nodes if not isinstance(n[1], nnx.RNN | nnx.Bidirectional)]
    return found + [path for path, node in cells if id(node) not in inner]


def sure(model: nnx.Module, x: Any) -> float | None:
    """Return the bytes of a step of a bare `RNN` of one of Flax's own cells, else None.

    Such a layer is defined to be causal, and draws nothing at random but its first state. An input
    of several steps was cut along another axis than time: a trial will tell.
    """
    if type(model) is not nnx.RNN or model.reverse or type(model.cell) not in KNOWN:
        return None
    if x.shape[0 if model.time_major else len(x.shape) - 2] != 1:
        return None
    module: Any = model.cell
    of_module = KNOWN[type(module)].cell
    cell = None if of_module is None else of_module(module)
    if cell is None:
        return None
    numbers = module.in_features + len(cell.variables) * module.hidden_features
    return float(prod(x.shape) / module.in_features * numbers * 4)  # a trace holds float32


def target(model: nnx.Module) -> Target:
    """Return an NNX model as a function of its state; the state it ends with becomes its own."""
    fn, parts = _with_state(model)

    def finish(result: tuple[Any, Any]) -> Any:
        nnx.update(model, result[1])
        return result[0]

    return Target(fn, parts, finish=finish, key="nnx")


def apart(model: nnx.Module) -> tuple[Callable[..., Any], Any]:
    """Return a module as a function of its state and inputs, and the state."""
    fn, parts = _with_state(model)
    return lambda parts, *inputs, **options: fn(*parts, *inputs, **options)[0], parts


def _with_state(model: nnx.Module) -> tuple[Callable[..., tuple[Any, Any]], tuple[Any, Any]]:
    def fn(graph: Any, state: Any, *inputs: Any, **options: Any) -> tuple[Any, Any]:
        own = nnx.merge(graph, state)
        with watching(own):
            result = own(*inputs, **options)
        return result, nnx.state(own)

    graph, state = nnx.split(model)
    return fn, (graph, state)


def watching_arguments(_fn: object, args: Any) -> AbstractContextManager[None]:
    """Return a context in which the cells of a function's arguments tag their values."""
    leaves = jax.tree.leaves(args, is_leaf=lambda a: isinstance(a, nnx.Module))
    return watching(*(a for a in leaves if isinstance(a, nnx.Module)))


def watching(*models: nnx.Module) -> AbstractContextManager[None]:
    """Return a context in which the layers and cells of models tag their values."""
    calls = Calls()

    def watch(path: str, run: Any, module: Any, *args: Any, **kwargs: Any) -> Any:
        cls = type(module).__mro__[1]
        if isinstance(module, nnx.Bidirectional):
            return calls.bidirectional(path, run, *args, **kwargs)
        if isinstance(module, nnx.RNN):
            return calls.rnn(path, run, module, *args, **kwargs)
        return calls.cell(path, run, module, cls, weights(module))(*args, **kwargs)

    found = {id(node): (path, node) for model in models for path, node in places(model)}
    return watched(list(found.values()), watch)


def weights(module: nnx.Module) -> Mapping[str, Any]:
    """Return the parameters of a module by name: ``dense_i/kernel``."""
    flat: Sequence[tuple[tuple[Any, ...], Any]] = nnx.to_flat_state(nnx.state(module, nnx.Param))
    named = {"/".join(map(str, path)): v.get_value() for path, v in flat}
    return {name: a for name, a in named.items() if isinstance(a, jax.Array)}
