"""Scores of a series and the alarms they raise: what is fitted is fitted on normal data only.

Each score is an array over time, high where the series is unlike the normal part. All of them are
smoothed alike and compared alike with a threshold, the largest value on normal data that the score
was not fitted on, so that they differ in nothing but what they look at. A score looks back, never
ahead, but for the reconstruction error, which needs the whole window.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Range = tuple[int, int]
"""Half-open range of steps."""


def distance_to_nearest(points: Floats, normal: Floats) -> Floats:
    """Return how far each point is from the nearest normal one, in standard deviations.

    Parameters
    ----------
    points : ndarray, shape (time, features)
        What to score.
    normal : ndarray, shape (normal points, features)
        Points of normal operation; their standard deviation is the unit of each feature.

    Returns
    -------
    ndarray, shape (time,)
        Root of the mean squared difference over the features.

    Examples
    --------
    >>> normal = np.array([[-1.0, -2.0], [1.0, 2.0]])
    >>> distance_to_nearest(np.array([[1.0, 2.0], [3.0, 6.0]]), normal).tolist()
    [0.0, 2.0]
    """
    std = normal.std(axis=0)
    a, b = points / std, normal / std
    # |a - b|^2 = |a|^2 - 2ab + |b|^2 needs no array of points x normal points x features.
    squared = (a**2).sum(1)[:, None] - 2.0 * a @ b.T + (b**2).sum(1)
    distance: Floats = np.sqrt(squared.min(axis=1).clip(0.0) / points.shape[1])
    return distance


def past_windows(values: Floats, length: int) -> Floats:
    """Return, for each step, the window that ends with it; before the start stands the first value.

    Examples
    --------
    >>> past_windows(np.array([1.0, 2.0, 3.0]), 2).tolist()
    [[1.0, 1.0], [1.0, 2.0], [2.0, 3.0]]
    """
    padded = np.concatenate([np.full(length - 1, values[0]), values])
    return np.lib.stride_tricks.sliding_window_view(padded, length)


def moving_z_score(values: Floats, length: int) -> Floats:
    """Return how many standard deviations each value lies off the mean of the window it ends.

    Examples
    --------
    >>> moving_z_score(np.array([0.0, 0.0, 0.0, 5.0]), 4).round(3).tolist()
    [0.0, 0.0, 0.0, 1.732]
    """
    windows = past_windows(values, length)
    off: Floats = np.abs(values - windows.mean(axis=1))
    std: Floats = windows.std(axis=1)
    return np.divide(off, std, out=np.zeros_like(off), where=std > 0)


def smooth(score: Floats, length: int) -> Floats:
    """Return the mean of each value and the ``length - 1`` before it."""
    smoothed: Floats = past_windows(score, length).mean(axis=1)
    return smoothed


@dataclass(frozen=True, eq=False)
class Alarms:
    """Where a score is beyond its threshold.

    Parameters
    ----------
    score : ndarray, shape (time,)
        The smoothed score.
    threshold : float
        Largest score on held-out normal data.
    begin : int
        First step that counts: those before it were fitted or held out.
    """

    score: Floats
    threshold: float
    begin: int

    @property
    def raised(self) -> npt.NDArray[np.bool_]:
        """Whether each step is in alarm, shape (time,)."""
        raised = self.score > self.threshold
        raised[: self.begin] = False
        return raised

    @property
    def peak(self) -> int:
        """The step of the highest score."""
        return self.begin + int(self.score[self.begin :].argmax())

    def ranges(self, gap: int) -> list[Range]:
        """Return the stretches in alarm; those less than `gap` steps apart are one."""
        steps = np.flatnonzero(self.raised)
        if not steps.size:
            return []
        cuts = np.flatnonzero(np.diff(steps) > gap)
        first = steps[np.concatenate([[0], cuts + 1])]
        last = steps[np.concatenate([cuts, [steps.size - 1]])]
        return [(int(a), int(b) + 1) for a, b in zip(first, last, strict=True)]

    def share(self, outside: Range) -> float:
        """Return the share of steps in alarm among those that count and lie outside a range."""
        counted = np.ones(self.score.size, bool)
        counted[: self.begin] = False
        counted[outside[0] : outside[1]] = False
        return float(self.raised[counted].mean())

    def within(self, place: Range) -> bool:
        """Whether any step of a range is in alarm."""
        return bool(self.raised[place[0] : place[1]].any())


def alarms(score: Floats, held_out: slice, length: int) -> Alarms:
    """Smooth a score over `length` steps and take its largest held-out value as the threshold."""
    smoothed = smooth(score, length)
    return Alarms(smoothed, float(smoothed[held_out].max()), held_out.stop)
