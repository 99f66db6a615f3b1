"""States and gates of a layer side by side: one column for each unit of each variable.

Whatever compares whole states with one another starts from here: scores of anomaly, geometry,
probes, search.
"""

from collections.abc import Sequence
from typing import Final

import numpy as np
import numpy.typing as npt
import xarray as xr

from everystate import schema
from everystate.analysis.layer import Layer, dataset_of, gates, recorded, states, steps
from everystate.errors import AnalysisError, SelectionError

Floats = npt.NDArray[np.float64]

COLUMN: Final = "column"
"""Dimension of the columns; the coordinates ``variable`` and ``unit`` say which each one is."""


def features(layer: Layer, variables: str | Sequence[str] = "states") -> xr.DataArray:
    """Return variables of a layer side by side.

    Parameters
    ----------
    layer : xarray.DataTree or xarray.Dataset
        One layer of a trace.
    variables : str or sequence of str
        Names of variables, such as ``("h", "f")``; ``"states"`` and ``"gates"`` stand for all of
        them that were recorded.

    Returns
    -------
    xarray.DataArray
        (batch, time, column), or (time, column) for a layer without rows; NaN past a row's length.
        The coordinates ``variable`` and ``unit`` (column) tell the columns apart; a state of
        several dimensions is laid out flat, its units counted from 0. Lazy if the trace is.

    Raises
    ------
    SelectionError
        If a variable was not recorded, or the layer has no rows of steps at all.

    Examples
    --------
    >>> h = xr.DataArray([[[0.5, 0.1], [0.2, 0.3]]], dims=("batch", "time", "unit"))
    >>> table = features(xr.Dataset({"h": h, "c": 2 * h}), ("h", "c"))
    >>> table.dims, table["variable"].values.tolist(), table["unit"].values.tolist()
    (('batch', 'time', 'column'), ['h', 'h', 'c', 'c'], [0, 1, 0, 1])
    """
    layer = dataset_of(layer)
    columns = [_columns(layer, name) for name in _names(layer, variables)]
    table = xr.concat(columns, dim=COLUMN, coords="minimal", compat="override", join="override")
    table.attrs = {}
    return table if table.chunks is None else table.chunk({COLUMN: -1})


def _names(layer: xr.Dataset, variables: str | Sequence[str]) -> list[str]:
    groups = {"states": states(layer), "gates": gates(layer)}
    names: list[str] = []
    for wanted in [variables] if isinstance(variables, str) else variables:
        names += groups.get(wanted, [wanted])
    there = recorded(layer)
    missing = sorted(set(names) - set(there))
    if missing or not names:
        raise SelectionError(
            f"asked for {variables!r}, but the layer holds {there} over time. Record what is "
            f"missing with es.Select(variables=...), or name others."
        )
    return list(dict.fromkeys(names))


def _columns(layer: xr.Dataset, name: str) -> xr.DataArray:
    values = layer[name]
    kept = [dim for dim in (schema.BATCH, schema.TIME) if dim in values.dims]
    flat = [str(dim) for dim in values.dims if dim not in kept]
    unit = values[flat[0]].values if len(flat) == 1 else np.arange(_size(values, flat))
    table = values.stack({COLUMN: flat}, create_index=False).transpose(*kept, COLUMN)
    table = table.drop_vars([str(c) for c in table.coords if COLUMN in table[c].dims])
    names = np.full(unit.size, name, dtype=object).astype(str)
    return table.assign_coords({"variable": (COLUMN, names), schema.UNIT: (COLUMN, unit)})


def _size(values: xr.DataArray, dims: list[str]) -> int:
    return int(np.prod([values.sizes[dim] for dim in dims], dtype=int))


def within(layer: Layer) -> xr.DataArray:
    """Return which steps lie within their row's length: (batch, time), or all of them (time)."""
    layer = dataset_of(layer)
    at = steps(layer)
    if schema.LENGTH in layer.coords:
        return (at < layer[schema.LENGTH]).transpose(..., schema.TIME)
    return xr.ones_like(at, dtype=bool)


def rows_of(table: xr.DataArray) -> Floats:
    """Return the steps whose values are all finite, row after row: ndarray (samples, columns).

    Raises
    ------
    AnalysisError
        If there are fewer than two.
    """
    values = np.asarray(table.transpose(..., schema.TIME, COLUMN).values, dtype=np.float64)
    values = values.reshape(-1, values.shape[-1])
    values = values[np.isfinite(values).all(axis=1)]
    if len(values) < 2:
        raise AnalysisError(
            f"{len(values)} steps have finite values only, at least 2 are needed. "
            f"everystate.analysis.layer.not_finite counts the others."
        )
    return values
