"""Keras' masks, as a trace has them: lengths where rows are padded behind, skipped steps elsewhere.

At a masked step Keras carries the state over. What it puts out there differs (the output before,
zeros, the initial state, by layer and back end), so the outputs of masked steps are not looked at.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from keras import tree

from everystate.frameworks.keras.backend import as_array


@dataclass(frozen=True, eq=False)
class Valid:
    """Which steps of each row count.

    Parameters
    ----------
    worked : ndarray of bool, shape (time, batch)
        True where a step counts.
    """

    worked: npt.NDArray[np.bool_]

    @property
    def lengths(self) -> npt.NDArray[np.int64] | None:
        """One past the last step that counts, of each row; None if that is the end of all."""
        steps = len(self.worked)
        ends = steps - np.argmax(self.worked[::-1], axis=0)
        ends = np.where(self.worked.any(axis=0), ends, 0)
        return None if (ends == steps).all() else ends.astype(np.int64)

    @property
    def skipped(self) -> npt.NDArray[np.bool_] | None:
        """The steps before that which do not count; None if there are none."""
        ends = np.array([len(self.worked)]) if self.lengths is None else self.lengths
        gaps: npt.NDArray[np.bool_] = ~self.worked & (np.arange(len(self.worked))[:, None] < ends)
        return gaps if gaps.any() else None

    def carried(self, h: npt.NDArray[Any], initial: npt.NDArray[Any], reverse: bool) -> Any:
        """Return a state, (time, batch, units), as it is carried over the steps between."""
        order = slice(None, None, -1 if reverse else 1)
        worked, steps = self.worked[order], np.arange(len(self.worked))[:, None]
        last = np.maximum.accumulate(np.where(worked, steps, -1), axis=0)
        found = np.take_along_axis(h[order], np.maximum(last, 0)[..., None], axis=0)
        return np.where((last < 0)[..., None], initial, found)[order]


def valid_steps(mask: Any) -> Valid | None:
    """Return which steps a mask, (batch, time), leaves; None if it leaves all or there is none."""
    found = [m for m in tree.flatten(mask) if m is not None]
    if not found:
        return None
    worked = np.asarray(as_array(found[0]), dtype=bool)
    worked = worked.reshape(*worked.shape[:2], -1)[..., 0].T
    return None if worked.all() else Valid(worked)
