"""What a loop in Python lets one overhear: on PyTorch, an LSTM's gates and ``c`` for nothing.

Without a GPU, Keras on PyTorch loops over the steps of an LSTM in Python
(``keras/src/backend/torch/rnn.py``: ``_fallback_lstm``). Every step puts its gates through the
layer's activations in the order f i g o, and then ``c``. The functions that stand in for these
compute the same and keep what they see. That order is private to Keras: the first and the last
step are compared with the equations, and a layer that reads otherwise is replayed like any other.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

import keras
import numpy as np
from keras import layers

from everystate.frameworks.keras.backend import Tensor
from everystate.frameworks.keras.replacing import replaced
from everystate.recording.observation import Observation
from everystate.recording.selection import Select

Heard = dict[str, list[Tensor]]
"""By name, what each step computed, in the order of processing."""
TOLERANCE: Final = 1e-4


@contextmanager
def overhearing(layer: layers.RNN, sequences: Tensor) -> Iterator[Heard]:
    """Within the block, gather what the loop of a layer computes; nothing where it cannot be."""
    loops = isinstance(layer, layers.LSTM) and layer.use_cudnn in ("auto", True)
    if keras.backend.backend() != "torch" or not loops or sequences.device.type != "cpu":
        yield {}
        return
    cell, heard = layer.cell, Heard()
    gates: list[Tensor] = []
    candidates: list[tuple[Tensor, Tensor]] = []

    def sigma(x: Tensor, own: Callable[[Tensor], Tensor] = cell.recurrent_activation) -> Tensor:
        gates.append(y := own(x))
        return y

    def phi(x: Tensor, own: Callable[[Tensor], Tensor] = cell.activation) -> Tensor:
        candidates.append((x, y := own(x)))
        return y

    with replaced(cell, "recurrent_activation", sigma), replaced(cell, "activation", phi):
        yield heard
    steps = sequences.shape[1]
    if len(gates) == 3 * steps and len(candidates) == 2 * steps:
        heard |= {"f": gates[::3], "i": gates[1::3], "o": gates[2::3]}
        heard |= {"g": [y for _, y in candidates[::2]], "c": [c for c, _ in candidates[1::2]]}


def asked_for(heard: Heard, select: Select) -> Heard:
    """Return what of it a selection asks for: gates, which verify ``c``, only with a gate."""
    asked = {*select.asked}
    if not heard or asked <= {"h", "inputs"}:
        return {}
    return {"c": heard["c"]} if asked <= {"h", "c", "states", "inputs"} else heard


def as_the_equations(seen: Observation) -> bool:
    """Whether what was overheard is what the equations say, at the first and the last step.

    Parameters
    ----------
    seen : Observation
        In the order of processing, with ``c`` at least.
    """
    cell, w = seen.equations
    assert seen.inputs is not None
    for t in {0, seen.steps - 1}:
        before = {name: seen.observed[name][t - 1] if t else seen.initial[name] for name in "hc"}
        expected = cell.step(w, cell.from_input(w, seen.inputs[t]), before)
        for name in set(cell.variables) & set(seen.observed):
            a, b = np.asarray(expected[name]), np.asarray(seen.observed[name][t])
            if not np.allclose(a, b, rtol=TOLERANCE, atol=TOLERANCE, equal_nan=True):
                return False
    return True
