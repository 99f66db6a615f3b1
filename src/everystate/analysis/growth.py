"""Whether states keep growing, since when, and beyond what they reached in training."""

from typing import Final

import numpy as np
import numpy.typing as npt
import xarray as xr

from everystate.analysis.drift import of_size
from everystate.analysis.layer import Layer

Floats = npt.NDArray[np.float64]

BLOCKS: Final = 8
"""Stretches of equal length whose means are compared."""
MEASURES: Final = ("trend", "growth", "reached", "largest", "excess", "left_at", "steps")


def growth(layer: Layer, trained_on: int | None = None, shortest: int = 100) -> xr.Dataset:
    r"""Return whether the size of the state keeps growing, and where it leaves training.

    With :math:`m_t`, the mean of :math:`|c_t|` over the units (as in `drift`), the *start* being
    the first `trained_on` steps that the layer reads, and :math:`M_1 \dots M_8` the means of
    :math:`m` over eight stretches of equal length that make up the rest:

    .. math::
        \text{trend} &= \frac{1}{28} \sum_{j<k} \operatorname{sign}(M_k - M_j), \qquad
        \text{growth} = M_8 / M_1 \\
        \text{reached} &= \max_{t \in \text{start}} m_t, \qquad
        \text{largest} = \max_{t \notin \text{start}} m_t, \qquad
        \text{excess} = \max_k M_k / \text{reached} \\
        \text{left\_at} &= 1 + \max \{t : m_t \le \text{reached}\}

    Parameters
    ----------
    layer : xarray.DataTree or xarray.Dataset
        One layer of a trace.
    trained_on : int, optional
        Steps of the sequences that the network was trained on. None: a tenth of the row, which
        sets a start from zero apart, and says nothing of training.
    shortest : int
        Rows with fewer steps get NaN, as do those with fewer than eight recorded steps after the
        start.

    Returns
    -------
    xarray.Dataset
        ``trend`` (Kendall's tau: 1 if every stretch is larger than all before it, about 0
        without a trend), ``growth``, ``reached``, ``largest``, ``excess``, ``left_at`` (in steps
        from the first that the row reads; NaN if the row ends within what was reached) and
        ``steps`` (of the row, from its first to its last), each (batch). The attribute ``state``
        names the state. Empty if no state was recorded.

    Notes
    -----
    Without a trend, and with stretches much longer than the memory, :math:`\text{trend} \ge
    0.7` comes up in less than 1 of 100 rows (Kendall's distribution for eight values:
    :math:`P(S \ge 20) = 0.0071`, where :math:`S = 28 \cdot \text{trend}`). Where the memory is as
    long as a stretch, neighbours are alike, and it comes up far more often.

    A trend is not a fault: look at ``growth`` beside it. A few huge units can carry the mean.

    References
    ----------
    Mann 1945, Nonparametric tests against trend, Econometrica 13; Kendall 1938, A new measure
    of rank correlation, Biometrika 30 (the statistic :math:`S`).

    Examples
    --------
    >>> c = xr.DataArray(np.arange(1.0, 101).reshape(1, 100, 1), dims=("batch", "time", "unit"))
    >>> found = growth(xr.Dataset({"c": c}), trained_on=20).isel(batch=0)
    >>> [found[name].item() for name in ("trend", "reached", "largest", "excess", "left_at")]
    [1.0, 20.0, 100.0, 4.775, 20.0]
    """
    each_row = np.vectorize(_growth, signature="(t),(t)->(m)", excluded=("trained_on", "shortest"))
    return of_size(layer, each_row, MEASURES, trained_on=trained_on, shortest=shortest)


def _growth(size: Floats, at: Floats, trained_on: int | None, shortest: int) -> Floats:
    """Return `MEASURES` of one row's series of shape (time,)."""
    there = np.isfinite(size)
    m, t = size[there].astype(np.float64), at[there]
    t = t - t[:1]
    steps = t[-1] + 1 if t.size else 0.0
    start = t < (steps / 10 if trained_on is None else trained_on)
    later = m[~start]
    if steps < shortest or not start.any() or later.size < BLOCKS:
        return np.array([np.nan] * (len(MEASURES) - 1) + [steps])
    means = np.array([block.mean() for block in np.array_split(later, BLOCKS)])
    reached = m[start].max()
    within = np.flatnonzero(m <= reached)[-1]
    left_at = t[within + 1] if within + 1 < t.size else np.nan
    sizes = [trend(means), _over(means[-1], means[0]), reached, later.max()]
    return np.array([*sizes, _over(means.max(), reached), left_at, steps])


def trend(values: Floats) -> float:
    """Return Kendall's tau of values against their order: 1 if they only rise.

    Examples
    --------
    >>> trend(np.array([1.0, 2.0, 4.0])), trend(np.array([1.0, 1.0]))
    (1.0, 0.0)
    """
    pairs = np.triu_indices(values.size, 1)
    return float(np.sign(values[pairs[1]] - values[pairs[0]]).mean())


def _over(a: float, b: float) -> float:
    return a / b if b > 0 else (np.inf if a > 0 else np.nan)
