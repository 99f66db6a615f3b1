"""Running a graph chunk by chunk: the state of each loop over time in it is carried on.

A tapped layer begins with a tensor that nothing else reads. From the second chunk on it is fed
what the layer ended with. All else that a loop carries, such as the step it has come to,
begins anew in each chunk.
"""

from collections.abc import Iterable
from contextlib import closing
from functools import partial
from typing import Any, Final

import tensorflow as tf
from tensorflow.core.framework import graph_pb2

from everystate.errors import UncuttableError
from everystate.frameworks.tensorflow.model import (
    Observed,
    Values,
    call,
    final_states,
    observe,
    observing,
)
from everystate.frameworks.tensorflow.tap import TappedLayer
from everystate.recording.discovery import model_name
from everystate.recording.stream import Stream
from everystate.recording.time_axis import time_axis_of

SIZES: Final = ("Shape", "ShapeN", "Size", "Rank")
"""Ops that read nothing of a tensor but how large it is."""


def stream(model: Any) -> Stream:
    """Return how to run a graph chunk by chunk (see `everystate.recording.stream.Stream`)."""
    return Stream(partial(_step, model), partial(_time_axis, model))


def _step(model: Any, x: Any, states: Values | None) -> tuple[Values, Values]:
    """Run one chunk; return all states and gates, and the states of all layers after it."""
    if (observed := observing(model)) is not None:
        return _run(observed, x, states)
    with closing(Observed(model)) as own:
        return _run(own, x, states)


def _run(observed: Observed, x: Any, states: Values | None) -> tuple[Values, Values]:
    graph, layers = observed.tapped
    if states is None:
        _check(graph, layers)
    variables = observed.run((x,), states)
    return variables, {a.path: final_states(a, variables[a.path]) for a in layers}


def _check(graph: graph_pb2.GraphDef, layers: Iterable[TappedLayer]) -> None:
    for layer in layers:
        if layer.reverse:
            raise UncuttableError(
                f"{layer.path} reads backwards: it begins at the end of the sequence."
            )
        if layer.lengths is not None and _fed(graph, layer.lengths):
            raise UncuttableError(f"{layer.path} ends each row at a length of its own.")


def _fed(graph: graph_pb2.GraphDef, tensor: str) -> bool:
    """Whether a tensor depends on what is fed, and not on its size alone."""
    nodes = {n.name: n for n in graph.node}
    waiting, seen = [tensor], set[str]()
    while waiting:
        name = waiting.pop().lstrip("^").partition(":")[0]
        if name in seen or nodes[name].op in SIZES:
            continue
        seen.add(name)
        if nodes[name].op.startswith("Placeholder"):
            return True
        waiting += nodes[name].input
    return False


def _time_axis(model: Any, x: Any) -> int:
    with closing(Observed(model)) as observed:
        first = next(iter(observed.needed), None)
    shape = tf.TensorShape(None if first is None else first.attr["shape"].shape)
    sizes = None if shape.rank is None else shape.as_list()
    name = model_name(model)
    return time_axis_of(x, sizes, partial(observe, model), lambda x: call(model, (x,)), name)
