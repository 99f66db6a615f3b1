"""`prepare`: what a report draws, as a dataset, without drawing it."""

from collections.abc import Iterable, Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import xarray as xr

from everystate import schema
from everystate.analysis.layer import check_one_epoch, gates, recorded
from everystate.errors import InputError, SelectionError
from everystate.views.decimation import Decimated, bucket_size, coarsen, decimate

COLUMNS: Final = (100, 1000)
"""Fewest and most columns of a picture: a screen shows little more than a thousand."""
BYTES: Final = 16_000_000
"""What all pictures of a page may weigh, before their encoding adds a third."""


def row_of(layer: xr.Dataset, row: object = None) -> xr.Dataset:
    """Return one row of a layer, without its ``batch`` dimension.

    Parameters
    ----------
    layer : xarray.Dataset
        One layer of a trace.
    row : label, optional
        A value of the ``batch`` coordinate. None: the first row.

    Raises
    ------
    SelectionError
        If there is no such row; the message lists some that there are.
    InputError
        If the layer has several epochs.
    """
    check_one_epoch(layer)
    if schema.BATCH not in layer.dims:
        return layer
    if row is None:
        return layer.isel({schema.BATCH: 0})
    there = layer[schema.BATCH].values
    found = np.flatnonzero(there == row)
    if not found.size:
        some = ", ".join(repr(label) for label in there[:5].tolist())
        raise SelectionError(f"row={row!r} is not in the trace; there are {some} ({there.size}).")
    return layer.isel({schema.BATCH: int(found[0])})


def input_layer(series: Any, time: xr.DataArray) -> xr.Dataset:
    """Return a series that a user gave as a layer with nothing but an input.

    Parameters
    ----------
    series : array-like, shape (time,) or (time, features), or xarray.DataArray
        What the user gave.
    time : xarray.DataArray
        The recorded steps, which an array without labels must fit.

    Raises
    ------
    InputError
        If the series is not of numbers, has another rank, or does not fit the recorded steps.
    """
    given = series if isinstance(series, xr.DataArray) else _labelled(series, time)
    others = [dim for dim in given.dims if dim != schema.TIME]
    if schema.TIME not in given.dims or len(others) > 1 or given.dtype.kind not in "biuf":
        raise InputError(
            f"series has dimensions {given.dims} and dtype {given.dtype}; expected numbers over "
            "'time', and at most one more dimension for the features."
        )
    dim = others[0] if others else schema.FEATURE
    values = given if others else given.expand_dims(schema.FEATURE)
    attrs = {"long_name": "series" if given.name is None else str(given.name), **given.attrs}
    values = values.rename({dim: schema.FEATURE}).transpose(schema.TIME, schema.FEATURE)
    return xr.Dataset({schema.INPUTS: values.assign_attrs(attrs)})


def _labelled(series: Any, time: xr.DataArray) -> xr.DataArray:
    values = np.asarray(series)
    if values.ndim not in (1, 2) or values.shape[0] != time.size:
        raise InputError(
            f"series has shape {values.shape}, but {time.size} steps were recorded; expected one "
            "value or row for each. For others give an xarray.DataArray with a time coordinate."
        )
    dims = (schema.TIME, schema.FEATURE)[: values.ndim]
    return xr.DataArray(values, {schema.TIME: time.values}, dims)


def columns_for(layers: Iterable[xr.Dataset]) -> int:
    """Return how many columns every picture may have for the page to stay within `BYTES`."""
    fewest, most = COLUMNS
    return int(np.clip(BYTES // (4 * max(1, series_of(layers))) // 2 * 2, fewest, most))


def series_of(layers: Iterable[xr.Dataset]) -> int:
    """Return how many series of values are drawn of some layers: units, variable by variable."""
    return sum(
        layer[name].sizes[_width_dim(layer[name])] for layer in layers for name in _drawn(layer)
    )


def prepare(layer: xr.Dataset, columns: int = COLUMNS[1]) -> xr.Dataset:
    """Prepare one row of a layer for drawing.

    Parameters
    ----------
    layer : xarray.Dataset
        Variables of dimensions ``time`` and ``unit``, ``projected_unit`` or ``feature``.
    columns : int
        Most columns that a picture may have.

    Returns
    -------
    xarray.Dataset
        For each variable ``v``: ``v`` (unit, column), the lowest and the highest value of each
        bucket of steps in the order in which they occurred, or every value if a bucket is one
        step. ``over_units`` (variable, part, bucket): ``mean``, ``low`` and ``high`` over the
        units (`everystate.views.decimation`). Coordinates: ``role`` (variable), which is
        ``state``, ``gate`` or ``input``; ``first`` and ``last`` (bucket), the positions of a
        bucket's steps. The attribute ``bucket_size`` is their number; the layer's own
        attributes are kept.

    Examples
    --------
    >>> h = xr.DataArray(np.arange(12.0).reshape(6, 2), dims=("time", "unit"))
    >>> ready = prepare(xr.Dataset({"h": h}), columns=4)
    >>> ready.h.values.tolist(), ready.attrs["bucket_size"]
    ([[0.0, 4.0, 6.0, 10.0], [1.0, 5.0, 7.0, 11.0]], 3)
    """
    return prepare_levels(layer, [bucket_size(layer.sizes[schema.TIME], columns)])[0]


def level_sizes(steps: int, columns: int, finest: int) -> list[int]:
    """Return the bucket sizes of a pyramid, coarsest first, each some times the last.

    Parameters
    ----------
    steps : int
        Recorded steps.
    columns, finest : int
        Most columns of the coarsest and of the finest level. Between them each level has a
        quarter of the buckets of the next.

    Examples
    --------
    >>> level_sizes(1_000_000, columns=1000, finest=16_000)
    [2000, 500, 125]
    >>> level_sizes(900, columns=1000, finest=16_000)
    [1]
    """
    fine = bucket_size(steps, max(columns, finest))
    most = -(-bucket_size(steps, columns) // fine)
    together = [1]
    while 8 * together[-1] <= most:
        together.append(4 * together[-1])
    return [fine * count for count in sorted({*together, most}, reverse=True)]


def prepare_levels(layer: xr.Dataset, sizes: Sequence[int]) -> list[xr.Dataset]:
    """Prepare one row of a layer at several levels of detail, reading its values once.

    Parameters
    ----------
    layer : xarray.Dataset
        As for `prepare`.
    sizes : sequence of int
        Steps of a bucket at each level, each a multiple of the last one.

    Returns
    -------
    list of xarray.Dataset
        One as from `prepare` for each size.
    """
    found = {name: decimate(layer[name], sizes[-1]) for name in _drawn(layer)}
    return [
        _dataset(layer, {k: coarsen(one, size // sizes[-1]) for k, one in found.items()}, size)
        for size in sizes
    ]


def _dataset(layer: xr.Dataset, found: dict[str, Decimated], size: int) -> xr.Dataset:
    steps = layer.sizes[schema.TIME]
    variables = {
        name: xr.Variable((_width_dim(layer[name]), "column"), one.extremes, layer[name].attrs)
        for name, one in found.items()
    }
    parts = np.stack([[one.mean, one.low, one.high] for one in found.values()])
    first = np.arange(0, steps, size)
    coords: dict[str, xr.DataArray | xr.Variable] = {
        **{str(dim): layer[dim] for dim in layer.dims if dim != schema.TIME},
        "variable": xr.Variable("variable", list(found)),
        "role": xr.Variable("variable", [_role(layer, name) for name in found]),
        "part": xr.Variable("part", ["mean", "low", "high"]),
        "first": xr.Variable("bucket", first),
        "last": xr.Variable("bucket", np.minimum(first + size, steps) - 1),
    }
    over_units = xr.Variable(("variable", "part", "bucket"), parts)
    return xr.Dataset(
        {**variables, "over_units": over_units}, coords, {**layer.attrs, "bucket_size": size}
    )


def column_positions(ready: xr.Dataset) -> npt.NDArray[np.floating]:
    """Return the middle of each prepared column, counted in recorded steps."""
    columns = ready.sizes["column"]
    width = int(ready.attrs["bucket_size"]) * ready.sizes["bucket"] / columns
    return (np.arange(columns) + 0.5) * width - 0.5


def _drawn(layer: xr.Dataset) -> list[str]:
    return [*recorded(layer), *([schema.INPUTS] if schema.INPUTS in layer else [])]


def _role(layer: xr.Dataset, name: str) -> str:
    return "input" if name == schema.INPUTS else "gate" if name in gates(layer) else "state"


def _width_dim(values: xr.DataArray) -> str:
    return str(next(dim for dim in values.dims if dim not in (schema.BATCH, schema.TIME)))
