"""A replay beside what the framework showed: every state at every step, and the last one.

The difference is scaled, ``|ours - theirs| / (1 + |theirs|)``: ``|c|`` of 40 is normal in
trained models.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from array_api_compat import array_namespace, device

from everystate.cells.activations import Array
from everystate.recording.observation import Observation
from everystate.recording.stretches import of_units


@dataclass(frozen=True, eq=False)
class Pair:
    """One variable at some steps, replayed and as the framework has it.

    Parameters
    ----------
    name : str
        The variable.
    ours, theirs : array, shape (steps, rows, units)
        What is compared.
    steps : ndarray of int, shape (steps, 1) or (1, rows)
        Which step of the sequence each is, in order of processing: the same for all rows, or
        the last one of each, of a final state.
    rows : ndarray of int, shape (rows,)
        Which row each is.
    valid : ndarray of bool, shape (steps, rows), optional
        What counts. None: all.
    """

    name: str
    ours: Array
    theirs: Array
    steps: npt.NDArray[np.int64]
    rows: npt.NDArray[np.int64]
    valid: npt.NDArray[np.bool_] | None = None

    def error(self) -> Array:
        """Return the scaled difference, zero where it does not count."""
        xp = array_namespace(self.ours, self.theirs)
        error = xp.abs(self.ours - self.theirs)
        error /= 1.0 + xp.abs(self.theirs)
        if self.valid is None:
            return error
        mask = xp.asarray(self.valid[:, :, None], device=device(error))
        return xp.where(mask, error, xp.zeros_like(error))


def largest(error: Array) -> float:
    """Return the largest element, 0 of none, NaN if one is NaN."""
    return float(array_namespace(error).max(error)) if 0 not in error.shape else 0.0


def pairs(
    seen: Observation,
    ours: Mapping[str, Array],
    block: slice,
    units: npt.NDArray[np.int64] | None = None,
) -> Iterator[Pair]:
    """Yield what a block of a replay can be compared in: each step, and the last of each row.

    Parameters
    ----------
    seen : Observation
        In the order of processing.
    ours : mapping
        Replayed variables, each of shape (block, batch, units).
    block : slice
        Which steps of the observation they are.
    units : ndarray of int, optional
        Which units they are. None: all.
    """
    steps = np.arange(*block.indices(seen.steps))[:, None]
    rows = np.arange(seen.batch)
    valid = None if seen.lengths is None else steps < seen.lengths
    for name in ours:
        if name in seen.observed:
            theirs = of_units(seen.observed[name][block], units)
            yield Pair(name, ours[name], theirs, steps, rows, valid)
    if block.step not in (None, 1):
        return  # strided: the last step need not be among them
    lengths = np.full(seen.batch, seen.steps) if seen.lengths is None else seen.lengths
    ended = np.flatnonzero((lengths > block.start) & (lengths <= block.stop))
    for name in ours:
        if name in seen.final and ended.size:
            last = lengths[ended] - 1
            theirs = of_units(seen.final[name][ended], units)
            at_end = ours[name][last - block.start, ended]
            yield Pair(name, at_end[None], theirs[None], last[None], ended)
