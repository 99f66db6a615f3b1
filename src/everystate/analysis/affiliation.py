r"""Precision and recall of alarms by how near they are to events, not by whether they overlap.

Each step belongs to the zone of the event that is nearest to it (the earlier one, of two equally
near). Within a zone, an alarm at distance :math:`d` from the event is worth the probability that a
step taken at random from the zone is at least as far away; and a step of the event, whose nearest
alarm is at distance :math:`d`, is worth the probability that a random step of the zone is at least
as far from it.

References
----------
Huet, Navarro and Rossi 2022, Local evaluation of time series anomaly detection algorithms,
arXiv:2206.13167. They integrate over continuous time; here time is in steps.
"""

import numpy as np
import numpy.typing as npt

from everystate.analysis.thresholds import stretches


def affiliation(alarm: npt.NDArray[np.bool_], labels: npt.NDArray[np.bool_]) -> tuple[float, float]:
    r"""Return affiliation precision and recall of one row.

    .. math::
        P_j = \frac{1}{|A_j|} \sum_{a \in A_j} \Pr[d(Z, E_j) \ge d(a, E_j)], \qquad
        R_j = \frac{1}{|E_j|} \sum_{e \in E_j} \Pr[|e - Z| \ge d(e, A_j)]

    for event :math:`E_j`, the alarms :math:`A_j` in its zone, and :math:`Z` uniform over the zone;
    averaged over the events, precision only over those with an alarm in their zone, where recall
    is 0 otherwise.

    Parameters
    ----------
    alarm, labels : ndarray of bool, shape (time,)
        Whether each step is in alarm, and is labelled.

    Returns
    -------
    precision, recall : float
        Between 0 and 1. Precision is NaN without any alarm, both are without any event.

    Examples
    --------
    >>> labels = np.array([0, 0, 1, 1, 0, 0, 0, 0], bool)
    >>> affiliation(labels, labels)
    (1.0, 1.0)
    >>> affiliation(np.array([0, 0, 0, 0, 0, 1, 0, 0], bool), labels)
    (0.5, 0.5)
    """
    events = stretches(labels)
    if not events:
        return float("nan"), float("nan")
    at = np.arange(labels.size)
    away = np.array([_distance(at, start, stop) for start, stop in events])
    zone = away.argmin(axis=0)
    precisions, recalls = [], []
    for j, (start, stop) in enumerate(events):
        inside = at[zone == j]
        alarms = inside[alarm[inside]]
        if not alarms.size:
            recalls.append(0.0)
            continue
        precisions.append(float(_at_least(away[j, inside], away[j, alarms]).mean()))
        recalls.append(float(np.mean([_worth(e, alarms, inside) for e in range(start, stop)])))
    precision = float(np.mean(precisions)) if precisions else float("nan")
    return precision, float(np.mean(recalls))


def _worth(step: int, alarms: npt.NDArray[np.int64], zone: npt.NDArray[np.int64]) -> float:
    nearest = np.abs(alarms - step).min(keepdims=True)
    return float(_at_least(np.abs(zone - step), nearest)[0])


def _distance(at: npt.NDArray[np.int64], start: int, stop: int) -> npt.NDArray[np.int64]:
    return np.maximum(0, np.maximum(start - at, at - (stop - 1)))


def _at_least(
    distances: npt.NDArray[np.int64], bounds: npt.NDArray[np.int64]
) -> npt.NDArray[np.float64]:
    """Return the share of the distances that are at least as large as each bound."""
    below = np.searchsorted(np.sort(distances), bounds, side="left")
    return 1.0 - below / distances.size
