"""``DynamicQuantizeLSTM``: onnxruntime's LSTM with weights in 8 bits, which rounds what it reads.

Input and state are rounded to 256 levels between their smallest and largest value, 0 among them:
the input once for the whole sequence, the state before each step, in groups of rows, one group a
thread. A replay rounds in the same way: how many rows a group has is read off the first step, and
verification sees whether it is so at all others.

Source: ``DynamicQuantizeLSTM`` in onnxruntime's ``docs/ContribOperators.md``;
``GetQuantizationParameter`` in its ``core/util/qmath.h``.
"""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Final

import numpy as np

from everystate.cells import LSTM, Weights
from everystate.cells.activations import Array
from everystate.frameworks.onnx.files import Tensor
from everystate.recording.observation import Observation
from everystate.recording.stretches import in_processing_order

OP: Final = "DynamicQuantizeLSTM"
DOMAIN: Final = "com.microsoft"
SUFFIX: Final = "_quant"
"""What the quantiser adds to a node's name."""
HINT: Final = (
    "its weights are quantised, and this version or machine rounds input and state in another way "
    "than is known; record the model before quantisation"
)
_LEVELS: Final = np.float32(255.0)
_TRIED: Final = 4
"""How many steps the size of a group is read off."""


@dataclass(frozen=True)
class QuantisedLSTM(LSTM):
    """An LSTM whose input and state are rounded to 256 levels before they are used.

    Parameters
    ----------
    input_low, input_high : float
        Between which the input is rounded.
    group : int
        How many rows of the state are rounded together.
    """

    input_low: float = 0.0
    input_high: float = 0.0
    group: int = 1

    def from_input(self, w: Weights, x: Array) -> Array:
        """Return ``W x + b`` of the rounded input (see `Cell.from_input`)."""
        low, high = np.float32(self.input_low), np.float32(self.input_high)
        return super().from_input(w, rounded(x, low, high))

    def from_state(self, w: Weights, h: Array) -> Array:
        """Return ``R h + b_R`` of the state, rounded step by step (see `Cell.from_state`)."""
        groups = [
            rounded(rows, np.minimum(_over(np.min, rows), 0), np.maximum(_over(np.max, rows), 0))
            for rows in np.split(h, range(self.group, h.shape[1], self.group), axis=1)
        ]
        return super().from_state(w, np.concatenate(groups, axis=1))


def _over(reduce: Callable[..., Tensor], rows: Tensor) -> Tensor:
    """Return the smallest or largest value of each step."""
    return reduce(rows, axis=(1, 2), keepdims=True)


def rounded(a: Array, low: Array, high: Array) -> Array:
    """Return `a` rounded to the nearest of 256 levels from `low` to `high`, 0 being one of them."""
    scale = (high - low) / _LEVELS
    scale = np.where(scale == 0, np.float32(1), scale)
    zero = np.round(-low / scale)
    return (np.clip(np.round(a / scale) + zero, 0, _LEVELS) - zero) * scale


def as_read(seen: Observation) -> Observation:
    """Return an observation whose cell rounds as onnxruntime did in it.

    Parameters
    ----------
    seen : Observation
        With the plain LSTM, and weights that are floating numbers again.
    """
    ahead = in_processing_order(seen)
    cell, w = ahead.equations
    x, h = ahead.inputs, ahead.observed["h"]
    assert x is not None
    read = x if seen.lengths is None else x[: seen.lengths.max()]
    low, high = min(0.0, float(read.min())), max(0.0, float(read.max()))
    known = QuantisedLSTM(**asdict(cell), input_low=low, input_high=high)
    a_x = known.from_input(w, x[:_TRIED])
    valid = np.ones(h.shape[:2], bool)
    if seen.lengths is not None:
        valid = np.arange(len(h))[:, None] < seen.lengths

    def error(size: int) -> float:
        tried, state, worst = replace(known, group=size), dict(seen.initial), 0.0
        for t, a_t in enumerate(a_x):
            after = tried.step(w, a_t, state)
            worst = max(worst, float(np.abs(after["h"] - h[t])[valid[t]].max(initial=0.0)))
            state = {"h": h[t], "c": after["c"]}
        return worst

    sizes = sorted({-(-seen.batch // threads) for threads in range(1, seen.batch + 1)})
    return replace(seen, cell=replace(known, group=min(sizes, key=error)), hints=(HINT,))


def dequantised(arrays: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the node's weights as an LSTM's, (directions, gates * units, ...), in float32."""
    found = {role: a for role, a in arrays.items() if role in ("B", "P")}
    for role in ("W", "R"):
        stored = arrays[role].astype(np.float32)
        ways = stored.shape[0]
        scale, zero = (
            arrays[f"{role}_{part}"].astype(np.float32).reshape(ways, 1, -1)
            for part in ("scale", "zero_point")
        )
        found[role] = np.ascontiguousarray(((stored - zero) * scale).swapaxes(1, 2))
    return found
