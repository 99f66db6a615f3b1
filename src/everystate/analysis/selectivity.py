"""Selectivity: how far single units follow a label, like the quote and line-length cells."""

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import xarray as xr

from everystate.analysis.extra import extra
from everystate.analysis.features import Floats
from everystate.analysis.labels import labelled_states, p_value, shifts_of
from everystate.analysis.layer import Layer
from everystate.errors import AnalysisError

NEEDED_BY: Final = "selectivity"
BLOCK: Final = 32
"""Columns that are ranked at a time."""


def selectivity(
    layer: Layer,
    labels: Any,
    variables: str | Sequence[str] = "states",
    *,
    shifts: int = 200,
    least_shift: int = 50,
    seed: int = 0,
) -> xr.Dataset:
    r"""Say of each unit how well its value alone tells a label.

    Of a label that is true or false, such as "inside quotes",

    .. math:: s = 2\,\text{AUC} - 1 = P(x_1 > x_0) - P(x_1 < x_0)

    for the values :math:`x_1, x_0` of a step with and of one without it; of a label that is a
    quantity, such as the place in the line, Spearman's rank correlation. Both are 0 for a unit that
    tells nothing, 1 for one that rises with the label without exception, -1 for one that falls.

    Parameters
    ----------
    layer : xarray.DataTree or xarray.Dataset
        One layer of a trace.
    labels : array-like
        Truth values or numbers, one for each row and step, or for each step alone. NaN: the step
        does not count. Of several classes, ask for one: ``labels == "comment"``.
    variables : str or sequence of str
        What to look at: ``"states"``, ``"gates"``, or names such as ``("h", "c")``.
    shifts : int
        How many times to compare with shifted labels.
    least_shift : int
        Shortest shift, in steps: at least as many as a label lasts.
    seed : int
        Which shifts.

    Returns
    -------
    xarray.Dataset
        ``selectivity`` (column); ``p_value`` (column), corrected for looking at all of them: the
        share of shifts, counting none, at which *any* column follows the label as closely; and
        ``strongest_by_chance`` (shift), what the best column reaches then.

    Raises
    ------
    AnalysisError
        If the labels do not fit, are all the same, are classes, or if steps are too few to shift.
    MissingDependencyError
        If SciPy is not installed.

    Notes
    -----
    Ranks make it blind to how steep a response is, and to any that rises and falls again. A unit
    may follow the label because it follows something else that does.

    References
    ----------
    Karpathy, Johnson and Fei-Fei 2015, Visualizing and understanding recurrent networks, section
    4.1 (arXiv:1506.02078), who looked for such cells by eye. Mann and Whitney 1947; Spearman 1904.
    Westfall and Young 1993, Resampling-based multiple testing, for the maximum over units.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> quoted = rng.random(60).repeat(20) < 0.5
    >>> h = rng.normal(size=(1, 1200, 4))
    >>> h[0, :, 2] -= 3 * quoted
    >>> found = selectivity(xr.Dataset({"h": (("batch", "time", "unit"), h)}), quoted)
    >>> found.selectivity.round(1).values.tolist()[2], bool(found.p_value[2] < 0.01)
    (-1.0, True)
    """
    states, y = labelled_states(layer, labels, variables)
    target = _target(y)
    by = shifts_of(y.size, shifts, least_shift, seed)
    targets = np.stack([target, *(np.roll(target, k) for k in by)])
    # Some columns at a time: ranks are several times as large as the states.
    parts = [states.values[:, k : k + BLOCK] for k in range(0, states.shape[1], BLOCK)]
    own, *chance = np.concatenate([targets @ _ranks(part, y) for part in parts], axis=1)
    strongest = np.abs(chance).max(axis=1)
    found = {
        "selectivity": ("column", own),
        "p_value": ("column", p_value(np.abs(own), strongest)),
        "strongest_by_chance": ("shift", strongest),
    }
    names = {name: states[name] for name in states.coords}
    return xr.Dataset(found, {"shift": by, **names})


def _ranks(x: Floats, y: npt.NDArray[Any]) -> Floats:
    """Return ranks, centred and divided so that a product with the target is the measure."""
    ranks: Floats = extra("scipy.stats", NEEDED_BY).rankdata(x, axis=0)
    ranks -= ranks.mean(axis=0)
    if y.dtype == bool:
        return ranks * (2.0 / len(ranks))  # difference of mean ranks, in units of half the samples
    size: Floats = np.sqrt((ranks**2).sum(axis=0))
    return np.divide(ranks, size, out=np.zeros_like(ranks), where=size > 0)


def _target(y: npt.NDArray[Any]) -> Floats:
    """Return what ranks are multiplied by: a difference of means, or ranks of length 1."""
    if y.dtype == bool:
        return np.asarray(np.where(y, 1.0 / y.sum(), -1.0 / (~y).sum()))
    if not np.issubdtype(y.dtype, np.number):
        raise AnalysisError(
            f"got labels of type {y.dtype}, expected truth values or numbers. Of several classes, "
            f"ask for one: labels == {y[0]!r}."
        )
    ranks: Floats = extra("scipy.stats", NEEDED_BY).rankdata(y)
    off = ranks - ranks.mean()
    return np.asarray(off / np.sqrt((off**2).sum()))
