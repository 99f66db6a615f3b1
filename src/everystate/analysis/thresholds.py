"""From scores to alarms: a threshold with a stated false-alarm rate, and what lies beyond it."""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import xarray as xr

from everystate import schema
from everystate.analysis.features import Floats
from everystate.errors import AnalysisError, SelectionError


@dataclass(frozen=True)
class Threshold:
    """A threshold, and what it rests on.

    Parameters
    ----------
    value : float
        A score above it is an alarm.
    false_alarm_rate : float
        What was asked for: at most this share of the steps of normal data is in alarm.
    samples : int
        Finite scores of the baseline.
    effective_samples : float
        How many independent ones would tell as much: scores of neighbouring steps resemble one
        another. If this times the rate is below about 10, the true rate may well be several times
        the one asked for, or next to nothing.
    """

    value: float
    false_alarm_rate: float
    samples: int
    effective_samples: float


def threshold(score: xr.DataArray, false_alarm_rate: float = 0.01) -> Threshold:
    r"""Return the threshold that normal steps exceed at a given rate.

    It is the :math:`k`-th smallest of the :math:`n` scores of a baseline,

    .. math:: k = \lceil (n + 1)(1 - \alpha) \rceil ,

    the quantile of split conformal prediction.

    Parameters
    ----------
    score : xarray.DataArray
        Scores of normal data that the detector was *not* fitted on: (time) or (batch, time).
    false_alarm_rate : float
        :math:`\alpha`: share of the normal steps that may be in alarm; between 0 and 1.

    Returns
    -------
    Threshold

    Raises
    ------
    SelectionError
        If the rate is not between 0 and 1.
    AnalysisError
        If there are fewer than :math:`1/\alpha - 1` finite scores: no threshold can promise so
        low a rate.

    Notes
    -----
    *What holds.* If a new normal score and the :math:`n` of the baseline are exchangeable, the new
    one is beyond the threshold with probability at most :math:`\alpha`, whatever their
    distribution, averaged over baselines.

    *What does not.* Scores of a series are correlated, so they are exchangeable neither with one
    another nor, where normal data drift, with later ones. In a stationary series the rate still
    holds in the long run and on average, but it varies from one baseline to the next as if there
    were only `effective_samples`, and false alarms come in stretches: their number is below
    :math:`\alpha n` and their length above 1. A threshold says nothing of the rate of misses.

    References
    ----------
    Vovk, Gammerman and Shafer 2005, Algorithmic learning in a random world. Laxhammar and Falkman
    2010, Conformal prediction for distribution-independent anomaly detection in streaming vessel
    data.

    Examples
    --------
    >>> found = threshold(xr.DataArray(np.arange(199.0), dims="time"), 0.05)
    >>> found.value, found.samples
    (189.0, 199)
    """
    if not 0 < false_alarm_rate < 1:
        raise SelectionError(f"got false_alarm_rate={false_alarm_rate}, expected between 0 and 1")
    series = np.atleast_2d(np.asarray(score.transpose(..., schema.TIME).values, dtype=np.float64))
    known = np.sort(series[np.isfinite(series)])
    k = math.ceil(round((known.size + 1) * (1 - false_alarm_rate), 9))
    if k > known.size:
        least = math.ceil(round(1 / false_alarm_rate - 1, 9))
        raise AnalysisError(
            f"{known.size} scores of normal data cannot promise a false-alarm rate of "
            f"{false_alarm_rate}: it takes {least}. Score more normal data, or allow a higher rate."
        )
    effective = sum(effective_samples(row[np.isfinite(row)]) for row in series)
    return Threshold(float(known[k - 1]), false_alarm_rate, known.size, effective)


def effective_samples(series: Floats) -> float:
    r"""Return how many independent samples tell the mean of a series as well as it does.

    .. math:: n_\text{eff} = \frac{n}{1 + 2 \sum_{k=1}^{K} \rho_k}

    with the autocorrelation :math:`\rho`, summed over pairs of lags as long as the sum of a pair is
    positive; at most :math:`n`.

    References
    ----------
    Geyer 1992, Practical Markov chain Monte Carlo, section 3.3 (initial positive sequence).

    Examples
    --------
    >>> noise = np.random.default_rng(0).normal(size=2000)
    >>> bool(effective_samples(noise) > 1500), bool(effective_samples(noise.repeat(10)) < 2500)
    (True, True)
    """
    n = series.size
    if n < 4:
        return float(n)
    off = series - series.mean()
    power = np.abs(np.fft.rfft(off, 2 * n)) ** 2
    covariance = np.fft.irfft(power)[:n]
    if not covariance[0] > 0:
        return 1.0
    rho = covariance / covariance[0]
    pairs = rho[: n // 2 * 2].reshape(-1, 2).sum(axis=1)
    positive = pairs > 0
    count = pairs.size if positive.all() else int(positive.argmin())
    time = 2 * float(pairs[:count].sum()) - 1
    return min(float(n), n / max(time, 1e-12))


def stretches(alarm: npt.ArrayLike, gap: int = 0) -> list[tuple[int, int]]:
    """Return the half-open ranges of steps in which a series is true.

    Parameters
    ----------
    alarm : array-like of bool, shape (time,)
        Whether each step is in alarm, or labelled.
    gap : int
        Ranges with at most this many steps between them are one.

    Returns
    -------
    list of (int, int)

    Examples
    --------
    >>> stretches([False, True, True, False, True]), stretches([True, False, True], gap=1)
    ([(1, 3), (4, 5)], [(0, 3)])
    """
    steps = np.flatnonzero(np.asarray(alarm, dtype=bool))
    if not steps.size:
        return []
    cuts = np.flatnonzero(np.diff(steps) > gap + 1)
    first = steps[np.concatenate([[0], cuts + 1])]
    last = steps[np.concatenate([cuts, [steps.size - 1]])]
    return [(int(a), int(b) + 1) for a, b in zip(first, last, strict=True)]
