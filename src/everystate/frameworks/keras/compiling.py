"""On TensorFlow, a layer's loop compiled: run eagerly it takes some milliseconds for each step.

`tf.function` makes one graph of the loop, as ``predict`` and ``fit`` do of the model. The ops are
the same, and so is what they compute; to trace them takes as long as 50 to 100 steps.
"""

from collections.abc import Callable
from typing import Any, Final

import keras
from keras import layers

from everystate.frameworks.keras.backend import Tensor
from everystate.frameworks.keras.kinds import is_replayable

WORTH_IT: Final = 64
"""From how many steps on a loop is compiled."""


class CompiledLoop:
    """A layer's ``inner_loop`` as one graph for any number of rows and steps, made when needed.

    Parameters
    ----------
    loop : callable
        As `keras.layers.RNN.inner_loop`. It must change nothing in Python as it runs.
    """

    def __init__(self, loop: Callable[..., Any]) -> None:
        self.loop = loop
        self._traced: dict[bool, Any] = {}

    def __call__(self, sequences: Tensor, initial_state: Any, mask: Tensor | None) -> Any:
        """Run it, not in training."""
        masked = mask is not None
        given = [sequences, initial_state, *([mask] if masked else [])]
        if masked not in self._traced:
            self._traced[masked] = self._trace(given)
        return self._traced[masked](*keras.tree.flatten(given))

    def _trace(self, given: list[Any]) -> Any:
        import tensorflow as tf

        def run(*flat: Tensor) -> Any:
            sequences, state, *mask = keras.tree.pack_sequence_as(given, list(flat))
            return self.loop(sequences, state, mask=mask[0] if mask else None, training=False)

        def described(a: Tensor, axes: int) -> Any:
            return tf.TensorSpec([None] * axes + list(a.shape[axes:]), a.dtype)

        sequences, state, *mask = given
        rows = [described(a, 1) for a in keras.tree.flatten(state)]
        specs = [described(sequences, 2), *rows, *(described(m, 2) for m in mask)]
        return tf.function(run, autograph=False).get_concrete_function(*specs)


def is_worth_compiling(layer: layers.RNN, sequences: Tensor, training: bool) -> bool:
    """Whether a loop is run faster compiled, with the same result.

    It is on TensorFlow if it is long; not where dropout keeps its masks from step to step, where it
    is Python that runs each step (`unroll`), or where the loop is the user's own.
    """
    if keras.backend.backend() != "tensorflow" or training or layer.unroll:
        return False
    keras_own = type(layer).inner_loop.__module__.startswith("keras.")
    return keras_own and is_replayable(layer.cell) and (sequences.shape[1] or 0) >= WORTH_IT
