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

import numpy as np
import xarray as xr

from everystate import schema
from everystate.cells import Cell
from everystate.errors import TraceFormatError

Layer = xr.Dataset | xr.DataTree
"""A leaf of a trace, or the dataset in it; with or without the ``batch`` dimension."""


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
        If `layer` is neither a node of a trace nor a dataset.
    """
    if isinstance(layer, xr.DataTree):
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
    families = {family.__name__: family for family in Cell.__subclasses__()}
    family = families.get(str(layer.attrs.get("cell")))
    return [name for name in recorded(layer) if family is not None and name in family.gates]


def states(layer: xr.Dataset) -> list[str]:
    """Return the names of the recorded states."""
    taken = gates(layer)
    return [name for name in recorded(layer) if name not in taken]


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
        ``not_finite`` (variable): how many, of all rows, steps and units.

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
        bad = ~np.isfinite(layer[name])
        if schema.LENGTH in layer.coords:
            bad = bad & (steps(layer) < layer[schema.LENGTH])
        counts[name] = bad.sum()
    return by_variable({name: xr.Dataset({"not_finite": n}) for name, n in counts.items()})


def by_variable(results: dict[str, xr.Dataset]) -> xr.Dataset:
    """Join the results of several variables along a new dimension, ``variable``."""
    if not results:
        return xr.Dataset()
    bare = [result.drop_vars(schema.LENGTH, errors="ignore") for result in results.values()]
    names = xr.Variable("variable", list(results), {"long_name": "recorded variable"})
    return xr.concat(bare, dim=names, join="outer")
