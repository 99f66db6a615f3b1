"""Mean, standard deviation, skewness and kurtosis of each unit."""

from dataclasses import dataclass

import numpy as np
import xarray as xr

from everystate import schema
from everystate.analysis.reducers.base import Reducer, by_unit, counts, variable
from everystate.analysis.reducers.span import Part, Span, State, Values


@dataclass
class Moments(Reducer):
    r"""Moments of each unit's values, over rows and steps.

    With :math:`n` values :math:`x`, their mean :math:`m` and the sums
    :math:`M_p = \sum (x - m)^p`:

    .. math::
        \text{std} = \sqrt{M_2 / n}, \qquad
        \text{skewness} = \frac{\sqrt n\, M_3}{M_2^{3/2}}, \qquad
        \text{kurtosis} = \frac{n\, M_4}{M_2^2} - 3

    Result: ``count``, ``mean``, ``std``, ``skewness`` and ``kurtosis`` (the excess), each (unit).
    NaN without a value; skewness and kurtosis also where the values are all the same. Values
    that are not finite are left out.

    References
    ----------
    Two parts are joined by the formulas of Chan, Golub and LeVeque 1983 (Algorithms for computing
    the sample variance) for :math:`M_2`, and those of Pébay 2008 (Formulas for robust, one-pass
    parallel computation of covariances and arbitrary-order statistical moments, SAND2008-6212),
    section 2, for :math:`M_3` and :math:`M_4`: sums of powers, which cancel, are never formed.

    Examples
    --------
    >>> moments = Moments()
    >>> moments.update([[[1.0]], [[2.0]]])
    >>> moments.update([[[6.0]]], first_step=2)
    >>> found = moments.result()
    >>> found["mean"].item(), round(found["std"].item() ** 2, 6)
    (3.0, 4.666667)
    """

    def _of(self, block: Values, span: Span) -> State:
        x = by_unit(block).reshape(span.units, -1)
        good = np.isfinite(x)
        n = good.sum(axis=1).astype(np.float64)
        x = x if good.all() else np.where(good, x, 0.0)
        mean = x.sum(axis=1) / np.maximum(n, 1)
        d = np.where(good, x - mean[:, None], 0.0)
        d2 = d * d
        m3, m4 = (np.einsum("ui,ui->u", d2, other) for other in (d, d2))
        return {"n": n, "mean": mean, "m2": d2.sum(axis=1), "m3": m3, "m4": m4}

    def _joined(self, a: Part, b: Part, *, seam: bool) -> State:
        nA, nB = a["n"], b["n"]
        n = nA + nB
        N = np.maximum(n, 1)
        δ = b["mean"] - a["mean"]
        m2, m3 = a["m2"] + b["m2"], a["m3"] + b["m3"]
        m2 = m2 + δ**2 * nA * nB / N
        m3 = m3 + δ**3 * nA * nB * (nA - nB) / N**2
        m3 = m3 + 3 * δ * (nA * b["m2"] - nB * a["m2"]) / N
        m4 = a["m4"] + b["m4"] + δ**4 * nA * nB * (nA**2 - nA * nB + nB**2) / N**3
        m4 = m4 + 6 * δ**2 * (nA**2 * b["m2"] + nB**2 * a["m2"]) / N**2
        m4 = m4 + 4 * δ * (nA * b["m3"] - nB * a["m3"]) / N
        return {"n": n, "mean": a["mean"] + δ * nB / N, "m2": m2, "m3": m3, "m4": m4}

    def _labelled(self, seen: Part) -> xr.Dataset:
        n = np.where(seen["n"] > 0, seen["n"], np.nan)
        m2 = np.where(seen["m2"] > 0, seen["m2"], np.nan)
        figures = {
            "mean": (seen["mean"] * (n / n), "mean"),
            "std": (np.sqrt(seen["m2"] / n), "standard deviation"),
            "skewness": (np.sqrt(n) * seen["m3"] / m2**1.5, "skewness"),
            "kurtosis": (n * seen["m4"] / m2**2 - 3, "excess kurtosis"),
        }
        unit = (schema.UNIT,)
        return xr.Dataset(
            {
                "count": counts(seen["n"].astype(np.int64)),
                **{
                    name: variable(x, unit, said, schema.UNITS)
                    for name, (x, said) in figures.items()
                },
            }
        )
