"""Verification: every replayed state against the framework's own, at every step.

A replay computes the layer's output as well as what was hidden, so the output is a check
on all gates at once.
"""

from collections.abc import Mapping
from typing import Final

import numpy as np
import numpy.typing as npt

from everystate.cells.activations import Array
from everystate.errors import InputTypeError, ReplayMismatchError
from everystate.recording.compare import Pair, largest, pairs
from everystate.recording.observation import Observation, as_numpy
from everystate.recording.rounding import check_rounding
from everystate.recording.skipping import packed, step_of
from everystate.recording.suspects import probable_cause

TOLERANCE: Final[Mapping[str, float]] = {
    "float64": 1e-10,
    "float32": 1e-4,
    "float16": 0.1,
    "bfloat16": 0.5,
}
"""Largest scaled difference of a single number that is still rounding, by precision.

Where ``c`` falls from 40 to 0 in one step, half precision is off by this much (seen: 0.03 and
0.37), so it says little there: `rounding` looks at all numbers together, and closely."""


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

    Raises
    ------
    InputTypeError
        If the model computes in a precision that cannot be verified.
    ReplayMismatchError
        If that is half precision, and `check_rounding` finds a mismatch.
    """

    def __init__(self, seen: Observation, units: npt.NDArray[np.int64] | None = None) -> None:
        self.seen = packed(seen)
        self.units = units
        self.tolerance = tolerance_of(seen)
        self.rounding = check_rounding(self.seen)
        full = np.full(seen.batch, seen.steps) if seen.lengths is None else seen.lengths
        self.last_steps: list[int] = (full - 1).tolist()
        self.errors: dict[str, float] = {}
        self.unverified = 0

    @property
    def attrs(self) -> dict[str, float]:
        """What was found so far, as attributes of the leaf."""
        errors = {f"max_error_{name}": error for name, error in self.errors.items()}
        found = {"tolerance": self.tolerance, "unverified_values": self.unverified}
        return {**self.rounding, **errors, **found}

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
            worst = largest(error)
            if not np.isfinite(worst):
                error = self._of_finite(pair, as_numpy(error))
                worst = largest(error)
            self.note({pair.name: worst})
            if worst > self.tolerance:
                self._fail(pair, as_numpy(error))

    def errors_of(self, ours: Mapping[str, Array], steps: slice) -> dict[str, float]:
        """Return the largest scaled difference in a block, by variable; NaN if one is NaN.

        Nothing is changed, so that several threads may do it; `note` what they find.
        """
        found: dict[str, float] = {}
        for pair in pairs(self.seen, ours, steps, self.units):
            found[pair.name] = np.maximum(largest(pair.error()), found.get(pair.name, 0.0)).item()
        return found

    def note(self, errors: Mapping[str, float]) -> bool:
        """Take what `errors_of` found; return whether it is rounding, and finite.

        If not, `compare` tells what it is.
        """
        if not all(error <= self.tolerance for error in errors.values()):
            return False
        for name, error in errors.items():
            self.errors[name] = max(error, self.errors.get(name, 0.0))
        return True

    def _of_finite(self, pair: Pair, error: Array) -> Array:
        """Set aside what NaN or infinity in the model's own numbers makes incomparable.

        Equal infinities and a NaN on both sides are no difference. What remains is a fault of
        the replay, unless the model was given such numbers, at that step of that row or before,
        or its states left the range of floats and the two sides did so in different ways.
        """
        ours, theirs = as_numpy(pair.ours), as_numpy(pair.theirs)
        same = (np.isnan(ours) & np.isnan(theirs)) | (ours == theirs)
        odd = ~np.isfinite(error) & ~same
        excused = ~np.isfinite(ours) & ~np.isfinite(theirs)
        excused |= (pair.steps >= self._tainted_from()[pair.rows])[:, :, None]
        self.unverified += int((odd & excused).sum())
        return np.where(odd & ~excused, np.inf, np.where(np.isfinite(error), error, 0.0))

    def _tainted_from(self) -> npt.NDArray[np.int64]:
        """Return the first step at which each row was given NaN or infinity, else their count."""
        seen = self.seen
        odd = np.zeros((seen.steps, seen.batch), dtype=bool)
        for given in (seen.inputs, *(seen.previous or {}).values()):
            if given is not None:
                odd |= ~np.isfinite(as_numpy(given)).all(axis=-1)
        for state in seen.initial.values():
            odd[0] |= ~np.isfinite(as_numpy(state)).all(axis=-1)
        return np.where(odd.any(axis=0), odd.argmax(axis=0), seen.steps)

    def _fail(self, pair: Pair, error: Array) -> None:
        seen = self.seen
        k, row, unit = (int(place) for place in np.argwhere(error > self.tolerance)[0])
        size = self._size(pair, error, (k, row, unit))
        step, row = int(np.broadcast_to(pair.steps, error.shape[:2])[k, row]), int(pair.rows[row])
        cause = probable_cause(seen, self.tolerance, range(int(pair.steps.max()) + 1))
        raise ReplayMismatchError(
            f"{seen.path}: the replayed {pair.name} differs from the framework's, first at step "
            f"{self._in_time(step, row)} (row {row}, unit "
            f"{unit if self.units is None else self.units[unit]}): {size}. {cause} Nothing of this "
            "layer was stored; select variables=('h',) to record what the framework shows without "
            "a replay."
        )

    def _size(self, pair: Pair, error: Array, place: tuple[int, int, int]) -> str:
        """Return how large a difference is; of what is not finite, what it is."""
        if np.isfinite(error[place]):
            expected = f"expected at most {self.tolerance:g} for {self.seen.precision}"
            return f"scaled error {error.max():.2g}, {expected}"
        theirs, ours = (float(as_numpy(a)[place]) for a in (pair.theirs, pair.ours))
        return (
            f"{theirs:.3g} in the framework, {ours:.3g} in the replay, and one alone is finite, as "
            f"where numbers leave the range of {self.seen.precision}"
        )

    def _in_time(self, step: int, row: int) -> int:
        """Return the place in time of a step of processing."""
        step = step_of(self.seen, step, row)
        if not self.seen.reverse:
            return step
        return self.last_steps[row] - step
