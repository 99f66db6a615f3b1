"""Verification: every replayed state against the framework's own, at every step.

A replay computes the layer's output as well as what was hidden, so the output is a check
on all gates at once.
"""

from collections.abc import Mapping
from typing import Final

import numpy as np
import numpy.typing as npt
from array_api_compat import array_namespace

from everystate.cells.activations import Array
from everystate.errors import InputTypeError, ReplayMismatchError
from everystate.recording.compare import Pair, pairs
from everystate.recording.observation import Observation, as_numpy
from everystate.recording.suspects import probable_cause

TOLERANCE: Final[Mapping[str, float]] = {
    "float64": 1e-10,
    "float32": 1e-4,
    "float16": 2e-2,
    "bfloat16": 1e-1,
}
"""Largest scaled difference that is still rounding, by the framework's own precision.

The states of half-precision kernels are rounded at every step, so theirs is wide."""


def tolerance_of(seen: Observation) -> float:
    """Return the largest scaled difference that is still rounding.

    Raises
    ------
    InputTypeError
        If the model computes in a precision that is not known here.
    """
    try:
        return TOLERANCE[seen.precision]
    except KeyError:
        raise InputTypeError(
            f"{seen.path}: computes in {seen.precision}, which cannot be verified; known are "
            f"{', '.join(TOLERANCE)}. Convert the model to one of these."
        ) from None


class Verification:
    """Compares one observation with its replay, block by block; raises at the first mismatch.

    Parameters
    ----------
    seen : Observation
        In the order of processing.
    units : ndarray of int, optional
        The units that the replay computes. None: all.
    """

    def __init__(self, seen: Observation, units: Array | None = None) -> None:
        self.seen = seen
        self.units = units
        self.tolerance = tolerance_of(seen)
        self.errors: dict[str, float] = {}
        self.unverified = 0

    def compare(self, ours: Mapping[str, Array], steps: slice) -> None:
        """Compare a block of steps.

        Parameters
        ----------
        ours : mapping
            Replayed variables, each of shape (block, batch, units).
        steps : slice
            Which steps of the observation they are.

        Raises
        ------
        ReplayMismatchError
            With layer path, variable, place, size of the error and the probable cause.
        """
        for pair in pairs(self.seen, ours, steps, self.units):
            error = pair.error()
            worst = float(array_namespace(error).max(error)) if 0 not in error.shape else 0.0
            if not np.isfinite(worst):
                error = self._of_finite(pair, as_numpy(error))
                worst = float(error.max())
            self.errors[pair.name] = max(worst, self.errors.get(pair.name, 0.0))
            if worst > self.tolerance:
                self._fail(pair, as_numpy(error))

    def _of_finite(self, pair: Pair, error: npt.NDArray[np.floating]) -> npt.NDArray[np.floating]:
        """Set aside what NaN or infinity in the model's own numbers makes incomparable.

        Equal infinities and a NaN on both sides are no difference. What remains is a fault of
        the replay, unless the model's own input had such numbers in that row, or the model's
        states left the range of floats and the two sides did so in different ways.
        """
        ours, theirs = as_numpy(pair.ours), as_numpy(pair.theirs)
        same = (np.isnan(ours) & np.isnan(theirs)) | (ours == theirs)
        odd = ~np.isfinite(error) & ~same
        excused = ~np.isfinite(ours) & ~np.isfinite(theirs)
        excused |= self._tainted()[pair.rows][:, None]
        self.unverified += int((odd & excused).sum())
        return np.where(odd & ~excused, np.inf, np.where(np.isfinite(error), error, 0.0))

    def _tainted(self) -> npt.NDArray[np.bool_]:
        """Return which rows were given NaN or infinity: by the input, or by the initial state."""
        seen = self.seen
        tainted = np.zeros(seen.batch, dtype=bool)
        for state in seen.initial.values():
            tainted |= ~np.isfinite(as_numpy(state)).all(axis=-1)
        if seen.inputs is not None:
            odd = ~np.isfinite(as_numpy(seen.inputs)).all(axis=-1)
            if seen.lengths is not None:
                odd &= np.arange(seen.steps)[:, None] < seen.lengths
            tainted |= odd.any(axis=0)
        return tainted

    def _fail(self, pair: Pair, error: npt.NDArray[np.floating]) -> None:
        seen = self.seen
        step, row, unit = (int(k) for k in np.argwhere(error > self.tolerance)[0])
        last = int(pair.steps[-1] if pair.steps.size == error.shape[0] else pair.steps[row])
        at = int(pair.steps[step]) if pair.steps.size == error.shape[0] else last
        cause = probable_cause(seen, self.tolerance, range(last + 1))
        raise ReplayMismatchError(
            f"{seen.path}: the replayed {pair.name} differs from the framework's, first at step "
            f"{self._in_time(at, int(pair.rows[row]))} (row {pair.rows[row]}, unit "
            f"{unit if self.units is None else self.units[unit]}): scaled error "
            f"{error.max():.2g}, expected at most {self.tolerance:g} for {seen.precision}. {cause} "
            "Nothing of this layer was stored; select variables=('h',) to record what the "
            "framework shows without a replay."
        )

    def _in_time(self, step: int, row: int) -> int:
        """Return the place in time of a step of processing."""
        if not self.seen.reverse:
            return step
        steps = self.seen.steps if self.seen.lengths is None else int(self.seen.lengths[row])
        return steps - 1 - step
