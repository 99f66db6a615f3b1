"""Running a model chunk by chunk: the state of each recurrent layer in it is carried on.

Every call of a recurrent layer goes through its ``inner_loop``, which is given the initial state:
from the second chunk on, the one that the layer's last call ended with.
"""

from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from typing import Any

import keras
import numpy as np
from keras import layers

from everystate.errors import UncuttableError
from everystate.frameworks.keras.calling import call
from everystate.frameworks.keras.finding import recurrent_layers
from everystate.frameworks.keras.loading import opened
from everystate.frameworks.keras.replacing import replaced
from everystate.frameworks.keras.watching import undisturbed
from everystate.recording.stream import Stream

States = dict[str, list[Any]]


def stream(model: Any) -> Stream:
    """Return how to run a model chunk by chunk (see `everystate.recording.stream.Stream`)."""
    return Stream(
        partial(_step, model), lambda x: 1, undisturbed=lambda: undisturbed(opened(model))
    )


def _step(model: Any, x: Any, states: States | None) -> tuple[Any, States]:
    """Run one chunk; return the output, and the states of all recurrent layers after it."""
    found = recurrent_layers(opened(model))
    for path, layer in found:
        _check(path, layer)
    after: States = {}
    with ExitStack() as stack:
        for path, layer in found:
            before = None if states is None else states[path]
            loop = _Carrying(path, layer.inner_loop, before, after)
            stack.enter_context(replaced(layer, "inner_loop", loop))
        output = call(model, (x,))
    missing = [path for path, _ in found if path not in after]
    if missing:
        raise UncuttableError(f"{', '.join(missing)} of it is not called at all.")
    return output, after


def _check(path: str, layer: layers.RNN) -> None:
    if layer.go_backwards:
        raise UncuttableError(f"{path} reads backwards: it begins at the end of the sequence.")
    if layer.stateful:
        raise UncuttableError(f"{path} is stateful: it keeps its state itself, from call to call.")


class _Carrying:
    """A layer's loop that begins where its last call ended, and tells where this one does."""

    def __init__(
        self, path: str, loop: Callable[..., Any], before: list[Any] | None, after: States
    ) -> None:
        self.path, self.loop, self.before, self.after = path, loop, before, after

    def __call__(self, sequences: Any, initial_state: Any, *args: Any, **kwargs: Any) -> Any:
        if self.path in self.after:
            raise UncuttableError(f"{self.path} is called several times in one call of the model.")
        given = [
            np.asarray(keras.ops.convert_to_numpy(s)) for s in keras.tree.flatten(initial_state)
        ]
        if any(s.any() for s in given):
            raise UncuttableError(f"{self.path} is given its state by the model itself.")
        if self.before is not None:
            tensors = [keras.ops.convert_to_tensor(s) for s in self.before]
            initial_state = keras.tree.pack_sequence_as(initial_state, tensors)
        result = self.loop(sequences, initial_state, *args, **kwargs)
        self.after[self.path] = keras.tree.flatten(result[2])
        return result
