"""Which units say the same."""

from typing import Any

import numpy as np
import numpy.typing as npt
import xarray as xr

from everystate import schema
from everystate.analysis.extra import extra
from everystate.analysis.layer import (
    Layer,
    by_unit,
    dataset_of,
    finite,
    sampled,
    unit_dim,
    visible_state,
)

Floats = npt.NDArray[np.float64]


def correlation(layer: Layer) -> xr.Dataset:
    r"""Return the correlation of every two units' states.

    .. math::
        r_{uv} = \frac{\sum_s (h_{su} - \bar h_u)(h_{sv} - \bar h_v)}
                      {\sqrt{\sum_s (h_{su} - \bar h_u)^2 \sum_s (h_{sv} - \bar h_v)^2}}

    over the samples :math:`s`, the steps of all rows at which every unit is finite (Pearson).

    Parameters
    ----------
    layer : xarray.DataTree or xarray.Dataset
        One layer of a trace.

    Returns
    -------
    xarray.Dataset
        ``correlation`` (unit, other) of ``h``, or the first state; NaN for a unit that never
        moves. The attribute ``state`` names the state. Empty if no state was recorded.

    Notes
    -----
    Of more than 16,384 samples a part is taken, of rows and steps spread evenly
    (`everystate.analysis.layer.sampled`). Neighbouring steps are alike: the number of samples says
    little about how certain a correlation is.

    Examples
    --------
    >>> h = np.array([[0.0, 0.1, 0.5], [1.0, 0.3, 0.0], [2.0, 0.5, 0.5]])
    >>> layer = xr.Dataset({"h": xr.DataArray(h[None], dims=("batch", "time", "unit"))})
    >>> abs(correlation(layer).correlation).round(3).values.tolist()
    [[1.0, 1.0, 0.0], [1.0, 1.0, 0.0], [0.0, 0.0, 1.0]]
    """
    layer = dataset_of(layer)
    name = visible_state(layer)
    if name is None:
        return xr.Dataset()
    values = by_unit(sampled(finite(layer[name])))
    if schema.BATCH not in values.dims:
        values = values.expand_dims(schema.BATCH)
    unit = unit_dim(values)
    core = [schema.BATCH, schema.TIME, unit]
    if values.chunks is not None:
        values = values.chunk(dict.fromkeys(core, -1))
    found = xr.apply_ufunc(
        _correlation,
        values,
        input_core_dims=[core],
        output_core_dims=[[unit, "other"]],
        dask="parallelized",
        dask_gufunc_kwargs={"output_sizes": {"other": values.sizes[unit]}},
        output_dtypes=[np.float64],
    )
    if unit in values.coords:
        found = found.assign_coords(other=("other", values[unit].values))
    return xr.Dataset({"correlation": found}, attrs={"state": name})


def redundancy(layer: Layer, alike: float = 0.95) -> xr.Dataset:
    r"""Return groups of units whose states go up and down together, or against each other.

    Units are joined by complete linkage of the distance :math:`1 - |r_{uv}|`
    (`correlation`), as long as every two of a group have :math:`|r| \ge \text{alike}`. A group
    tells the rest of the model no more than one of its units does, up to scale and sign, and
    up to the share :math:`1 - r^2` of its variance.

    Parameters
    ----------
    layer : xarray.DataTree or xarray.Dataset
        One layer of a trace.
    alike : float
        The least magnitude of the correlation of any two units of a group, between 0 and 1.

    Returns
    -------
    xarray.Dataset
        ``group`` (unit), numbered from 0, the largest group first; -1 for units that never
        move. ``size`` (unit), the units in its group; 0 for those. The attribute ``state`` names
        the state. Empty if no state was recorded.

    Raises
    ------
    MissingDependencyError
        If scipy is not installed (``pip install 'everystate[analysis]'``).

    Notes
    -----
    Alike on these inputs: others may tell the units apart. Correlation sees straight lines
    only: a unit that is the square of another has none. Many states of one slow input are
    alike for want of anything else to say.

    References
    ----------
    scipy.cluster.hierarchy, complete linkage (Sorensen 1948).

    Examples
    --------
    >>> h = np.array([[0.0, -0.1, 0.5], [1.0, -0.3, 0.0], [2.0, -0.5, 0.5]])
    >>> layer = xr.Dataset({"h": xr.DataArray(h[None], dims=("batch", "time", "unit"))})
    >>> redundancy(layer).group.values.tolist()
    [0, 0, 1]
    """
    found = correlation(layer)
    if not found:
        return found
    hierarchy = extra("scipy.cluster.hierarchy", "redundancy")
    unit = str(found.correlation.dims[0])
    groups = xr.apply_ufunc(
        _groups,
        found.correlation,
        kwargs={"alike": alike, "hierarchy": hierarchy},
        input_core_dims=[[unit, "other"]],
        output_core_dims=[[unit, "part"]],
        dask="parallelized",
        dask_gufunc_kwargs={"output_sizes": {"part": 2}},
        output_dtypes=[np.int64],
    )
    parts = {name: groups.isel(part=k) for k, name in enumerate(("group", "size"))}
    return xr.Dataset(parts, attrs=found.attrs)


def spare_units(found: xr.Dataset) -> int:
    """Return how many units could go if one of each group of `redundancy` stayed."""
    group = found.group.values[found.group.values >= 0]
    return int(group.size - np.unique(group).size)


def _correlation(values: Floats) -> Floats:
    """Return the correlation (..., unit, unit) of values (..., batch, time, unit)."""
    samples = values.reshape(-1, values.shape[-1]).astype(np.float64)
    samples = samples[np.isfinite(samples).all(axis=1)]
    if not len(samples):
        return np.full((values.shape[-1],) * 2, np.nan)
    d = samples - samples.mean(axis=0)
    size = np.sqrt((d * d).sum(axis=0))
    level = np.abs(samples).max(axis=0) * np.sqrt(len(samples))
    moves = size > 1e-12 * np.maximum(level, np.finfo(np.float64).tiny)
    d = d / np.where(moves, size, np.nan)
    return np.asarray(np.clip(d.T @ d, -1.0, 1.0))


def _groups(r: Floats, alike: float, hierarchy: Any) -> npt.NDArray[np.int64]:
    """Return group and size (unit, 2), from the correlation (unit, unit)."""
    moves = np.flatnonzero(np.isfinite(np.diag(r)))
    found = np.full((len(r), 2), (-1, 0), np.int64)
    if moves.size == 0:
        return found
    distance = 1.0 - np.abs(r[np.ix_(moves, moves)])
    upper = np.clip(distance[np.triu_indices(moves.size, 1)], 0.0, None)
    label = np.ones(1, np.int64)
    if moves.size > 1:
        tree = hierarchy.linkage(upper, method="complete")
        label = hierarchy.fcluster(tree, 1.0 - alike + 1e-12, criterion="distance")
    _, group, count = np.unique(label, return_inverse=True, return_counts=True)
    rank = np.argsort(np.lexsort((np.arange(count.size), -count)))
    found[moves, 0], found[moves, 1] = rank[group], count[group]
    return found
