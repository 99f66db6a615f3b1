"""How much alike two layers represent the same steps: of one model, checkpoints or frameworks.

Units need not correspond, nor be equally many. All measures are between 0 and 1, where 1 means
that one is the other, but for a rotation, a shift and a change of scale (CKA), or any linear map
(CCA).
"""

from collections.abc import Callable
from typing import Final, Literal

import numpy as np
import xarray as xr

from everystate import schema
from everystate.analysis.features import COLUMN, Floats, features, within
from everystate.analysis.layer import Layer, layers
from everystate.errors import AnalysisError, SelectionError

Measure = Literal["cka", "svcca", "pwcca"]


def cka(x: Floats, y: Floats) -> float:
    r"""Return the linear centred kernel alignment.

    .. math:: \frac{\lVert Y^\top X \rVert_F^2}
                   {\lVert X^\top X \rVert_F \, \lVert Y^\top Y \rVert_F}

    with centred columns. Directions count by their variance.

    Parameters
    ----------
    x, y : ndarray, shape (samples, columns)
        Finite states at the same steps; columns may differ in number.

    Returns
    -------
    float
        NaN if one of them does not move.

    Notes
    -----
    With fewer independent steps than units the value is too high, whatever the two are: of random
    data with as many columns as samples it is about 0.5. Compare with steps many times the units.

    References
    ----------
    Kornblith, Norouzi, Lee and Hinton 2019, Similarity of neural network representations
    revisited, equation 4 and table 1 (arXiv:1905.00414).

    Examples
    --------
    >>> x = np.random.default_rng(0).normal(size=(100, 3))
    >>> round(cka(x, 5 * x[:, ::-1] + 2), 6)
    1.0
    """
    x, y = x - x.mean(axis=0), y - y.mean(axis=0)
    own = np.linalg.norm(x.T @ x) * np.linalg.norm(y.T @ y)
    return float(np.linalg.norm(y.T @ x) ** 2 / own) if own > 0 else float("nan")


def svcca(x: Floats, y: Floats, explained: float = 0.99) -> float:
    r"""Return the mean canonical correlation of the leading principal components.

    .. math:: \frac{1}{m} \sum_{i=1}^{m} \rho_i

    with the canonical correlations :math:`\rho` between those principal components of each that
    explain a share of its variance, and the smaller number :math:`m` of them. Within them all
    directions count alike.

    Parameters
    ----------
    x, y : ndarray, shape (samples, columns)
        Finite states at the same steps.
    explained : float
        The share.

    Returns
    -------
    float
        NaN if one of them does not move.

    References
    ----------
    Raghu, Gilmer, Yosinski and Sohl-Dickstein 2017, SVCCA: Singular vector canonical correlation
    analysis for deep learning dynamics and interpretability (arXiv:1706.05806).

    Examples
    --------
    >>> x = np.random.default_rng(0).normal(size=(100, 3))
    >>> round(svcca(x, x @ [[1.0, 2.0, 0.0], [0.0, 3.0, 1.0], [0.0, 0.0, 0.5]]), 6)
    1.0
    """
    a, b = _basis(x, explained), _basis(y, explained)
    if not a.size or not b.size:
        return float("nan")
    return float(np.linalg.svd(a.T @ b, compute_uv=False).clip(0, 1).mean())


def pwcca(x: Floats, y: Floats) -> float:
    r"""Return the mean canonical correlation, each weighted by how much of `x` it tells.

    .. math:: \frac{\sum_i \alpha_i \rho_i}{\sum_i \alpha_i}, \qquad
              \alpha_i = \sum_j |\langle h_i, x_j \rangle|

    with the canonical variables :math:`h_i` of `x`, of length 1, and its centred columns
    :math:`x_j`. Not symmetric: it is the view of `x`.

    Parameters
    ----------
    x, y : ndarray, shape (samples, columns)
        Finite states at the same steps.

    Returns
    -------
    float
        NaN if one of them does not move.

    References
    ----------
    Morcos, Raghu and Bengio 2018, Insights on representational similarity in neural networks with
    canonical correlation, equation 3 (arXiv:1806.05759).

    Examples
    --------
    >>> x = np.random.default_rng(0).normal(size=(100, 3))
    >>> round(pwcca(x, x @ [[1.0, 2.0, 0.0], [0.0, 3.0, 1.0], [0.0, 0.0, 0.5]]), 6)
    1.0
    """
    a, b = _basis(x), _basis(y)
    if not a.size or not b.size:
        return float("nan")
    left, rho, _ = np.linalg.svd(a.T @ b, full_matrices=False)
    weights = np.abs((a @ left).T @ (x - x.mean(axis=0))).sum(axis=1)
    return float((weights * rho.clip(0, 1)).sum() / weights.sum())


MEASURES: Final[dict[str, Callable[[Floats, Floats], float]]] = {
    "cka": cka,
    "svcca": svcca,
    "pwcca": pwcca,
}


def _basis(x: Floats, explained: float = 1.0) -> Floats:
    """Return an orthonormal basis, in the space of samples, of the leading principal components."""
    u, s, _ = np.linalg.svd(x - x.mean(axis=0), full_matrices=False)
    s = np.where(s > s[0] * max(x.shape) * np.finfo(np.float64).eps, s, 0.0)
    if not s[0] > 0:
        return np.empty((len(x), 0))
    share = np.cumsum(s**2) / (s**2).sum()
    count = int(np.searchsorted(share, explained - 1e-12)) + 1
    return u[:, : min(count, int((s > 0).sum()))]


def similarity(a: Layer, b: Layer, measure: Measure = "cka", variables: str = "h") -> float:
    """Return how much alike two layers are.

    Parameters
    ----------
    a, b : xarray.DataTree or xarray.Dataset
        Two layers that saw the same steps.
    measure : {"cka", "svcca", "pwcca"}
        See `cka`, `svcca` and `pwcca`.
    variables : str
        What to compare: a variable, ``"states"`` or ``"gates"``.

    Returns
    -------
    float
        Between 0 and 1. Steps count that both have, by their labels of row and time, and that lie
        within their rows and have finite values in both.

    Raises
    ------
    SelectionError
        If there is no such measure, or a variable was not recorded.
    AnalysisError
        If the two share fewer than three such steps.

    Examples
    --------
    >>> h = np.random.default_rng(0).normal(size=(2, 50, 4))
    >>> layer = xr.Dataset({"h": (("batch", "time", "unit"), h)})
    >>> round(similarity(layer, layer.isel(unit=[2, 0, 3, 1])), 6)
    1.0
    """
    if measure not in MEASURES:
        raise SelectionError(f"got measure={measure!r}, expected one of {', '.join(MEASURES)}")
    return MEASURES[measure](*_shared(_states(a, variables), _states(b, variables)))


def similarity_matrix(
    a: xr.DataTree,
    b: xr.DataTree | None = None,
    measure: Measure = "cka",
    variables: str = "h",
) -> xr.DataArray:
    """Return how much alike the layers of two traces are, each with each.

    Parameters
    ----------
    a, b : xarray.DataTree
        Traces of the same input. None: `a` with itself.
    measure, variables : str
        See `similarity`.

    Returns
    -------
    xarray.DataArray
        (layer, other_layer), labelled by the layers' paths.

    Raises
    ------
    SelectionError, AnalysisError
        See `similarity`.
    TraceFormatError
        If `a` or `b` is no trace.
    """
    ours = layers(a)
    others = ours if b is None else layers(b)
    values = [
        [similarity(x, y, measure, variables) for y in others.values()] for x in ours.values()
    ]
    labels = {"layer": list(ours), "other_layer": list(others)}
    return xr.DataArray(values, labels, dims=("layer", "other_layer"), name=measure)


def _states(layer: Layer, variables: str) -> xr.DataArray:
    return features(layer, variables).where(within(layer))


def _shared(a: xr.DataArray, b: xr.DataArray) -> tuple[Floats, Floats]:
    a, b = xr.align(a, b, join="inner", exclude={COLUMN})
    if a.sizes.keys() != b.sizes.keys():
        raise AnalysisError(f"one layer has dimensions {a.dims}, the other {b.dims}")
    x, y = (t.transpose(..., schema.TIME, COLUMN).values.astype(np.float64) for t in (a, b))
    x, y = x.reshape(-1, x.shape[-1]), y.reshape(-1, y.shape[-1])
    known = np.isfinite(x).all(axis=1) & np.isfinite(y).all(axis=1)
    if known.sum() < 3:
        raise AnalysisError(
            f"the two layers share {int(known.sum())} steps with finite values, at least 3 are "
            f"needed. Do their labels of row and time agree?"
        )
    return x[known], y[known]
