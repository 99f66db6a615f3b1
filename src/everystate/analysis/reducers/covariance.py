"""Covariance of the units, and the principal components in it."""

from dataclasses import dataclass

import numpy as np
import xarray as xr

from everystate import schema
from everystate.analysis.geometry import leading
from everystate.analysis.reducers.base import Reducer, variable
from everystate.analysis.reducers.span import Part, Span, State, Values
from everystate.errors import SelectionError


@dataclass
class Covariance(Reducer):
    r"""Covariance of every two units over rows and steps, for PCA.

    .. math:: \operatorname{cov}(u, v) = \frac{1}{n} \sum (x_u - m_u)(x_v - m_v)

    Parameters
    ----------
    components : int
        How many principal components the result has, the largest first. Default: 3, or as many
        as there are units.

    Raises
    ------
    SelectionError
        If `components` is below 0.

    Notes
    -----
    Result: ``covariance`` (unit, other_unit), ``mean`` (unit), ``component`` (component, unit),
    unit vectors whose entry of largest size is positive; ``component_variance`` and
    ``explained``, the share of all variance, (component); ``count`` (), the steps of all rows.
    A step at which a unit is not finite is left out for all of them.

    References
    ----------
    Joined as Pébay 2008 (SAND2008-6212), section 3.1, does, in matrix form. Components are the
    eigenvectors of the covariance (Pearson 1901; Hotelling 1933).

    Examples
    --------
    >>> both = Covariance(components=1)
    >>> both.update([[[0.0, 0.0]], [[1.0, 2.0]], [[2.0, 4.0]]])
    >>> found = both.result()
    >>> found.component.values.round(3).tolist(), found.explained.values.round(6).tolist()
    ([[0.447, 0.894]], [1.0])
    """

    components: int = 3

    def __post_init__(self) -> None:
        """Refuse less than no components."""
        if self.components < 0:
            raise SelectionError(f"components={self.components}: expected 0 or more.")

    def _of(self, block: Values, span: Span) -> State:
        x = block.reshape(-1, span.units)
        good = np.isfinite(x).all(axis=1)
        x = x if good.all() else x[good]
        n = len(x)
        mean = x.sum(axis=0) / max(n, 1)
        d = x - mean
        return {"n": np.array(float(n)), "mean": mean, "m2": d.T @ d}

    def _joined(self, a: Part, b: Part, *, seam: bool) -> State:
        n = a["n"] + b["n"]
        N = np.maximum(n, 1)
        δ = b["mean"] - a["mean"]
        m2 = a["m2"] + b["m2"] + np.outer(δ, δ) * (a["n"] * b["n"] / N)
        return {"n": n, "mean": a["mean"] + δ * b["n"] / N, "m2": m2}

    def _labelled(self, seen: Part) -> xr.Dataset:
        n = float(seen["n"]) or np.nan
        covariance = seen["m2"] / n
        variances, vectors = _components(covariance, self.components)
        total = np.trace(covariance)
        explained = variances / total if total > 0 else np.full_like(variances, np.nan)
        unit, component = (schema.UNIT,), ("component",)
        return xr.Dataset(
            {
                "covariance": variable(
                    covariance, (*unit, "other_unit"), "covariance of two units", schema.UNITS
                ),
                "mean": variable(seen["mean"] * (n / n), unit, "mean", schema.UNITS),
                "component": variable(
                    vectors, component + unit, "principal component", schema.UNITS
                ),
                "component_variance": variable(
                    variances, component, "variance along the component", schema.UNITS
                ),
                "explained": variable(explained, component, "share of all variance", schema.UNITS),
                "count": variable(int(seen["n"]), (), "number of finite steps", schema.UNITS),
            }
        )


def _components(covariance: Values, count: int) -> tuple[Values, Values]:
    """Return the largest variances, and their directions as rows."""
    count = min(count, len(covariance))
    if not np.isfinite(covariance).all():
        return np.full(count, np.nan), np.full((count, len(covariance)), np.nan)
    variances, vectors = leading(covariance, count)
    return variances, vectors.T
