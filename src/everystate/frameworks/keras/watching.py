"""Watching one recurrent layer: what goes into its loop and what comes out.

Every call of a `keras.layers.RNN` goes through its ``inner_loop``. It runs untouched, but for
handing out the output of every step, which it computes in any case. What it hides is replayed
where it follows from the outputs; else the loop is run again so that each step shows all
(see `stepping`), and must come out the same.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
from keras import layers

from everystate.frameworks.keras.backend import (
    Tensor,
    is_compiled,
    is_described,
    without_gradients,
)
from everystate.frameworks.keras.compiling import CompiledLoop, is_worth_compiling
from everystate.frameworks.keras.finding import recurrent_layers
from everystate.frameworks.keras.kinds import check_input, is_replayable
from everystate.frameworks.keras.observations import Run
from everystate.frameworks.keras.overhearing import asked_for, overhearing
from everystate.frameworks.keras.replacing import replaced
from everystate.recording.recorder import Recorder


class Watcher:
    """Watches one recurrent layer for a recorder."""

    def __init__(self, path: str, layer: layers.RNN, recorder: Recorder) -> None:
        self.path, self.layer, self.recorder = path, layer, recorder
        self.loop = layer.inner_loop
        self._compiled_loop = CompiledLoop(self.loop)
        self.called = False
        self.compiled = False
        """Whether a function around it was compiled meanwhile, whose calls are not seen."""

    def __call__(
        self, sequences: Tensor, initial_state: Any, mask: Any = None, training: bool = False
    ) -> Any:
        """Run the layer's loop in its place, and hand over what it did."""
        given = {"mask": mask, "training": training}
        if is_described(sequences):
            return self.loop(sequences, initial_state, **given)
        if is_compiled(sequences):
            self.compiled = True
            return self.loop(sequences, initial_state, **given)
        check_input(self.path, self.layer.cell, sequences)
        self.called = True
        replay = self._follows_from_outputs(training)
        before = [] if replay else counters(self.layer.cell)
        with overhearing(self.layer, sequences) as heard:
            _, outputs, final = result = self._run(sequences, initial_state, given)
        heard = asked_for(heard, self.recorder.select)
        run = Run(self.path, self.layer, sequences, initial_state, mask, training, outputs, final)
        with without_gradients(), rewound(self.layer.cell, before):
            for seen in run.replayed(heard) if replay else run.shown():
                self.recorder.observe(seen)
        return result

    def _run(self, sequences: Tensor, initial_state: Any, given: dict[str, Any]) -> Any:
        """Run the loop, which hands out every output where `return_sequences` says so."""
        # Whoever calls the model himself gets the results of the loop as it is.
        long = is_worth_compiling(self.layer, sequences, given["training"])
        with replaced(self.layer, "return_sequences", True):
            if long and self.recorder.own_call:
                return self._compiled_loop(sequences, initial_state, given["mask"])
            return self.loop(sequences, initial_state, **given)

    def _follows_from_outputs(self, training: bool) -> bool:
        """Whether outputs and inputs tell all; not where each gate drops something else."""
        cell = self.layer.cell
        if not is_replayable(cell):
            return False
        apart = getattr(cell, "implementation", 2) == 1 and cell.dropout
        return not (training and (cell.recurrent_dropout or apart))


Counters = list[tuple[Any, npt.NDArray[Any]]]


def counters(cell: Any) -> Counters:
    """Return what a cell counts or draws random numbers by, with its values."""
    return _values(getattr(cell, "non_trainable_variables", ()))


def _values(variables: Iterable[Any]) -> Counters:
    return [(v, np.array(keras.ops.convert_to_numpy(v))) for v in variables]


@contextmanager
def rewound(cell: Any, before: Counters) -> Iterator[None]:
    """Within the block, have a cell count from where it did before; after it, from where it is."""
    now = counters(cell) if before else []
    _assign(before)
    try:
        yield
    finally:
        _assign(now)


@contextmanager
def undisturbed(model: keras.Layer) -> Iterator[None]:
    """After the block, have a model's random numbers and carried states be what they were."""
    stateful = [layer for _, layer in recurrent_layers(model) if layer.stateful]
    carried = [v for layer in stateful for v in keras.tree.flatten(layer.states) if v is not None]
    fresh = [layer for layer in stateful if not layer.built]
    before = counters(model) + _values(carried)
    try:
        yield
    finally:
        _assign(before)
        for layer in fresh:
            layer.reset_state()


def _assign(counters: Counters) -> None:
    for variable, value in counters:
        if not np.array_equal(np.asarray(keras.ops.convert_to_numpy(variable)), value):
            variable.assign(value)
