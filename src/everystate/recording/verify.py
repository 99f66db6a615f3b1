"""Verification: every replayed state against the framework's own, at every step.

A replay computes the layer's output as well as what was hidden, so the output is a check
on all gates at once: ``|ours - theirs| <= tolerance * (1 + |theirs|)``. The scale matters:
``|c|`` of 40 is normal in trained models.
"""

from collections.abc import Mapping
from typing import Final

import numpy as np
from array_api_compat import array_namespace

from everystate.cells.activations import Array
from everystate.errors import ReplayMismatchError
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


class Verification:
    """Compares one observation with its replay, block by block; raises at the first mismatch.

    Parameters
    ----------
    seen : Observation
        In the order of processing (not reversed).
    units : ndarray of int, optional
        The units that the replay computes. None: all.
    """

    def __init__(self, seen: Observation, units: Array | None = None) -> None:
        self.seen = seen
        self.units = units
        self.tolerance = TOLERANCE[seen.precision]
        self.errors: dict[str, float] = {}
        self.unverified = 0
        self._tainted: bool | None = None

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
        lengths = self.seen.lengths
        for name in (name for name in ours if name in self.seen.observed):
            theirs = self._of(self.seen.observed[name][steps])
            valid = None
            if lengths is not None:
                t = np.arange(self.seen.steps)[steps]
                valid = (t[:, None] < lengths)[:, :, None]
            self._check(name, ours[name], theirs, steps, valid)
        for name in (name for name in ours if name in self.seen.final):
            self._compare_final(name, ours[name], steps)

    def _of(self, theirs: Array) -> Array:
        return theirs if self.units is None else theirs[..., self.units]

    def _compare_final(self, name: str, ours: Array, steps: slice) -> None:
        if steps.step not in (None, 1):
            return  # strided: the last step need not be among them, and c was not scanned
        seen, n = self.seen, ours.shape[0]
        if seen.lengths is None:
            if steps.start + n == seen.steps:
                theirs = self._of(seen.final[name])
                self._check(name, ours[-1][None], theirs[None], slice(seen.steps - 1, None), None)
            return
        last = seen.lengths - 1 - steps.start
        rows = np.flatnonzero((last >= 0) & (last < n))
        if rows.size:
            theirs = self._of(seen.final[name][rows])
            where = slice(int(last[rows].max()) + steps.start, None)
            self._check(name, ours[last[rows], rows][None], theirs[None], where, None)

    def _check(
        self, name: str, ours: Array, theirs: Array, steps: slice, valid: Array | None
    ) -> None:
        xp = array_namespace(ours, theirs)
        error = xp.abs(ours - theirs) / (1.0 + xp.abs(theirs))
        if valid is not None:
            mask = xp.asarray(valid, device=error.device)
            error = xp.where(mask, error, xp.zeros_like(error))
        worst = float(xp.max(error)) if error.shape[0] and error.shape[1] else 0.0
        if not np.isfinite(worst):
            worst, error = self._without_tainted(as_numpy(error), as_numpy(ours), as_numpy(theirs))
        self.errors[name] = max(worst, self.errors.get(name, 0.0))
        if worst > self.tolerance:
            self._fail(name, as_numpy(error), steps)

    def _without_tainted(self, error: Array, ours: Array, theirs: Array) -> tuple[float, Array]:
        """Set aside what NaN or infinity in the model's own input made incomparable."""
        if self._tainted is None:
            given = [a for a in (self.seen.inputs, *self.seen.initial.values()) if a is not None]
            self._tainted = not all(bool(np.isfinite(as_numpy(a)).all()) for a in given)
        same = (np.isnan(ours) & np.isnan(theirs)) | (ours == theirs)
        bad = ~np.isfinite(error) & ~same
        if bad.any() and not self._tainted:
            return float("inf"), np.where(bad, np.inf, np.where(same, 0.0, error))
        self.unverified += int(bad.sum())
        error = np.where(bad | same, 0.0, error)
        return float(error.max(initial=0.0)), error

    def _fail(self, name: str, error: Array, steps: slice) -> None:
        step, row, unit = (int(k) for k in np.argwhere(error > self.tolerance)[0])
        step = (steps.start or 0) + step * (steps.step or 1)
        unit = unit if self.units is None else int(self.units[unit])
        seen = self.seen
        raise ReplayMismatchError(
            f"{seen.path}: the replayed {name} differs from the framework's, first at step {step} "
            f"(row {row}, unit {unit}): scaled error {float(np.nanmax(error)):.2g}, expected at "
            f"most {self.tolerance:g} for {seen.precision}. {probable_cause(seen, self.tolerance)} "
            "Nothing of this layer was stored; select variables=('h',) to record what the "
            "framework shows without a replay."
        )
