r"""Scores and alarms against labels, with the controls that keep one from fooling oneself.

No point adjustment: that common practice counts a labelled event as found at every step once one
of its steps is in alarm, which lets random alarms look excellent (Kim et al. 2022, Towards a
rigorous evaluation of time-series anomaly detection, arXiv:2109.05257).
"""

from typing import Any, Final

import numpy as np
import numpy.typing as npt
import xarray as xr

from everystate import schema
from everystate.analysis.affiliation import affiliation
from everystate.analysis.extra import extra
from everystate.analysis.features import Floats
from everystate.analysis.thresholds import stretches
from everystate.errors import AnalysisError, SelectionError

NEEDED_BY: Final = "an evaluation of scores"

Bools = npt.NDArray[np.bool_]


def evaluate_score(
    score: xr.DataArray, labels: Any, *, shifts: int = 200, seed: int = 0
) -> xr.Dataset:
    r"""Say how well a score tells labelled steps from the others, whatever the threshold.

    .. math:: \text{AP} = \sum_n (R_n - R_{n-1}) P_n , \qquad
              p = \frac{1 + \#\{k : \text{AP}_k \ge \text{AP}\}}{1 + K}

    with precision :math:`P_n` and recall :math:`R_n`, over steps, at the :math:`n`-th threshold,
    and the average precision :math:`\text{AP}_k` of labels that were shifted in time, around the
    end, by :math:`K` random distances.

    Parameters
    ----------
    score : xarray.DataArray
        High where something is unusual: (time) or (batch, time). Steps with NaN do not count.
    labels : array-like of bool
        Whether each step is anomalous, of the same shape.
    shifts : int
        How many shifts to try; at most as many as there are.
    seed : int
        Which.

    Returns
    -------
    xarray.Dataset
        ``average_precision``, the area under the curve of precision and recall; ``chance``, what a
        score that says nothing has on average: the share of labelled steps; ``roc_auc``, 0.5 by
        chance; ``shifted`` (shift), average precisions of shifted labels; ``p_value``.

    Raises
    ------
    AnalysisError
        If the labels have another shape, or label no step that counts, or all of them.
    MissingDependencyError
        If scikit-learn is not installed.

    Notes
    -----
    *Why shifts.* Scores are smooth and labels come in stretches, so steps are far fewer independent
    cases than they seem, and a score can be high during one event by accident. Shifted labels
    keep both, and lose only that they belong together. With one event, no p-value is below the
    share of the series that the score's excursions take; with few shifts, none is below
    :math:`1 / (1 + K)`.

    *What it does not see.* Whether alarms come in time: see `evaluate_alarms`.

    References
    ----------
    Davis and Goadrich 2006, The relationship between precision-recall and ROC curves (on rare
    positives).

    Examples
    --------
    >>> score = xr.DataArray([0.1, 0.3, 0.2, 0.9, 0.8, 0.1], dims="time")
    >>> found = evaluate_score(score, [0, 0, 0, 1, 1, 0])
    >>> [round(found[name].item(), 3) for name in ("average_precision", "chance", "p_value")]
    [1.0, 0.333, 0.167]
    """
    metrics = extra("sklearn.metrics", NEEDED_BY)
    s, y = _counted(score, labels)
    order = np.argsort(-s, kind="stable")
    ends = np.flatnonzero(np.diff(s[order], append=np.nan))  # ties are one threshold
    own = _average_precision(y[order], ends)
    rng = np.random.default_rng(seed)
    by = rng.permutation(np.arange(1, s.size))[:shifts]
    shifted = [_average_precision(np.roll(y, k)[order], ends) for k in by]
    found = {
        "average_precision": own,
        "chance": float(y.mean()),
        "roc_auc": float(metrics.roc_auc_score(y, s)),
        "p_value": (1 + sum(other >= own for other in shifted)) / (1 + len(by)),
        "shifted": ("shift", shifted),
    }
    return xr.Dataset(found, {"shift": by})


def evaluate_alarms(alarm: xr.DataArray, labels: Any, *, tolerance: int = 0) -> xr.Dataset:
    r"""Say which labelled events alarms find, how late, and at what cost.

    Parameters
    ----------
    alarm : xarray.DataArray of bool
        Whether each step is in alarm: (time) or (batch, time).
    labels : array-like of bool
        Whether each step is anomalous, of the same shape. Each stretch of them is an event.
    tolerance : int
        Steps after an event in which an alarm still finds it and is not false: as long as the
        memory, or the window of a score, still holds the event.

    Returns
    -------
    xarray.Dataset
        ``found`` (event), whether any of its steps, or of those of the tolerance, is in alarm;
        ``delay`` (event), steps from its beginning to its first alarm, NaN if there is none, with
        coordinates ``row``, ``start`` and ``stop`` (half-open). ``false_alarm_rate``, the share of
        the other steps in alarm; ``false_alarms``, in how many stretches. ``precision`` and
        ``recall``, by steps. ``affiliation_precision`` and ``affiliation_recall``, by nearness
        (`everystate.analysis.affiliation`): means over the rows that have events; about 0.5
        for random alarms.

    Raises
    ------
    AnalysisError
        If the labels have another shape, or label no step.
    SelectionError
        If the tolerance is negative.

    Notes
    -----
    An alarm that began before the event and lasts into it has delay 0, deserved or not: look at the
    false-alarm rate beside it. Something that is always in alarm finds all with no delay.

    Examples
    --------
    >>> alarm = xr.DataArray(np.array([0, 1, 0, 0, 0, 1, 1, 0], bool), dims="time")
    >>> found = evaluate_alarms(alarm, [0, 0, 0, 0, 1, 1, 0, 0])
    >>> found.found.values.tolist(), found.delay.values.tolist(), found.false_alarms.item()
    ([True], [1.0], 2)
    """
    if tolerance < 0:
        raise SelectionError(f"got tolerance={tolerance}, expected a number of steps from 0 on")
    a, y = _aligned(alarm, labels, bool)
    rows = list(enumerate(zip(a, y, strict=True)))
    if not y.any():
        raise AnalysisError("no step is labelled: there is no event to find")
    events = [(row, *event) for row, (_, labelled) in rows for event in stretches(labelled)]
    near = np.zeros_like(y)
    delay = []
    for row, start, stop in events:
        near[row, start : stop + tolerance] = True
        alarms = np.flatnonzero(a[row, start : stop + tolerance])
        delay.append(float(alarms[0]) if alarms.size else np.nan)
    false = a & ~near
    nearness = [affiliation(*pair) for _, pair in rows if pair[1].any()]
    precisions = [precision for precision, _ in nearness if np.isfinite(precision)]
    found = {
        "found": ("event", np.isfinite(delay)),
        "delay": ("event", np.array(delay)),
        "false_alarm_rate": _share(false, ~near),
        "false_alarms": sum(len(stretches(row)) for row in false),
        "precision": _share(a & y, a),
        "recall": _share(a & y, y),
        "affiliation_precision": float(np.mean(precisions)) if precisions else np.nan,
        "affiliation_recall": float(np.mean([recall for _, recall in nearness])),
    }
    places = dict(zip(("row", "start", "stop"), np.array(events).T, strict=True))
    return xr.Dataset(found, {name: ("event", place) for name, place in places.items()})


def _average_precision(descending: Bools, ends: npt.NDArray[np.int64]) -> float:
    """Return it from labels in descending order of their scores, cut after each of `ends`."""
    hits = descending.cumsum()[ends]
    return float((np.diff(hits, prepend=0) * hits / (ends + 1)).sum() / hits[-1])


def _share(part: Bools, whole: Bools) -> float:
    return float(part.sum() / whole.sum()) if whole.any() else float("nan")


def _counted(score: xr.DataArray, labels: Any) -> tuple[Floats, Bools]:
    """Return scores and labels of the steps that count, row after row."""
    s, y = _aligned(score, labels, np.float64)
    counted = ~np.isnan(s)
    s, y = s[counted], y[counted]
    if not y.any() or y.all():
        raise AnalysisError(
            f"{int(y.sum())} of the {y.size} steps with a score are labelled: nothing can be told "
            f"from nothing. Pass labels with both kinds of steps."
        )
    # scikit-learn refuses infinity; the order of the scores is all that matters.
    return np.clip(s, -np.finfo(np.float64).max, np.finfo(np.float64).max), y


def _aligned(values: xr.DataArray, labels: Any, dtype: Any) -> tuple[Any, Bools]:
    """Return values and labels as arrays (row, time)."""
    values = values.transpose(..., schema.TIME)
    if isinstance(labels, xr.DataArray):
        labels = labels.transpose(..., schema.TIME)
    y = np.asarray(labels)
    if y.shape != values.shape:
        raise AnalysisError(
            f"the labels have shape {y.shape}, the steps {values.shape}, as {values.dims}. Pass "
            f"one label for each step."
        )
    return np.atleast_2d(np.asarray(values.values, dtype=dtype)), np.atleast_2d(y.astype(bool))
