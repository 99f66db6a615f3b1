"""Half precision: a replay must be as near to the framework's states as rounding leaves it.

Kernels of half precision round at every step, and how far that takes ``h`` depends on the
layer. No fixed tolerance fits: a right replay of a large LSTM whose ``c`` swings is off by 0.37
at some step, a wrong gate of a GRU with small weights by 0.02. So the layer itself says what
rounding does to it. It is replayed once more, each weight moved by half a unit in the last
place, and the distance between the two replays is what the error is measured in.

In 864 layers of PyTorch (LSTM and GRU; 5, 16 and 256 units; weights 0.3 to 4 times as large as
at the start; 1 to 2,000 steps; float16, bfloat16 and autocast) right readings came to 2.2 (once,
of three steps of 5 units, to 3.6). Wrong ones (two gates exchanged, a bias left out, the reset
moved) came to 9 and more; with small weights, or of three steps, to 4 and more.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Final

import numpy as np
from array_api_compat import array_namespace, device

from everystate.cells import Weights
from everystate.cells.activations import Array
from everystate.errors import ReplayMismatchError
from everystate.recording.observation import Observation, as_numpy
from everystate.recording.stretches import stretches
from everystate.recording.suspects import cause_where

HALF_UNIT: Final[Mapping[str, float]] = {"float16": 2.0**-12, "bfloat16": 2.0**-9}
"""Half a unit in the last place of a number near 1."""
LIMIT: Final = 5.0
"""How many times the effect of rounding an error may be."""
STEPS: Final = 256
"""Steps that are compared: a wrong reading shows at once."""


def check_rounding(seen: Observation) -> dict[str, float]:
    """Check a layer of half precision; return an attribute for its leaf, none for another layer.

    Parameters
    ----------
    seen : Observation
        In the order of processing, with cell and weights.

    Returns
    -------
    dict
        ``error_over_rounding``: how many times the effect of rounding the error of ``h`` is.

    Raises
    ------
    ReplayMismatchError
        If that is more than `LIMIT`.
    """
    if seen.precision not in HALF_UNIT:
        return {}
    ratio = error_over_rounding(seen)
    if ratio > LIMIT:
        raise ReplayMismatchError(
            f"{seen.path}: the replayed h differs from the framework's by {ratio:.2g} times what "
            f"rounding to {seen.precision} does to this layer, expected at most {LIMIT:g} times. "
            f"{cause_where(seen, _of_match)} Nothing of this layer was stored; select "
            "variables=('h',) to record what the framework shows without a replay."
        )
    return {"error_over_rounding": ratio}


def _of_match(seen: Observation) -> float | None:
    ratio = error_over_rounding(seen)
    return ratio if ratio <= LIMIT else None


def error_over_rounding(seen: Observation) -> float:
    """Return the root mean square error of h, in units of what rounding does to it."""
    half_unit = HALF_UNIT[seen.precision]
    moved = replace(seen, weights=_moved(seen.equations[1], half_unit))
    steps = range(min(seen.steps, STEPS))
    squares = np.zeros(3)
    with np.errstate(all="ignore"):
        both = zip(stretches(seen, steps), stretches(moved, steps), strict=True)
        for (block, ours), (_, others) in both:
            theirs, a, b = (
                np.asarray(as_numpy(h), np.float64)
                for h in (seen.observed["h"][block], ours["h"], others["h"])
            )
            parts = np.stack([a - theirs, b - a, half_unit * theirs]) / (1.0 + np.abs(theirs))
            counts = np.isfinite(parts).all(axis=0)
            if seen.lengths is not None:
                counts &= (np.arange(seen.steps)[block, None] < seen.lengths)[:, :, None]
            squares += np.sum(parts**2, axis=(1, 2, 3), where=counts)
    error, by_weights, by_storing = np.sqrt(squares)
    return float(error / (by_weights + by_storing)) if error else 0.0


def _moved(w: Weights, half_unit: float) -> Weights:
    """Return weights each moved up or down by half a unit in the last place, ever the same way."""
    draw = np.random.default_rng(0)

    def moved(a: Array) -> Array:
        factor = 1.0 + half_unit * draw.choice([-1.0, 1.0], tuple(a.shape))
        return a * array_namespace(a).asarray(factor, dtype=a.dtype, device=device(a))

    return Weights(**{name: moved(a) for name, a in w.items()})
