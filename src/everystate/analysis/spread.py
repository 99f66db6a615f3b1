"""How far the values of each state and gate reach."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import xarray as xr

from everystate import schema
from everystate.analysis.layer import Layer, by_variable, dataset_of, finite, recorded


def spread(layer: Layer, quantiles: Sequence[float] = (0.01, 0.5, 0.99)) -> xr.Dataset:
    """Return least, largest and quantiles of each recorded variable, over all of its values.

    Parameters
    ----------
    layer : xarray.DataTree or xarray.Dataset
        One layer of a trace.
    quantiles : sequence of float
        Between 0 and 1; values between two samples are interpolated linearly, as in
        `numpy.quantile`.

    Returns
    -------
    xarray.Dataset
        ``min`` (variable), ``max`` (variable) and ``quantiles`` (variable, quantile), in the
        variables' own units, over rows, steps and units; values that are not finite are left
        out, and a variable without a finite value has NaN. Empty if nothing was recorded.

    Examples
    --------
    >>> h = xr.DataArray([[[0.0, 4.0], [1.0, 3.0], [2.0, 5.0]]], dims=("batch", "time", "unit"))
    >>> found = spread(xr.Dataset({"h": h}), quantiles=(0.5,)).sel(variable="h")
    >>> found["min"].item(), found["max"].item(), found["quantiles"].item()
    (0.0, 5.0, 2.5)
    """
    layer = dataset_of(layer)
    return by_variable({name: _of(layer[name], quantiles) for name in recorded(layer)})


def _of(values: xr.DataArray, quantiles: Sequence[float]) -> xr.Dataset:
    values = finite(values)
    if values.chunks is not None:
        values = values.chunk(dict.fromkeys(values.dims, -1))  # a quantile needs all of them
    at = xr.Variable("quantile", np.asarray(quantiles, dtype=np.float64))
    found = xr.apply_ufunc(
        _quantiles,
        values,
        at,
        input_core_dims=[list(values.dims), ["quantile"]],
        output_core_dims=[["quantile"]],
        dask="parallelized",
        output_dtypes=[np.float64],
    )
    attrs = {"units": values.attrs.get("units", schema.UNITS)}
    result = xr.Dataset(
        {"min": values.min(), "max": values.max(), "quantiles": found}, {"quantile": at}
    )
    for name in result.data_vars:
        result[name].attrs = attrs
    return result


def _quantiles(
    values: npt.NDArray[np.floating], at: npt.NDArray[np.float64]
) -> npt.NDArray[np.float64]:
    there = values[~np.isnan(values)] if at.size else values[:0]
    if not there.size:
        return np.full(at.shape, np.nan)
    return np.asarray(np.quantile(there, at), dtype=np.float64)
