"""Running a graph chunk by chunk: the state of each loop over time in it is carried on.

A tapped layer begins with a tensor that nothing else reads. From the second chunk on it is fed
what the layer ended with. All else that a loop carries, such as the step it has come to,
begins anew in each chunk.
"""

from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

import numpy as np
import tensorflow as tf
from tensorflow.core.framework import graph_pb2

from everystate.errors import InputError, UncuttableError
from everystate.frameworks.tensorflow.cells import is_cell
from everystate.frameworks.tensorflow.model import Observed, Values, final_states, observing, unroll
from everystate.frameworks.tensorflow.tap import TappedLayer
from everystate.recording.discovery import model_name
from everystate.recording.stream import Stream
from everystate.recording.time_axis import time_axis_of

SIZES: Final = ("Shape", "ShapeN", "Size", "Rank")
"""Ops that read nothing of a tensor but how large it is."""

State = tuple[Values, int]
"""What each layer ended with, and how many steps have gone by, where lengths are fed."""


def stream(model: Any) -> Stream:
    """Return how to run a graph chunk by chunk (see `everystate.recording.stream.Stream`)."""
    if is_cell(model):
        return Stream(partial(_unrolled, model), lambda x: 1)
    return _named(model, None, {}, named=partial(_named, model))


def _unrolled(cell: Any, x: Any, state: Any) -> tuple[Any, Any]:
    """Run a cell over one chunk; return its output, and the state that it ends with."""
    return unroll(cell, x, *([] if state is None else [state]))[:2]


def _named(model: Any, name: str | None, others: Mapping[str, Any], **options: Any) -> Stream:
    """Return how to run it on one of its placeholders, the first by default, given the others."""
    named = {key.removesuffix(":0"): value for key, value in others.items()}
    chunks = _Chunks(model, name and name.removesuffix(":0"), named)
    return Stream(chunks.step, chunks.time_axis, call=chunks.call, **options)


@dataclass(eq=False)
class _Chunks:
    """A graph and what is fed to it.

    Parameters
    ----------
    model : GraphDef or path
        The graph.
    name : str, optional
        The placeholder of what is cut. None: the first.
    others : mapping
        What is fed to other placeholders.
    """

    model: Any
    name: str | None
    others: Mapping[str, Any]
    axis: int | None = None
    _behind: dict[str, list[str]] | None = None

    def step(self, x: Any, state: State | None) -> tuple[Values, State]:
        """Run one chunk; return all states and gates, and the states of all layers after it."""
        states, done = state or ({}, 0)
        with self._observed() as observed:
            layers = observed.tapped[1]
            if state is None:
                self._check(observed)
            variables = observed.run((self._feeds(observed, x, done),), states)
            after = {a.path: final_states(a, variables[a.path]) for a in layers}
            return variables, (after, done + self._steps(x) if self._lengths(observed) else 0)

    def call(self, x: Any) -> Values:
        """Run it whole."""
        with self._observed() as observed:
            return observed.run((self._feeds(observed, x),))

    def time_axis(self, x: Any) -> int:
        """Return which axis of what is cut is time."""
        with closing(Observed(self.model)) as observed:
            name = self._name(observed)

            def steps_of(ones: Any) -> set[int]:
                values = observed.run(({**self.others, name: ones},))
                return {len(a) for variables in values.values() for a in variables.values()}

            shape = tf.TensorShape(_node(observed, name).attr["shape"].shape)
            sizes = None if shape.rank is None else shape.as_list()
            self.axis = time_axis_of(x, sizes, steps_of, model_name(self.model))
            self._feeds(observed, x)  # so that rows which end early are told of at once
        return self.axis

    @contextmanager
    def _observed(self) -> Iterator[Observed]:
        if (outer := observing(self.model)) is not None:
            yield outer
            return
        with closing(Observed(self.model)) as own:
            yield own

    def _steps(self, x: Any) -> int:
        return int(x.shape[self.time_axis(x) if self.axis is None else self.axis])

    def _name(self, observed: Observed) -> str:
        return next((n.name for n in observed.needed), "") if self.name is None else self.name

    def _feeds(self, observed: Observed, x: Any, done: int = 0) -> dict[str, Any]:
        """Return what is fed with a chunk that begins after so many steps."""
        left = {
            name: _left(name, np.asarray(self.others[name]), done, self._steps(x))
            for name in self._lengths(observed)
        }
        return {**self.others, self._name(observed): x, **left}

    def _lengths(self, observed: Observed) -> list[str]:
        """Return the placeholders that are fed lengths."""
        behind = dict.fromkeys(name for names in self._fed(observed).values() for name in names)
        return [name for name in behind if self._holds_lengths(name)]

    def _fed(self, observed: Observed) -> dict[str, list[str]]:
        """Return the placeholders that each layer's lengths depend on, found out once."""
        if self._behind is None:
            graph, layers = observed.tapped
            self._behind = {layer.path: list(_fed(graph, layer)) for layer in layers}
        return self._behind

    def _holds_lengths(self, name: str) -> bool:
        given = np.asarray(self.others.get(name))
        return given.dtype.kind in "iu" and given.ndim < 2

    def _check(self, observed: Observed) -> None:
        """Raise `UncuttableError` if a layer begins at the end, or says itself where rows end."""
        for layer in observed.tapped[1]:
            if layer.reverse:
                raise UncuttableError(
                    f"{layer.path} reads backwards: it begins at the end of the sequence."
                )
            if not all(map(self._holds_lengths, self._fed(observed)[layer.path])):
                raise UncuttableError(f"{layer.path} ends each row at a length of its own.")


def _left(name: str, lengths: Any, done: int, steps: int) -> Any:
    """Return the lengths of rows in a chunk that begins after so many steps, and has so many.

    Raises
    ------
    InputError
        If a row ends before the chunk does.
    """
    if lengths.size and lengths.min() < done + steps:
        raise InputError(
            f"{name}: got lengths {lengths.tolist()}, but there are at least {done + steps} steps. "
            "Only rows that go on to the end of the sequence can be recorded with store= and "
            "reduce=; record shorter ones without."
        )
    return np.clip(lengths - done, 0, steps)


def _node(observed: Observed, name: str) -> Any:
    for node in observed.tapped[0].node:
        if node.name == name and node.op.startswith("Placeholder"):
            return node
    there = ", ".join(n.name for n in observed.needed)
    raise InputError(f"feeds: the graph has no placeholder {name}; it reads: {there}.")


def _fed(graph: graph_pb2.GraphDef, layer: TappedLayer) -> Iterator[str]:
    """Yield the placeholders that a layer's lengths depend on, by more than their sizes."""
    if layer.lengths is None:
        return
    nodes = {n.name: n for n in graph.node}
    waiting, seen = [layer.lengths], set[str]()
    while waiting:
        name = waiting.pop().lstrip("^").partition(":")[0]
        if name in seen or nodes[name].op in SIZES:
            continue
        seen.add(name)
        if nodes[name].op.startswith("Placeholder"):
            yield name
        waiting += nodes[name].input
