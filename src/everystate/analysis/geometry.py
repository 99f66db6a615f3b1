"""The shape of what states do: the plane they move in, and how many dimensions they use."""

from collections.abc import Sequence

import numpy as np
import xarray as xr

from everystate import schema
from everystate.analysis.features import COLUMN, Floats, features, within
from everystate.analysis.layer import Layer, by_variable, dataset_of, states
from everystate.errors import AnalysisError, SelectionError

OTHER = "other_column"


def trajectory(
    layer: Layer,
    variables: str | Sequence[str] = "h",
    *,
    components: int = 3,
    reference: Layer | None = None,
) -> xr.Dataset:
    r"""Return the path of the states in the plane, or space, of their principal components.

    .. math:: p_t = V^\top (x_t - \bar x), \qquad C = V \Lambda V^\top

    with the covariance :math:`C` of the states over all rows and steps, and the eigenvectors of its
    largest eigenvalues in :math:`V`.

    Parameters
    ----------
    layer : xarray.DataTree or xarray.Dataset
        One layer of a trace.
    variables : str or sequence of str
        What the states are made of: ``"states"``, ``"gates"``, or names.
    components : int
        How many.
    reference : xarray.DataTree or xarray.Dataset, optional
        Take mean and components from these states instead, to see several recordings in the same
        space.

    Returns
    -------
    xarray.Dataset
        ``trajectory`` (batch, time, component), in the units of the states, lazy if the trace
        is, NaN where a value is not finite;
        ``explained`` (component), share of the variance of the reference; ``loading`` (component,
        column), unit vectors whose largest entry is positive; ``mean`` (column).

    Raises
    ------
    SelectionError
        If a variable was not recorded, or there are fewer columns than components.
    AnalysisError
        If fewer than two steps have finite values, or no unit moves.

    Notes
    -----
    Columns are centred and not scaled: units that move more count more. A mixture of ``h``, within
    -1 and 1, and ``c``, which may be in the hundreds, shows ``c`` alone.

    Eigenvectors of nearly equal eigenvalues are arbitrary within the space they span.

    References
    ----------
    Pearson 1901, On lines and planes of closest fit to systems of points in space.

    Examples
    --------
    >>> t = np.linspace(0, 6, 50)
    >>> circle = np.stack([3 * np.cos(t), 2 * np.sin(t), 0 * t], axis=-1)
    >>> h = xr.DataArray(circle[None], dims=("batch", "time", "unit"))
    >>> found = trajectory(xr.Dataset({"h": h}), components=2)
    >>> found.trajectory.shape, round(float(found.explained.sum()), 6)
    ((1, 50, 2), 1.0)
    """
    table = _within(layer, variables)
    mean, covariance = _moments(table if reference is None else _within(reference, variables))
    if not 0 < components <= mean.size:
        raise SelectionError(f"got components={components}, there are {mean.size} columns")
    values, vectors = leading(covariance.values, components)
    if not values[0] > _rounding(mean):
        raise AnalysisError("the states do not move: they have no principal components")
    labels = {name: table[name] for name in ("variable", schema.UNIT)}
    loading = xr.DataArray(vectors.T, labels, dims=("component", COLUMN))
    # Labels of a reference may be others; what counts is the place.
    mean = xr.DataArray(mean.values, labels, dims=COLUMN)
    path = xr.dot(table.where(_known(table)) - mean, loading, dim=COLUMN).transpose(
        ..., "component"
    )
    explained = values / np.trace(covariance.values)
    return xr.Dataset(
        {
            "trajectory": path,
            "explained": ("component", explained),
            "loading": loading,
            "mean": mean,
        }
    )


def leading(covariance: Floats, count: int) -> tuple[Floats, Floats]:
    """Return the largest eigenvalues of a covariance, descending, and their unit eigenvectors.

    Parameters
    ----------
    covariance : ndarray, shape (columns, columns)
        Symmetric.
    count : int
        How many.

    Returns
    -------
    values : ndarray, shape (count,)
    vectors : ndarray, shape (columns, count)
        Each signed so that its largest entry is positive.

    Examples
    --------
    >>> values, vectors = leading(np.array([[2.0, 0.0], [0.0, 5.0]]), 1)
    >>> values.tolist(), vectors.tolist()
    ([5.0], [[0.0], [1.0]])
    """
    values, vectors = np.linalg.eigh(covariance)
    values, vectors = values[::-1][:count], vectors[:, ::-1][:, :count]
    signs = np.sign(vectors[np.abs(vectors).argmax(axis=0), np.arange(count)])
    return values, vectors * signs


def participation_ratio(layer: Layer) -> xr.Dataset:
    r"""Return how many dimensions the states of a layer use.

    .. math::
        \text{PR} = \frac{(\sum_k \lambda_k)^2}{\sum_k \lambda_k^2}
                  = \frac{(\operatorname{tr} C)^2}{\operatorname{tr} C^2}

    with the eigenvalues :math:`\lambda` of the covariance :math:`C` of a state over all rows and
    steps: 1 if all states lie on a line, the number of units if they vary alike in every direction.

    Parameters
    ----------
    layer : xarray.DataTree or xarray.Dataset
        One layer of a trace.

    Returns
    -------
    xarray.Dataset
        ``participation_ratio`` (variable) of each recorded state, NaN if no unit moves; ``columns``
        (variable), the most it could be. Lazy if the trace is. Empty if no state was recorded.

    Notes
    -----
    Of :math:`n` independent steps, the ratio is at most about :math:`n` and too low as long as
    :math:`n` is not many times the number of dimensions; steps of a slow state are far fewer
    independent ones than they seem. A few large units make it small: it depends on scale.

    References
    ----------
    Abbott, Rajan and Sompolinsky 2011, Interactions between intrinsic and stimulus-evoked activity
    in recurrent neural networks (arXiv:0912.3832). Gao et al. 2017, A theory of multineuronal
    dimensionality, dynamics and measurement.

    Examples
    --------
    >>> h = np.random.default_rng(0).normal(size=(1, 4000, 3)) * [1.0, 1.0, 0.0]
    >>> layer = xr.Dataset({"h": (("batch", "time", "unit"), h)})
    >>> participation_ratio(layer).participation_ratio.round(2).item()
    2.0
    """
    found = {}
    for name in states(dataset_of(layer)):
        mean, covariance = _moments(_within(layer, name))
        trace = xr.dot(covariance, xr.DataArray(np.eye(mean.size), dims=(COLUMN, OTHER)))
        squares = (covariance**2).sum()
        ratio = trace**2 / squares.where(trace > _rounding(mean))
        found[name] = xr.Dataset({"participation_ratio": ratio, "columns": mean.size})
    return by_variable(found)


def _rounding(mean: xr.DataArray) -> xr.DataArray:
    """Return the variance that rounding alone makes of columns that do not move."""
    return 1e-24 * (mean**2).sum()


def _within(layer: Layer, variables: str | Sequence[str]) -> xr.DataArray:
    return features(layer, variables).where(within(layer)).astype(np.float64)


def _known(table: xr.DataArray) -> xr.DataArray:
    """Return which steps have finite values only."""
    known: xr.DataArray = xr.apply_ufunc(np.isfinite, table, dask="allowed").all(COLUMN)
    return known


def _moments(table: xr.DataArray) -> tuple[xr.DataArray, xr.DataArray]:
    """Return mean (column) and covariance (column, other column) over steps with finite values."""
    samples = [dim for dim in table.dims if dim != COLUMN]
    known = _known(table)
    count = known.sum()
    if int(count) < 2:
        raise AnalysisError(f"{int(count)} steps have finite values only, at least 2 are needed")
    mean = table.where(known).sum(samples) / count
    off = table.where(known, mean) - mean
    off = off.drop_vars(["variable", schema.UNIT], errors="ignore")
    covariance = xr.dot(off, off.rename({COLUMN: OTHER}), dim=samples) / count
    return mean, covariance
