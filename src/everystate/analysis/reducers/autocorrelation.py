"""How alike a unit's values are some steps apart."""

from dataclasses import dataclass

import numpy as np
import xarray as xr

from everystate import schema
from everystate.analysis.reducers.base import Reducer, by_unit, finite, variable
from everystate.analysis.reducers.span import Part, Span, State, Values, ends, joined_ends
from everystate.errors import SelectionError


@dataclass
class Autocorrelation(Reducer):
    r"""Autocorrelation of each unit at chosen lags, over rows and steps.

    .. math::
        r_k = \frac{\frac{1}{n_k} \sum (x_t - m)(x_{t+k} - m)}{\frac{1}{n} \sum (x_t - m)^2}

    with the mean :math:`m` of all :math:`n` values, and over the :math:`n_k` pairs of values of
    one row that are :math:`k` steps apart.

    Parameters
    ----------
    lags : tuple of int
        In steps as they are fed, each 1 or more: of a recording with ``every=10``, lag 1 is ten
        steps of the sequence. Default: 1, 10 and 100. The largest is how many steps of each row
        are carried from block to block.

    Raises
    ------
    SelectionError
        If there are no lags, or one is below 1.

    Notes
    -----
    Result: ``autocorrelation`` and ``pairs`` (lag, unit). NaN without a pair, or where the values
    are all the same. Values that are not finite are left out, with their pairs. Each pair counts
    the same (the *adjusted* estimate), so short rows do not pull :math:`r_k` to zero.

    Merging along time makes the pairs across the seam, out of the last steps of the one and the
    first of the other; along batch there are none.

    References
    ----------
    Box and Jenkins 1976, Time series analysis, section 2.1.5, whose sum is divided by
    :math:`n` where this one is by :math:`n_k`. Co-moments are joined as Pébay 2008
    (SAND2008-6212), section 3.1, does.

    Examples
    --------
    >>> seen = Autocorrelation(lags=(1, 2))
    >>> seen.update(np.array([1.0, -1.0, 1.0, -1.0]).reshape(4, 1, 1))
    >>> seen.result().autocorrelation.values.round(6).tolist()
    [[-1.0], [1.0]]
    """

    lags: tuple[int, ...] = (1, 10, 100)

    def __post_init__(self) -> None:
        """Refuse what is no lag."""
        self.lags = tuple(int(lag) for lag in self.lags)
        if not self.lags or min(self.lags) < 1:
            raise SelectionError(f"lags={self.lags}: expected steps, each 1 or more.")

    def _of(self, block: Values, span: Span) -> State:
        x = finite(block)
        y = by_unit(x)
        pairs = [_comoment(y[..., :-lag], y[..., lag:]) for lag in self.lags]
        return {
            "values": _comoment(y, y),
            "pairs": np.stack(pairs),
            **ends(x, max(self.lags)),
        }

    def _joined(self, a: Part, b: Part, *, seam: bool) -> State:
        pairs = _together(a["pairs"], b["pairs"])
        if seam:
            across = [_comoment(*_across(a["tail"], b["head"], lag)) for lag in self.lags]
            pairs = _together(pairs, np.stack(across))
        return {
            "values": _together(a["values"], b["values"]),
            "pairs": pairs,
            **joined_ends(a, b, seam, max(self.lags)),
        }

    def _labelled(self, seen: Part) -> xr.Dataset:
        n, mean, _, m2 = seen["values"]
        nk, first, second, product = np.moveaxis(seen["pairs"], 1, 0)
        product = product + nk * (first - mean) * (second - mean)
        variance = np.where(m2 > 0, m2, np.nan) / np.maximum(n, 1)
        r = product / np.where(nk > 0, nk, np.nan) / variance
        dims = ("lag", schema.UNIT)
        return xr.Dataset(
            {
                "autocorrelation": variable(r, dims, "autocorrelation", schema.UNITS),
                "pairs": variable(nk.astype(np.int64), dims, "number of pairs", schema.UNITS),
            },
            {"lag": variable(self.lags, ("lag",), "steps fed apart", "step")},
        )


def _comoment(x: Values, y: Values) -> Values:
    """Return count, means and centred product of pairs, (4, unit), from (unit, row, step)."""
    if not x.size:
        return np.zeros((4, len(x)))
    both = (1, 2)
    good = ~(np.isnan(x) | np.isnan(y))
    all_good = bool(good.all())
    n = good.sum(both).astype(np.float64)
    N = np.maximum(n, 1)
    # What is close to both means is taken off first, or the sums of products would cancel.
    near = (x if all_good else np.where(good, x, 0.0)).sum(both) / N
    dx, dy = x - near[:, None, None], y - near[:, None, None]
    if not all_good:
        dx, dy = np.where(good, dx, 0.0), np.where(good, dy, 0.0)
    sx, sy = dx.sum(both), dy.sum(both)
    product = np.einsum("urt,urt->u", dx, dy) - sx * sy / N
    return np.stack([n, near + sx / N, near + sy / N, product])


def _together(a: Values, b: Values) -> Values:
    """Join what `_comoment` returned, (..., 4, unit), of two sets of pairs."""
    (nA, xA, yA, cA), (nB, xB, yB, cB) = np.moveaxis(a, -2, 0), np.moveaxis(b, -2, 0)
    n = nA + nB
    N = np.maximum(n, 1)
    δx, δy = xB - xA, yB - yA
    return np.stack(
        [n, xA + δx * nB / N, yA + δy * nB / N, cA + cB + δx * δy * nA * nB / N], axis=-2
    )


def _across(tail: Values, head: Values, lag: int) -> tuple[Values, Values]:
    """Return the values before and after a seam, `lag` steps apart, as (unit, row, step)."""
    furthest = min(lag, len(tail))
    nearest = max(1, lag - len(head) + 1)
    count = max(furthest - nearest + 1, 0)
    before, after = len(tail) - furthest, lag - furthest
    pairs = tail[before : before + count], head[after : after + count]
    return by_unit(pairs[0]), by_unit(pairs[1])
