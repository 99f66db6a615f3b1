"""Search: other stretches of time in which the states do what they do in a stretch one has chosen.

A query is a part of a layer with one row, ``layer.isel(batch=0).sel(time=slice(120, 140))``, of the
trace that is searched or of another one. If it is part of what is searched, it finds itself first.
"""

from collections.abc import Sequence

import numpy as np
import xarray as xr

from everystate import schema
from everystate.analysis.features import COLUMN, Floats, features, within
from everystate.analysis.layer import Layer, dataset_of
from everystate.errors import AnalysisError, SelectionError


def similar_stretches(
    layer: Layer, query: Layer, variables: str | Sequence[str] = "states", *, count: int = 10
) -> xr.Dataset:
    r"""Return the stretches whose states are nearest to those of a query, step by step.

    .. math:: d_t = \sqrt{\frac{1}{L J} \sum_{k=0}^{L-1} \sum_j
                          \left( \frac{x_{t+k,j} - q_{k,j}}{s_j} \right)^2}

    for a query of :math:`L` recorded steps and :math:`J` columns, with the standard deviation
    :math:`s_j` of a column over the layer that is searched.

    Parameters
    ----------
    layer : xarray.DataTree or xarray.Dataset
        What to search: one layer of a trace.
    query : xarray.DataTree or xarray.Dataset
        A part with one row of the same layer, of this trace or another.
    variables : str or sequence of str
        What to compare: ``"states"``, ``"gates"``, or names.
    count : int
        How many to return at most.

    Returns
    -------
    xarray.Dataset
        ``distance`` (match), ascending, about :math:`\sqrt 2` for unrelated states; coordinates
        ``row`` (label; 0 if there are no rows), ``start`` and ``stop`` (labels of the first and the
        last step). No two matches share more than half of their steps.

    Raises
    ------
    SelectionError
        If a variable was not recorded, or the query has several rows.
    AnalysisError
        If the query is longer than every row, has values that are not finite or other units.

    References
    ----------
    Yeh et al. 2016, Matrix profile I, for the profile of distances (here without normalising each
    stretch, as states have a scale).

    Examples
    --------
    >>> h = np.random.default_rng(0).normal(size=(1, 200, 3))
    >>> h[0, 150:160] = h[0, 20:30] + 0.01
    >>> layer = xr.Dataset({"h": (("batch", "time", "unit"), h)})
    >>> found = similar_stretches(layer, layer.isel(batch=0, time=slice(20, 30)), count=2)
    >>> found.start.values.tolist(), found.distance.values.round(2).tolist()
    ([20, 150], [0.0, 0.01])
    """
    x, q = _tables(layer, query, variables)
    scale = np.nanstd(x.reshape(-1, x.shape[-1]), axis=0)
    scale = np.where(scale > 0, scale, 1.0)
    x, q = x / scale, q / scale
    profile = np.stack([_squares(row, q) for row in x]) / q.size
    # Sums of large squares that cancel can come out slightly below 0.
    return _matches(layer, np.sqrt(np.maximum(profile, 0.0)), len(q), count, "distance")


def same_units_on(
    layer: Layer,
    query: Layer,
    variables: str | Sequence[str] = "h",
    *,
    threshold: float = 0.3,
    count: int = 10,
) -> xr.Dataset:
    r"""Return the stretches in which the units are on that are on all through a query.

    .. math:: S = \{ j : q_{k,j} \ge \ell \;\forall k \}, \qquad
              m_t = \frac{1}{L |S|} \sum_{k=0}^{L-1} \sum_{j \in S} [x_{t+k,j} \ge \ell]

    Parameters
    ----------
    layer, query, variables, count
        See `similar_stretches`.
    threshold : float
        :math:`\ell`, in the units of the states: what counts as on.

    Returns
    -------
    xarray.Dataset
        ``missing`` (match), :math:`1 - m_t`, ascending: 0 where all of them are on all the time;
        coordinates ``row``, ``start`` and ``stop`` as in `similar_stretches`; and ``variable`` and
        ``unit`` (column), the units :math:`S`.

    Raises
    ------
    AnalysisError
        If no unit is on all through the query; and as in `similar_stretches`.
    SelectionError
        As in `similar_stretches`.

    References
    ----------
    Strobelt, Gehrmann, Pfister and Rush 2018, LSTMVis: a tool for visual analysis of hidden state
    dynamics in recurrent neural networks, section 5 (arXiv:1606.07461).

    Examples
    --------
    >>> h = np.zeros((1, 60, 4))
    >>> h[0, 10:15, [1, 3]] = h[0, 40:44, [1, 3]] = 0.8
    >>> layer = xr.Dataset({"h": (("batch", "time", "unit"), h)})
    >>> found = same_units_on(layer, layer.isel(batch=0, time=slice(10, 14)), count=2)
    >>> found.start.values.tolist(), found.missing.values.tolist(), found["unit"].values.tolist()
    ([10, 40], [0.0, 0.0], [1, 3])
    """
    x, q = _tables(layer, query, variables)
    chosen = (q >= threshold).all(axis=0)
    if not chosen.any():
        raise AnalysisError(
            f"no unit is at {threshold} or above all through the {len(q)} steps of the query; the "
            f"highest that stays up is at {q.min(axis=0).max():.3g}. Lower the threshold, or "
            f"choose fewer steps."
        )
    on = np.where(np.isnan(x).any(axis=-1), np.nan, (x[..., chosen] >= threshold).mean(axis=-1))
    runs = np.lib.stride_tricks.sliding_window_view(on, len(q), axis=-1).mean(axis=-1)
    found = _matches(layer, 1.0 - runs, len(q), count, "missing")
    table = features(query, variables).isel({COLUMN: chosen})
    return found.assign_coords({name: table[name] for name in ("variable", schema.UNIT)})


def _tables(layer: Layer, query: Layer, variables: str | Sequence[str]) -> tuple[Floats, Floats]:
    """Return what is searched, (row, time, column), and the query, (time, column)."""
    table = features(layer, variables).where(within(layer)).transpose(..., schema.TIME, COLUMN)
    asked = features(query, variables).transpose(..., schema.TIME, COLUMN)
    if asked.ndim == 3 and asked.sizes[schema.BATCH] != 1:
        raise SelectionError(
            f"the query has {asked.sizes[schema.BATCH]} rows, expected one: layer.isel(batch=0)"
        )
    x = np.asarray(table.values, dtype=np.float64).reshape(-1, *table.shape[-2:])
    q = np.asarray(asked.values, dtype=np.float64).reshape(asked.shape[-2:])
    if x.shape[-1] != q.shape[-1]:
        raise AnalysisError(f"the query has {q.shape[-1]} columns, the layer {x.shape[-1]}")
    if not 0 < len(q) <= x.shape[1]:
        raise AnalysisError(f"the query has {len(q)} steps, the layer {x.shape[1]}")
    if not np.isfinite(q).all():
        raise AnalysisError("the query holds values that are not finite: choose other steps")
    return np.where(np.isfinite(x), x, np.nan), q


def _squares(x: Floats, q: Floats) -> Floats:
    """Return the sum of squared differences of `q` from each stretch of `x` that is as long."""
    length = len(q)
    products = x @ q.T  # (time, query step)
    last = len(x) - length + 1
    cross = sum(products[k : k + last, k] for k in range(length))
    own = np.lib.stride_tricks.sliding_window_view((x**2).sum(axis=1), length).sum(axis=1)
    squares: Floats = own - 2.0 * cross + (q**2).sum()
    return squares


def _matches(layer: Layer, profile: Floats, length: int, count: int, name: str) -> xr.Dataset:
    """Return the lowest places of profiles (row, start), which overlap by half at the most."""
    places = _lowest(profile, count, apart=-(-length // 2))
    if not places:
        raise AnalysisError(f"no row has {length} steps with finite values in a row")
    layer = dataset_of(layer)
    rows, starts = (np.array(part) for part in zip(*places, strict=True))
    labels = layer[schema.BATCH].values if schema.BATCH in layer.dims else np.zeros(1, int)
    time = layer[schema.TIME].values
    coords = {
        "row": ("match", labels[rows]),
        "start": ("match", time[starts]),
        "stop": ("match", time[starts + length - 1]),
    }
    return xr.Dataset({name: ("match", profile[rows, starts])}, coords)


def _lowest(profile: Floats, count: int, apart: int) -> list[tuple[int, int]]:
    left = np.where(np.isnan(profile), np.inf, profile)
    found: list[tuple[int, int]] = []
    while len(found) < count:
        row, start = (int(k) for k in np.unravel_index(int(left.argmin()), left.shape))
        if not np.isfinite(left[row, start]):
            break
        found.append((row, start))
        left[row, max(0, start - apart + 1) : start + apart] = np.inf
    return found
