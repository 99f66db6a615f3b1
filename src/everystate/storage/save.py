"""`save_trace`: a trace, held or lazy, to a Zarr store on disk."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import xarray as xr

from everystate import schema
from everystate.errors import (
    EverystateError,
    InputTypeError,
    TraceFormatError,
    TraceWriteError,
)
from everystate.storage.layout import block_steps
from everystate.storage.place import Place
from everystate.storage.writer import TraceWriter, lay_out, nodes, streamed
from everystate.storage.writing import writing

Progress = Callable[[int, int], None]
"""Called with the steps done and the steps in all, of all layers together."""


def save_trace(
    trace: xr.DataTree,
    path: str | os.PathLike[str],
    *,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> Path:
    """Save a trace as a Zarr store (format 3), readable by `open_trace` and by plain xarray.

    The layers are written in blocks of time, about 8 MiB of each variable at once, so that a
    lazy trace need not fit into memory. Should the process be killed or the disk become full,
    every block that was complete can be opened: ``open_trace(path, incomplete="trim")``.
    A trace that is replaced stays untouched until the new one is complete; it may be the very
    trace being read.

    Values, dtypes, coordinates and attributes come back exactly, attributes as JSON knows them
    (a tuple returns as a list). Chunks are compressed without loss (Blosc, LZ4, byte shuffle)
    and carry a CRC-32C checksum.

    Parameters
    ----------
    trace : xarray.DataTree
        The whole trace, as `everystate.record` returns it, or what ``sel``, ``isel`` or
        ``filter`` make of one. If it is lazy it is read block by block.
    path : str or path-like
        The folder to make, by convention named ``*.zarr``. Its parents are made if missing.
    overwrite : bool, default False
        Replace the Zarr store at `path`, if there is one.
    progress : callable, optional
        Called with (steps done, steps in all) after each block.

    Returns
    -------
    pathlib.Path
        The path.

    Raises
    ------
    TraceWriteError
        If the path is taken, the folder cannot be written, the disk is full, or the trace holds
        something that Zarr cannot, such as time zones.
    InputTypeError
        If `trace` is no DataTree.
    TraceFormatError
        If it is a DataTree, but not a trace.

    Examples
    --------
    >>> import tempfile, numpy as np, xarray as xr, everystate as es
    >>> h = xr.Dataset({"h": (("batch", "time", "unit"), np.ones((2, 7, 3), np.float32))})
    >>> root = xr.Dataset(attrs={"everystate_schema": 1, "complete": 1})
    >>> trace = xr.DataTree.from_dict({"/": root, "/lstm": h})
    >>> folder = tempfile.TemporaryDirectory()
    >>> path = es.save_trace(trace, f"{folder.name}/run.zarr")
    >>> es.open_trace(path).identical(trace)
    True
    >>> folder.cleanup()
    """
    check_trace(trace)
    with writing(path, overwrite=overwrite) as place:
        _lay_out(trace, place)
        place.publish()
        writer = TraceWriter(place.folder)
        for group, start, block in _blocks(trace):
            writer.write(group, start, block)
            if progress is not None:
                progress(writer.mark.steps_done, writer.mark.steps_total)
        writer.finish()
        place.replace()
    return Path(path)


def check_trace(trace: object) -> None:
    """Raise `InputTypeError` or `TraceFormatError` for what is no whole trace."""
    if not isinstance(trace, xr.DataTree):
        raise InputTypeError(
            f"got a {type(trace).__name__}; expected a trace, an xarray.DataTree as "
            "everystate.record returns it. A single layer is saved by its own to_zarr."
        )
    if schema.SCHEMA_ATTR not in trace.attrs:
        raise TraceFormatError(
            f"this DataTree, at {trace.path!r}, has no attribute {schema.SCHEMA_ATTR!r}: it is no "
            "trace, or only a part of one, or lost its attributes on the way. Save the whole "
            "trace, or give it the attributes of the one it comes from: part.attrs = trace.attrs."
        )


def _lay_out(trace: xr.DataTree, place: Place) -> None:
    try:
        lay_out(place.folder, trace)
    except (TypeError, ValueError, NotImplementedError) as error:
        if isinstance(error, EverystateError):
            raise
        # xarray may name the attribute's owner in the error, and Zarr its fault in the cause.
        why = " ".join(str(each).rstrip(".") + "." for each in (error, error.__cause__) if each)
        raise TraceWriteError(
            f"the trace holds something that Zarr cannot: {why} Coordinates may be numbers, "
            "strings, or datetimes without a time zone; attributes whatever JSON knows."
        ) from error


def _blocks(trace: xr.DataTree) -> Iterator[tuple[str, int, dict[str, xr.Variable]]]:
    """Yield group, first step and variables of every block, all layers advancing together."""
    layers = {}
    for group, dataset in nodes(trace):
        variables = streamed(dataset)
        if variables:
            layers[group] = (variables, block_steps(variables), dataset.sizes[schema.TIME])
    starts = (
        (start, group)
        for group, (_, block, steps) in layers.items()
        for start in range(0, steps, block)
    )
    for start, group in sorted(starts, key=lambda each: each[0]):
        variables, block, _ = layers[group]
        window = {schema.TIME: slice(start, start + block)}
        yield group, start, {name: variable.isel(window) for name, variable in variables.items()}
