"""How far the values of each state and gate reach."""

import xarray as xr

from everystate import schema
from everystate.analysis.layer import Layer, by_variable, dataset_of, finite, recorded


def spread(layer: Layer) -> xr.Dataset:
    """Return the least and the largest of each recorded variable's values.

    Parameters
    ----------
    layer : xarray.DataTree or xarray.Dataset
        One layer of a trace.

    Returns
    -------
    xarray.Dataset
        ``min`` (variable) and ``max`` (variable), in the variables' own units, over rows, steps
        and units; values that are not finite are left out, and a variable without a finite value
        has NaN. Empty if nothing was recorded.

    Examples
    --------
    >>> h = xr.DataArray([[[0.0, 4.0], [1.0, 3.0], [2.0, 5.0]]], dims=("batch", "time", "unit"))
    >>> found = spread(xr.Dataset({"h": h})).sel(variable="h")
    >>> found["min"].item(), found["max"].item()
    (0.0, 5.0)
    """
    layer = dataset_of(layer)
    return by_variable({name: _of(layer[name]) for name in recorded(layer)})


def _of(values: xr.DataArray) -> xr.Dataset:
    values = finite(values)
    found = xr.Dataset({"min": values.min(), "max": values.max()})
    for name in found.data_vars:
        found[name].attrs = {"units": values.attrs.get("units", schema.UNITS)}
    return found
