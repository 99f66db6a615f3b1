"""Scores of a series that need no network: what a score from states has to be better than.

Each looks back, never ahead. A series has shape (time,) or (time, channels).
"""

import numpy as np
import numpy.typing as npt

from everystate.analysis.features import Floats


def past_windows(values: Floats, length: int) -> Floats:
    """Return, for each step, the window that ends with it; before the start stands the first value.

    Parameters
    ----------
    values : ndarray, shape (time, ...)
        The series.
    length : int
        Steps of a window.

    Returns
    -------
    ndarray, shape (time, ..., length)
        A view where it can be one.

    Examples
    --------
    >>> past_windows(np.array([1.0, 2.0, 3.0]), 2).tolist()
    [[1.0, 1.0], [1.0, 2.0], [2.0, 3.0]]
    """
    padded = np.concatenate([np.repeat(values[:1], length - 1, axis=0), values])
    return np.lib.stride_tricks.sliding_window_view(padded, length, axis=0)


def moving_z_score(values: Floats, length: int) -> Floats:
    r"""Return how many standard deviations each value lies off the mean of the window it ends.

    .. math:: z_t = \sqrt{\frac{1}{C} \sum_c \left(
        \frac{x_{t,c} - \bar x_{t,c}}{s_{t,c}} \right)^2}

    with mean and standard deviation of the last `length` steps. A channel that does not move in
    the window counts as 0.

    Examples
    --------
    >>> moving_z_score(np.array([0.0, 0.0, 0.0, 5.0]), 4).round(3).tolist()
    [0.0, 0.0, 0.0, 1.732]
    """
    windows = past_windows(values, length)
    off, std = np.abs(values - windows.mean(axis=-1)), windows.std(axis=-1)
    return _over_channels(np.divide(off, std, out=np.zeros_like(off), where=std > 0))


def step_size(values: Floats, scale: npt.ArrayLike = 1.0) -> Floats:
    """Return how far each value lies off the one before, in units of `scale`; 0 for the first.

    Parameters
    ----------
    values : ndarray, shape (time,) or (time, channels)
        The series.
    scale : array-like
        Unit of each channel, such as the standard deviation of its steps in normal data.

    Examples
    --------
    >>> step_size(np.array([[0.0, 0.0], [3.0, 4.0]])).round(3).tolist()
    [0.0, 3.536]
    """
    return _over_channels(np.abs(np.diff(values, axis=0, prepend=values[:1])) / np.asarray(scale))


def smooth(score: Floats, length: int) -> Floats:
    """Return the mean of each value and the ``length - 1`` before it.

    Examples
    --------
    >>> smooth(np.array([3.0, 3.0, 9.0, 3.0]), 3).tolist()
    [3.0, 3.0, 5.0, 5.0]
    """
    smoothed: Floats = past_windows(score, length).mean(axis=-1)
    return smoothed


def _over_channels(score: Floats) -> Floats:
    """Return the root mean square over the channels of a series that has several."""
    return score if score.ndim == 1 else np.sqrt((score**2).mean(axis=1))
