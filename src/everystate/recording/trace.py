"""The one place that builds xarray: recorded layers in, a `xarray.DataTree` out."""

import hashlib
from collections.abc import Collection, Iterable, Mapping
from dataclasses import asdict
from datetime import UTC, date, datetime
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy as np
import numpy.typing as npt
import xarray as xr

from everystate import schema
from everystate.cells import Cell, Weights
from everystate.errors import InputError
from everystate.recording import garbage
from everystate.recording.observation import as_numpy
from everystate.recording.replay import Recorded

Labels = Any
"""Labels of an axis: numbers, strings or datetimes, one for each place."""


def build_trace(
    layers: Iterable[Recorded],
    *,
    model: str,
    frameworks: Iterable[str] = (),
    time: Labels = None,
    batch: Labels = None,
) -> xr.DataTree:
    """Build a trace of schema 1.

    Parameters
    ----------
    layers : iterable of Recorded
        One for each leaf.
    model : str
        What the model is called; stored as an attribute.
    frameworks : iterable of str
        Distributions whose versions are stored.
    time, batch : array-like, optional
        Labels of every step and row of the whole sequence. None: 0, 1, 2, ...

    Returns
    -------
    xarray.DataTree

    Raises
    ------
    InputError
        If there are more or fewer labels than steps or rows, or labels that cannot be stored.
    """
    found = {layer.path: layer for layer in layers}
    leaves = {leaf_path(path, found): build_leaf(found[path], time, batch) for path in found}
    root = xr.Dataset(attrs=root_attrs(model, frameworks))
    trace = xr.DataTree.from_dict({"/": root, **leaves})
    garbage.built(trace)
    return trace


def leaf_path(path: str, paths: Collection[str]) -> str:
    """Return a path of the layer's own that no other layer is inside of.

    A node's children must share its coordinates, which another layer's would not.
    """
    if not any(other.startswith(f"{path}/") for other in paths):
        return path
    own = f"{path}/cell"
    while own in paths:
        own += "_"
    return own


def build_leaf(layer: Recorded, time: Labels, batch: Labels, *, indexed: bool = True) -> xr.Dataset:
    """Return one layer's dataset, labels as in `build_trace`.

    Without indexes nothing can be selected by label, but it takes half the time.
    """
    variables = {}
    for name, array in layer.variables.items():
        dims = (schema.BATCH, schema.TIME, layer.dims[name])
        # Time-major in memory, batch-major by name: a view, not a copy.
        variables[name] = xr.Variable(
            dims, np.swapaxes(array, 0, 1), _attrs(name, layer.origins[name], layer.seen.cell)
        )
    for name, array in layer.initial.items():
        key = f"{schema.INITIAL}{name}"
        dims_0 = (schema.BATCH, layer.dims[name])
        variables[key] = xr.Variable(dims_0, array, _attrs(key, schema.OBSERVED))
    coords: Mapping[str, xr.Variable] | xr.Coordinates = _coords(layer, time, batch)
    if not indexed:
        coords = xr.Coordinates(coords, indexes={})
    return xr.Dataset(variables, coords=coords, attrs=_leaf_attrs(layer))


def _coords(layer: Recorded, time: Labels, batch: Labels) -> dict[str, xr.Variable]:
    rows = next(iter(layer.variables.values())).shape[1]
    steps: npt.NDArray[np.generic] = layer.steps
    if time is not None:
        steps = _labels(time, layer.length, "time", layer.path)[layer.steps]
    coords = {
        schema.TIME: xr.Variable(schema.TIME, steps),
        schema.BATCH: xr.Variable(schema.BATCH, _labels(batch, rows, "batch", layer.path)),
    }
    sizes = {layer.dims[n]: a.shape[2] for n, a in layer.variables.items()}
    sizes |= {layer.dims[n]: a.shape[1] for n, a in layer.initial.items()}
    for dim, size in sizes.items():
        chosen = layer.units if dim == schema.UNIT else None
        coords[dim] = xr.Variable(dim, np.arange(size) if chosen is None else chosen)
    if time is not None:  # labels do not tell which step of the sequence each is
        coords[schema.STEP] = xr.Variable(
            schema.TIME, layer.steps, {"long_name": schema.LONG_NAMES[schema.STEP]}
        )
    if layer.lengths is not None:
        coords[schema.LENGTH] = xr.Variable(
            schema.BATCH, layer.lengths, {"long_name": schema.LONG_NAMES[schema.LENGTH]}
        )
    return coords


def _labels(labels: Labels, count: int, axis: str, path: str) -> npt.NDArray[np.generic]:
    if labels is None:
        return np.arange(count)
    array = _array(labels, axis, path)
    if array.ndim != 1 or array.size != count:
        raise InputError(
            f"{path}: {axis}= has shape {array.shape}, but there are {count} to label. "
            f"Give one label for each, or leave {axis}= out for 0, 1, 2, ... Layers of other "
            "lengths are recorded apart: select=es.Select(layers=...)."
        )
    return array


def _array(labels: Labels, axis: str, path: str) -> npt.NDArray[np.generic]:
    """Return labels as an array of a dtype that files can hold."""
    try:
        array = np.asarray(labels)
    except ValueError:  # nested lists of different lengths
        array = np.empty(0, dtype=object)
    if array.dtype.kind in "biufUMm":
        return array
    if array.size and all(isinstance(label, str) for label in array.flat):
        return array.astype(str)
    if array.size and all(
        isinstance(label, date) and getattr(label, "tzinfo", None) is None for label in array.flat
    ):
        return array.astype("datetime64[us]")
    kinds = sorted({type(label).__name__ for label in array.flat})
    raise InputError(
        f"{path}: {axis}= must hold numbers, strings, or datetimes without a time zone, all of one "
        f"kind; got {', '.join(kinds) or 'lists of different lengths'}. Convert them first, "
        "datetimes to UTC for example."
    )


def _attrs(name: str, origin: schema.Origin, cell: Cell | None = None) -> dict[str, str]:
    unknown = cell is None and name in schema.GATES
    long_name = name if unknown else schema.LONG_NAMES.get(name, name.replace("_", " "))
    return {"long_name": long_name, "units": schema.UNITS, "origin": origin}


def _leaf_attrs(layer: Recorded) -> dict[str, str | int | float]:
    attrs = cell_attrs(layer.seen.cell)
    attrs |= {"direction": "backward" if layer.seen.reverse else "forward"}
    attrs |= {"precision": layer.seen.precision}
    attrs |= {name: _plain(value) for name, value in layer.attrs.items()}
    if layer.seen.weights is not None:
        attrs["weights_sha256"] = weights_digest(layer.seen.weights)
    return attrs


def cell_attrs(cell: Cell | None) -> dict[str, str | int | float]:
    """Return the attributes that say which equations a layer has; none if nobody knows."""
    if cell is None:
        return {}
    variants = {name: value for name, value in asdict(cell).items() if value is not None}
    return {"cell": type(cell).__name__} | {name: _plain(v) for name, v in variants.items()}


def _plain(value: object) -> str | int | float:
    """Return a value as every file format can hold it: netCDF knows no booleans, JSON no NumPy."""
    if isinstance(value, (bool, np.bool_, np.integer)):
        return int(value)
    if isinstance(value, np.floating):
        return float(value)
    return value if isinstance(value, (str, int, float)) else str(value)


def weights_digest(weights: Weights) -> str:
    """Return the SHA-256 of the weights in canonical form, as hexadecimal digits."""
    digest = hashlib.sha256()
    for name, array in weights.items():
        digest.update(f"{name}{tuple(array.shape)}".encode())
        digest.update(as_numpy(array).tobytes())
    return digest.hexdigest()


def root_attrs(model: str, frameworks: Iterable[str]) -> Mapping[str, str | int]:
    """Return the attributes of a trace's root: schema, model, time of creation, versions."""
    found = {name: _version(name) for name in ("everystate", *frameworks)}
    versions = {f"{name}_version": known for name, known in found.items() if known}
    return {
        schema.SCHEMA_ATTR: schema.SCHEMA_VERSION,
        schema.COMPLETE_ATTR: 1,
        "model": model,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        **versions,
    }


@cache
def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
