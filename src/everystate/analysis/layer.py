"""What every analysis starts from: the layers of a trace, and which of their values count.

An analysis is a function of one layer, in a file of its own:

* it takes the layer (a leaf of the trace, or its dataset) and, after it, its thresholds;
* it returns an `xarray.Dataset` labelled by unit, gate, row or variable, which is empty where
  the layer lacks what the analysis needs, so that it can be mapped over a whole trace:
  ``trace.map_over_datasets(half_life)``;
* it is made of xarray operations, or of one array function put through
  `xarray.apply_ufunc`, so that it stays lazy on Dask;
* NaN past a row's length is not data; other values that are not finite are left out too, and
  `not_finite` counts them.
"""

from typing import Final

import numpy as np
import xarray as xr

from everystate import schema
from everystate.cells import Cell
from everystate.errors import InputError, TraceFormatError

Layer = xr.Dataset | xr.DataTree
"""A leaf of a trace, or the dataset in it; with or without the ``batch`` dimension."""

SAMPLES: Final = 1 << 14
"""Most samples of a unit that are held at once, where a figure cannot be computed in passing."""
GOLDEN: Final = (5**0.5 - 1) / 2
"""Multiples of it, modulo 1, spread evenly however many there are, and in step with no period."""


def layers(trace: xr.DataTree) -> dict[str, xr.Dataset]:
    """Return the recorded layers of a trace, or of a part of it, by their paths.

    Parameters
    ----------
    trace : xarray.DataTree
        From ``es.record`` or ``es.open_trace``, or one of its nodes.

    Returns
    -------
    dict of str to xarray.Dataset
        In the order of the trace; paths without the leading slash.

    Raises
    ------
    TraceFormatError
        If `trace` is something else, of a newer schema, or holds no recorded layer.
    """
    check_tree(trace)
    version = trace.root.attrs.get(schema.SCHEMA_ATTR)
    if version is None:
        raise TraceFormatError(
            f"this xarray.DataTree is not a trace of everystate: its root lacks the attribute "
            f"{schema.SCHEMA_ATTR!r}. Pass what es.record or es.open_trace returned."
        )
    if not isinstance(version, int | np.integer) or version > schema.SCHEMA_VERSION:
        raise TraceFormatError(
            f"the trace has schema {version!r}, this everystate reads up to "
            f"{schema.SCHEMA_VERSION}. Update everystate."
        )
    datasets = {node.path.strip("/"): node.to_dataset() for node in trace.subtree}
    found = {path: layer for path, layer in datasets.items() if recorded(layer)}
    if not found:
        raise TraceFormatError(
            "the trace holds no recorded layer: no state or gate in it has steps. Record some: "
            "es.Select(variables=('states', 'gates'))."
        )
    return found


def one_epoch(trace: xr.DataTree) -> dict[str, xr.Dataset]:
    """Return the layers of a trace whose values are of one epoch, as `layers` does.

    Raises
    ------
    InputError
        If a layer has the dimension ``epoch``, as from a probe recorded through training.
    TraceFormatError
        As `layers`.
    """
    found = layers(trace)
    for path, layer in found.items():
        check_one_epoch(layer, f"layer {path}")
    return found


def check_one_epoch(layer: xr.Dataset, what: str = "the layer") -> None:
    """Raise `InputError` if a layer has the dimension ``epoch``; `what` is what to call it."""
    if schema.EPOCH in layer.dims:
        raise InputError(
            f"{what} has a dimension 'epoch' of {layer.sizes[schema.EPOCH]:,}, and one epoch is "
            "looked at at a time. Choose one: trace.isel(epoch=-1) for the last, "
            "trace.sel(epoch=0) by its number; from Python, before this call."
        )


def check_tree(trace: object) -> None:
    """Raise `TraceFormatError` if `trace` is no `xarray.DataTree`, such as a path."""
    if not isinstance(trace, xr.DataTree):
        raise TraceFormatError(
            f"got {type(trace).__name__}, expected the trace that es.record or es.open_trace "
            f"returns, an xarray.DataTree.{_hint(trace)}"
        )


def _hint(trace: object) -> str:
    if isinstance(trace, str) or hasattr(trace, "__fspath__"):
        return f" Open the file first: es.open_trace({str(trace)!r})."
    if isinstance(trace, xr.Dataset):
        return " A single layer is passed as a node of its trace: trace['encoder/lstm']."
    return ""


def dataset_of(layer: Layer) -> xr.Dataset:
    """Return a layer's dataset.

    Raises
    ------
    TraceFormatError
        If `layer` is neither a node of a trace nor a dataset, or a node that holds layers.
    """
    if isinstance(layer, xr.DataTree):
        if layer.children and not layer.data_vars:
            paths = [leaf.relative_to(layer) for leaf in layer.leaves]
            raise TraceFormatError(
                f"got a node of a trace that holds {len(paths):,} layers, expected one of them: "
                f"trace[{paths[0]!r}]. For all of them: trace.map_over_datasets(...)."
            )
        return layer.to_dataset()
    if isinstance(layer, xr.Dataset):
        return layer
    raise TraceFormatError(
        f"got {type(layer).__name__}, expected one layer of a trace: trace['encoder/lstm']."
    )


def recorded(layer: xr.Dataset) -> list[str]:
    """Return the names of the states and gates that have steps, inputs apart."""
    return [
        str(name)
        for name, values in layer.data_vars.items()
        if schema.TIME in values.dims and name != schema.INPUTS and values.size
    ]


def gates(layer: xr.Dataset) -> list[str]:
    """Return the names of the recorded gates; of an unknown cell everything is a state."""
    known = gates_of(str(layer.attrs.get("cell")))
    return [name for name in recorded(layer) if name in known]


def gates_of(cell: str) -> tuple[str, ...]:
    """Return the names of the gates of a cell, by its name; none if it is not known."""
    families = {family.__name__: family for family in Cell.__subclasses__()}
    return families[cell].gates if cell in families else ()


def states(layer: xr.Dataset) -> list[str]:
    """Return the names of the recorded states."""
    taken = gates(layer)
    return [name for name in recorded(layer) if name not in taken]


def memory_state(layer: xr.Dataset) -> str | None:
    """Return the state that is the memory: ``c``, else ``h``, else the first; None without any."""
    names = states(layer)
    return next((name for name in (schema.C, schema.H, *names) if name in names), None)


def visible_state(layer: xr.Dataset) -> str | None:
    """Return the state that the rest of a model sees: ``h``, else the first; None without any."""
    names = states(layer)
    return next((name for name in (schema.H, *names) if name in names), None)


def by_unit(values: xr.DataArray) -> xr.DataArray:
    """Return a variable with exactly one dimension beside rows and steps, and that last.

    A state with several, such as the channels and pixels of a convolution, is taken apart into
    as many units as it has numbers, which are counted from 0; one with none has the unit 0.
    """
    others = [dim for dim in values.dims if dim not in (schema.BATCH, schema.TIME)]
    if not others:
        return values.expand_dims(schema.UNIT, -1)
    if len(others) > 1:
        values = values.stack({"_": others}).reset_index("_", drop=True).rename({"_": schema.UNIT})
        return values.transpose(..., schema.UNIT)
    return values.transpose(..., others[0])


def unit_dim(values: xr.DataArray) -> str:
    """Return the last dimension of what `by_unit` returned."""
    return str(values.dims[-1])


def in_reading_order(values: xr.DataArray, layer: xr.Dataset) -> xr.DataArray:
    """Return values with the step that the layer read first in front."""
    if layer.attrs.get("direction") != "backward":
        return values
    return values.isel({schema.TIME: slice(None, None, -1)})


def sampled(values: xr.DataArray) -> xr.DataArray:
    """Return a part of the rows and steps, spread evenly, if there are more than `SAMPLES`.

    For figures that cannot be computed in passing, such as a median, so that a recording larger
    than memory is never held as a whole. The choice depends on the sizes only.
    """
    most = SAMPLES
    rows, steps = values.sizes.get(schema.BATCH, 1), values.sizes[schema.TIME]
    if rows * steps <= most:
        return values
    wanted = min(rows, max(64, most // steps))
    chosen = {schema.TIME: _spread(steps, most // wanted)}
    if wanted < rows:
        chosen[schema.BATCH] = _spread(rows, wanted)
    return values.isel(chosen)


def _spread(size: int, wanted: int) -> "np.ndarray[tuple[int], np.dtype[np.int64]]":
    """Return at most `wanted` positions below `size`, in order."""
    return np.unique((np.arange(wanted) * GOLDEN % 1 * size).astype(np.int64))


def samples(values: xr.DataArray) -> list[str]:
    """Return the dimensions that hold one unit's samples: rows and steps."""
    return [dim for dim in (schema.BATCH, schema.TIME) if dim in values.dims]


def finite(values: xr.DataArray) -> xr.DataArray:
    """Return the values with NaN in place of everything that is not finite."""
    return values.where(np.isfinite(values))


def steps(values: xr.DataArray | xr.Dataset) -> xr.DataArray:
    """Return the step number of each recorded step.

    With ``every=10`` they are 0, 10, 20, ... They are the ``step`` coordinate of a recording
    with time labels of its own, else ``time``. Where neither holds whole numbers, as after
    a user's own relabelling, the recorded steps are counted 0, 1, 2, ...
    """
    time = values[schema.STEP if schema.STEP in values.coords else schema.TIME]
    if np.issubdtype(time.dtype, np.integer):
        return xr.DataArray(time.values.astype(np.float64), dims=schema.TIME)
    return xr.DataArray(np.arange(time.size, dtype=np.float64), dims=schema.TIME)


def not_finite(layer: Layer) -> xr.Dataset:
    """Count the values that are NaN or infinite though their step is within the sequence.

    Parameters
    ----------
    layer : xarray.DataTree or xarray.Dataset
        One layer of a trace.

    Returns
    -------
    xarray.Dataset
        ``not_finite`` (variable): how many, of all rows, steps and units; ``first`` (variable):
        the place of the first recorded step that has one, -1 if none has.

    Examples
    --------
    >>> values = [[[0.5], [np.inf], [np.nan]], [[0.1], [np.nan], [np.nan]]]
    >>> length = xr.Variable("batch", [2, 1])
    >>> h = xr.DataArray(values, dims=("batch", "time", "unit"))
    >>> not_finite(xr.Dataset({"h": h}, {"length": length})).not_finite.sel(variable="h").item()
    1
    """
    layer = dataset_of(layer)
    counts = {}
    for name in recorded(layer):
        bad = finite(layer[name]).isnull()
        if schema.LENGTH in layer.coords:
            bad = bad & (steps(layer) < layer[schema.LENGTH])
        at = bad.any([dim for dim in bad.dims if dim != schema.TIME])
        first = at.argmax(schema.TIME).where(at.any(), -1) if at.size else at.sum() - 1
        counts[name] = xr.Dataset({"not_finite": bad.sum(), "first": first})
    return by_variable(counts)


def by_variable(results: dict[str, xr.Dataset]) -> xr.Dataset:
    """Join the results of several variables along a new dimension, ``variable``."""
    if not results:
        return xr.Dataset()
    bare = [result.drop_vars(schema.LENGTH, errors="ignore") for result in results.values()]
    names = xr.Variable("variable", list(results), {"long_name": "recorded variable"})
    return xr.concat(bare, dim=names, join="outer")
