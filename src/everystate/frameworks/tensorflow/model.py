"""TensorFlow for the public verbs: `record` for graphs and their files, `unroll` for cells."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from contextvars import ContextVar
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import tensorflow as tf
from tensorflow.core.framework import graph_pb2

from everystate.errors import InputError, UnsupportedModelError
from everystate.frameworks.tensorflow.cells import is_cell, leaves, watched
from everystate.frameworks.tensorflow.dynamic import dynamic_rnn
from everystate.frameworks.tensorflow.feeding import feeds_of, nodes_behind
from everystate.frameworks.tensorflow.files import is_graph_file, read_graph
from everystate.frameworks.tensorflow.live import frozen, is_live
from everystate.frameworks.tensorflow.loops import Nested
from everystate.frameworks.tensorflow.tap import TappedLayer, tapped_layers
from everystate.recording.observation import Observation, turn, widened
from everystate.recording.recorder import Recorder

Values = dict[str, dict[str, Any]]
"""Of each layer's path, arrays by their names."""

_observed: ContextVar[tuple["Observed", ...]] = ContextVar("graphs", default=())
"""Models that are being observed, innermost last: `call` runs these."""


class Observed:
    """A graph that is tapped and ready to run, until it is closed.

    Parameters
    ----------
    model : GraphDef or path
        The graph.
    recorder : Recorder, optional
        Whom it reports to. None: nobody.
    """

    def __init__(self, model: Any, recorder: Recorder | None = None) -> None:
        self.model, self.recorder = model, recorder
        self._session: Any = None

    @cached_property
    def tapped(self) -> tuple[graph_pb2.GraphDef, list[TappedLayer]]:
        """The tapped graph, and its layers."""
        return _tapped(self.model)

    @cached_property
    def needed(self) -> list[Any]:
        """The placeholders that its layers depend on."""
        graph, found = self.tapped
        behind = nodes_behind(graph, found)
        return [n for n in behind if n.op.startswith("Placeholder")]

    def run(self, inputs: Sequence[Any], initial: Values | None = None) -> Values:
        """Run it once, and report what its layers did.

        Parameters
        ----------
        inputs : sequence
            As of `call`.
        initial : dict, optional
            What each layer begins with, by its path and the state's name; of what is not there,
            what the graph itself begins with.
        """
        graph, found = self.tapped
        if initial is None and self.recorder is not None:
            found = [layer for layer in found if self.recorder.wants(layer.path)]
        feeds = feeds_of(graph, inputs, found)
        for layer in found:
            for name, state in (initial or {}).get(layer.path, {}).items():
                feeds[layer.initial[name]] = state
        fetches = {a.path: (a.variables, a.initial, a.lengths or ()) for a in found}
        try:
            values = self._opened().run(fetches, feeds)
        except tf.errors.InvalidArgumentError as error:
            raise InputError(f"TensorFlow failed on these inputs: {error.message}") from error
        if self.recorder is not None:
            for layer in found:
                self.recorder.observe(_observation(layer, *values[layer.path]))
        return {path: variables for path, (variables, _, _) in values.items()}

    def _opened(self) -> Any:
        if self._session is None:
            with tf.Graph().as_default() as graph:
                tf.import_graph_def(self.tapped[0], name="")
            self._session = tf.compat.v1.Session(graph=graph)
        return self._session

    def close(self) -> None:
        """Let go of what it takes to run."""
        if self._session is not None:
            self._session.close()
            self._session = None


def observing(model: Any) -> Observed | None:
    """Return how a model is observed where this is called; None if it is not."""
    return next((o for o in reversed(_observed.get()) if _same(o.model, model)), None)


def matches(model: object) -> bool:
    """Whether this is a graph, the path of one, what runs one, or a cell of TensorFlow 1."""
    kinds = isinstance(model, graph_pb2.GraphDef), is_graph_file(model), is_live(model)
    return any(kinds) or is_cell(model)


def layers(model: Any) -> Sequence[str]:
    """Return the path of each recurrent layer of a graph, or of a cell."""
    return [*leaves(model)] if is_cell(model) else [layer.path for layer in _tapped(model)[1]]


@contextmanager
def observe(model: Any, recorder: Recorder) -> Iterator[None]:
    """Have `call` in this block report to `recorder`: a graph runs nowhere else.

    A cell reports what `dynamic_rnn` runs eagerly.
    """
    if is_cell(model):
        with watched(model, recorder):
            yield
        return
    with closing(Observed(model, recorder)) as observed:
        token = _observed.set((*_observed.get(), observed))
        try:
            yield
        finally:
            _observed.reset(token)


def call(model: Any, inputs: Sequence[Any]) -> Values:
    """Run the tapped graph once.

    Parameters
    ----------
    model : GraphDef or path
        The graph.
    inputs : sequence
        One mapping from the names of placeholders to arrays; or the arrays themselves, in the
        order of the placeholders.

    Returns
    -------
    dict
        For each layer's path its states and gates, (time, batch, units).

    Raises
    ------
    InputError
        If a feed is missing, unknown, or of another shape or kind than its placeholder.
    """
    if is_cell(model):
        return leaves(model, unroll(model, *inputs).states)
    if (observed := observing(model)) is not None:
        return observed.run(inputs)
    with closing(Observed(model)) as own:
        return own.run(inputs)


def _same(one: Any, other: Any) -> bool:
    return one is other or (
        is_graph_file(one) and is_graph_file(other) and Path(one) == Path(other)
    )


def _observation(layer: TappedLayer, variables: Any, initial: Any, lengths: Any) -> Observation:
    valid = _checked_lengths(layer.path, variables, lengths) if layer.lengths else None
    # c first: the cell's width is that of c, where h is projected.
    ordered = sorted(variables, key=lambda name: name != "c")
    shown = {name: widened(variables[name]) for name in ordered}
    told = {"cell": layer.family, "update": layer.update}
    if layer.reverse:
        shown = {name: turn(a, valid) for name, a in shown.items()}
    return Observation(
        path=layer.path,
        observed=shown,
        initial={name: widened(a) for name, a in initial.items()},
        final={name: widened(a) for name, a in final_states(layer, variables).items()},
        lengths=valid,
        reverse=layer.reverse,
        precision=next(iter(variables.values())).dtype.name,
        attrs={name: said for name, said in told.items() if said},
    )


def final_states(layer: TappedLayer, variables: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a layer ended with; nothing if it took no step."""
    return {name: variables[name][-1] for name in layer.initial if len(variables[name])}


def _checked_lengths(path: str, variables: Any, lengths: Any) -> npt.NDArray[np.int64]:
    """Return a layer's sequence lengths; TensorFlow runs with impossible ones without a word."""
    found = np.asarray(lengths, np.int64)
    steps = len(next(iter(variables.values())))
    if found.size and (found.min() < 0 or found.max() > steps):
        raise InputError(
            f"{path}: got sequence lengths {found.tolist()}, expected each between 0 and the "
            f"{steps} steps that the loop took. Check what is fed as lengths."
        )
    return found


def _tapped(model: Any) -> tuple[graph_pb2.GraphDef, list[TappedLayer]]:
    if isinstance(model, graph_pb2.GraphDef):
        return tapped_layers(model)
    if is_live(model):
        return tapped_layers(frozen(model))
    path = Path(model)
    changed = path if path.exists() else Path(f"{path}.meta")  # of a checkpoint there is no file
    if not changed.exists():
        raise InputError(f"{path}: there is no such file or folder.")
    return _read_and_tapped(path, changed.stat().st_mtime_ns)


@lru_cache(maxsize=1)
def _read_and_tapped(path: Path, changed: int) -> tuple[graph_pb2.GraphDef, list[TappedLayer]]:
    return tapped_layers(read_graph(path))


class Unrolled(NamedTuple):
    """What `unroll` returns, batch-major."""

    outputs: Nested
    final_state: Nested
    states: Nested


def unroll(layer: Any, *inputs: Any) -> Unrolled:
    """Run a cell over a sequence as `dynamic_rnn` does.

    Parameters
    ----------
    layer : RNNCell, or a cell of Keras 2
        The cell: whatever `dynamic_rnn` takes.
    *inputs : tensor
        The input, (batch, time, features); then the initial state, if there is one.
    """
    if not all(hasattr(layer, name) for name in ("state_size", "output_size")):
        raise UnsupportedModelError(
            f"unroll: got a {type(layer).__name__}, expected a cell, with state_size and "
            "output_size. Of a layer of Keras 2 it is layer.cell. For a graph use es.record, "
            "or tap of everystate.frameworks.tensorflow."
        )
    x = tf.convert_to_tensor(inputs[0])
    initial = inputs[1] if len(inputs) > 1 else None
    outputs, final_state, states = dynamic_rnn(layer, x, None, initial, dtype=x.dtype)
    return Unrolled(outputs, final_state, states)
