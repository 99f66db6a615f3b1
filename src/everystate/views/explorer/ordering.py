"""In which order units are shown."""

from collections.abc import Callable
from typing import Final

import numpy as np
import numpy.typing as npt

Values = npt.NDArray[np.floating]
Order = npt.NDArray[np.intp]


def by_number(values: Values) -> Order:
    """Return the units in the order in which they were recorded."""
    return np.arange(len(values))


def by_mean(values: Values) -> Order:
    """Return the units by their mean over the columns, the least first."""
    return np.argsort(_filled(values).mean(axis=1), kind="stable")


def by_travel(values: Values) -> Order:
    """Return the units by how far their value travels, the least first."""
    return np.argsort(np.ptp(_filled(values), axis=1), kind="stable")


def by_peak(values: Values) -> Order:
    """Return the units by the time of their largest value, the earliest first."""
    return np.argsort(_filled(values, -np.inf).argmax(axis=1), kind="stable")


def by_likeness(values: Values) -> Order:
    """Return the units so that those which move alike are neighbours.

    They are clustered by average linkage on one minus the correlation over the columns, and the
    leaves of the tree are ordered so that neighbours are as alike as the tree allows (Bar-Joseph,
    Gifford and Jaakkola 2001, doi:10.1093/bioinformatics/17.suppl_1.S22). Units that do not move
    come last.
    """
    from scipy.cluster.hierarchy import leaves_list, linkage, optimal_leaf_ordering
    from scipy.spatial.distance import squareform

    x = _filled(values).astype(np.float64)
    x = x - x.mean(axis=1, keepdims=True)
    norms = np.sqrt((x * x).sum(axis=1))
    moving = np.flatnonzero(norms > 0)
    still = np.flatnonzero(norms == 0)
    if moving.size < 3:
        return np.concatenate([moving, still])
    x = x[moving] / norms[moving, None]
    apart = np.clip(1.0 - x @ x.T, 0.0, 2.0)
    np.fill_diagonal(apart, 0.0)
    condensed = squareform(apart, checks=False)
    tree = linkage(condensed, "average")
    if moving.size <= ORDERED:
        tree = optimal_leaf_ordering(tree, condensed)
    return np.concatenate([moving[leaves_list(tree)], still])


def _filled(values: Values, missing: float = 0.0) -> Values:
    return np.where(np.isfinite(values), values, missing)


ORDERED: Final = 600
"""Units up to which the leaves of the tree are ordered, which takes long."""
ORDERS: Final[dict[str, Callable[[Values], Order]]] = {
    "as recorded": by_number,
    "by mean": by_mean,
    "by travel": by_travel,
    "by time of peak": by_peak,
    "alike together": by_likeness,
}
"""Each order by its name."""
