"""Scores of a series and the alarms they raise: what is fitted is fitted on normal data only.

Each score is an array over time, high where the series is unlike the normal part. All of them are
smoothed alike and compared alike with a threshold, the largest value on normal data that the score
was not fitted on, so that they differ in nothing but what they look at. A score looks back, never
ahead, but for the reconstruction error, which needs the whole window.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from everystate.analysis.simple_scores import smooth
from everystate.analysis.thresholds import stretches

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
        return stretches(self.raised, gap - 1)

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
