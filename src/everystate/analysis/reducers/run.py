"""`reduced`: one pass over a stored variable."""

import numpy as np
import xarray as xr

from everystate import schema
from everystate.analysis.reducers.base import Reducer
from everystate.errors import TraceFormatError

BLOCK_BYTES = 2**25
"""What is read at once, as float64."""

MIN_STEPS = 16
"""A block spans at least these steps, or all there are, however many rows."""


def reduced(values: xr.DataArray, *reducers: Reducer) -> list[xr.Dataset]:
    """Feed a variable of a trace to reducers, block by block, and return their results.

    The trace may be larger than memory: it is read once, about 32 MiB at a time.

    Parameters
    ----------
    values : xarray.DataArray
        A state or gate: (batch, time, unit), or without ``batch``; held or lazy.
    *reducers : Reducer
        What to find. They are fed, so they may be asked, merged, or fed more afterwards.

    Returns
    -------
    list of xarray.Dataset
        One for each reducer, labelled by the variable's own units.

    Raises
    ------
    TraceFormatError
        If `values` has no time, or not one dimension of units.

    Examples
    --------
    >>> h = xr.DataArray(np.arange(6.0).reshape(1, 3, 2), dims=("batch", "time", "unit"))
    >>> from everystate.analysis.reducers import Moments, Range
    >>> moments, extremes = reduced(h, Moments(), Range())
    >>> moments["mean"].values, extremes["max"].values
    (array([2., 3.]), array([4., 5.]))
    """
    values, unit = _in_order(values)
    rows, steps, units = values.shape
    few = max(1, BLOCK_BYTES // (8 * units * min(steps, MIN_STEPS)))
    for first in range(0, rows, few):
        some = values[first : first + few]
        many = max(MIN_STEPS, BLOCK_BYTES // (8 * units * some.shape[0]))
        for start in range(0, steps, many):
            block = np.swapaxes(some[:, start : start + many].values, 0, 1)
            for reducer in reducers:
                reducer.update(block, start)
    return [_labelled(reducer.result(), values, unit) for reducer in reducers]


def _in_order(values: xr.DataArray) -> tuple[xr.DataArray, str]:
    """Return the values as (batch, time, unit), and what the dimension of the units is called."""
    units = [str(dim) for dim in values.dims if dim not in (schema.BATCH, schema.TIME)]
    if schema.TIME not in values.dims or len(units) != 1 or not values.size:
        raise TraceFormatError(
            f"got {values.name!r} of dims {values.dims} and shape {values.shape}; expected steps "
            "of a state or gate: (batch, time, unit). Take one variable of one layer: "
            "trace['encoder/lstm'].c"
        )
    if schema.BATCH not in values.dims:
        values = values.expand_dims(schema.BATCH)
    return values.transpose(schema.BATCH, schema.TIME, units[0]), units[0]


def _labelled(result: xr.Dataset, values: xr.DataArray, unit: str) -> xr.Dataset:
    """Return a result with the variable's own name of units, and their labels."""
    result = result.assign_attrs(variable=str(values.name))
    if unit != schema.UNIT:
        result = result.rename({schema.UNIT: unit})
    return result.assign_coords({unit: values[unit]}) if unit in values.coords else result
