"""`save_epoch`: one trace of a training more in a store, along ``epoch``.

Each epoch has files of its own, so those of the earlier ones are neither read nor touched. The
order of writes is what makes a stopped training harmless: first the values, in arrays that have
grown by one, then the attributes, and last the metadata of all arrays, gathered in the root's file
in one rename. A reader goes by that file: until then the epoch is not there.
"""

import os
from collections.abc import Mapping
from operator import index
from pathlib import Path
from typing import Final

import xarray as xr

from everystate import schema
from everystate.errors import SelectionError, TraceWriteError
from everystate.recording.join import worst
from everystate.storage.reader import open_trace
from everystate.storage.refusal import refusal
from everystate.storage.save import check_trace, save_trace
from everystate.storage.writer import consolidate, nodes, open_streamed, set_attributes

OF_ONE_EPOCH: Final = "weights_sha256"
"""An attribute of a layer that differs from epoch to epoch, so that the store has none."""

Datasets = Mapping[str, xr.Dataset]
"""The nodes of a trace, by their paths."""


def save_epoch(
    trace: xr.DataTree, path: str | os.PathLike[str], epoch: int, *, overwrite: bool = False
) -> Path:
    """Save the trace of one epoch of a training, beside those of the earlier epochs.

    Call it in a loop of your own with the same input, the probe, recorded after each epoch; the
    callbacks `RecordStates` of Keras and Lightning do so. Each variable gets ``epoch`` as its
    first dimension. After every call the store is complete: `open_trace` reads it while the
    training goes on, and a training that is stopped loses none of the epochs that were saved. It
    may go on later, at the next epoch.

    Parameters
    ----------
    trace : xarray.DataTree
        What `everystate.record` gave: of the same layers, variables, rows and steps each time.
    path : str or path-like
        The store, by convention named ``*.zarr``. It is made with the first epoch.
    epoch : int
        The number of the epoch, counted from 0; larger than those that were saved.
    overwrite : bool, default False
        Begin anew, with this epoch alone, in the place of what is at `path`.

    Returns
    -------
    pathlib.Path
        The path.

    Raises
    ------
    SelectionError
        If `epoch` is no whole number, 0 or more.
    TraceWriteError
        If what is at `path` has no epochs, or this one or a later one, or other layers,
        variables, rows or steps than `trace`; or if the disk refuses.
    TraceFormatError, IncompleteTraceError, CorruptTraceError
        As `open_trace`, if it cannot read what is at `path`.

    Examples
    --------
    >>> import tempfile, numpy as np, xarray as xr, everystate as es
    >>> def probe(value):
    ...     h = xr.Dataset({"h": (("batch", "time", "unit"), np.full((2, 7, 3), value))})
    ...     root = xr.Dataset(attrs={"everystate_schema": 1, "complete": 1})
    ...     return xr.DataTree.from_dict({"/": root, "/lstm": h})
    >>> folder = tempfile.TemporaryDirectory()
    >>> for epoch in range(0, 6, 2):
    ...     path = es.save_epoch(probe(epoch / 10), f"{folder.name}/run.zarr", epoch)
    >>> h = es.open_trace(path)["lstm"].h
    >>> dict(h.sizes), float(h.sel(epoch=4).max())
    ({'epoch': 3, 'batch': 2, 'time': 7, 'unit': 3}, 0.4)
    >>> folder.cleanup()
    """
    check_trace(trace)
    fresh = _with_epoch(trace, _number(epoch))
    folder = Path(path)
    if overwrite or not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return save_trace(xr.DataTree.from_dict(fresh), folder, overwrite=overwrite)
    there = dict(nodes(open_trace(folder)))
    _check_follows(folder, there, fresh)
    try:
        for group, dataset in _layers(fresh).items():
            _append(folder, group, dataset, there[group])
        consolidate(folder)
    except OSError as error:
        reason = refusal(error, folder)
        if reason is None:
            raise
        raise TraceWriteError(f"{path}: {reason} The epochs before it are there.") from error
    return folder


def _number(epoch: object) -> int:
    """Return the number of an epoch, or raise `SelectionError`."""
    try:
        number = -1 if isinstance(epoch, bool) else index(epoch)  # type: ignore[arg-type]
    except TypeError:
        number = -1
    if number < 0:
        raise SelectionError(f"epoch={epoch!r}: expected a whole number, 0 or more.")
    return number


def _with_epoch(trace: xr.DataTree, epoch: int) -> dict[str, xr.Dataset]:
    """Return every node of a trace, the layers with a first dimension ``epoch``, of one."""
    label = xr.Variable(schema.EPOCH, [epoch], {"long_name": "epoch, from 0"})
    datasets = dict(nodes(trace))
    for path, dataset in _layers(datasets).items():
        longer = dataset.expand_dims(schema.EPOCH).assign_coords({schema.EPOCH: label})
        attrs = {name: value for name, value in dataset.attrs.items() if name != OF_ONE_EPOCH}
        longer.attrs = attrs
        datasets[path] = longer
    return datasets


def _layers(datasets: Datasets) -> dict[str, xr.Dataset]:
    return {path: dataset for path, dataset in datasets.items() if dataset.data_vars}


def _check_follows(folder: Path, there: Datasets, fresh: Datasets) -> None:
    """Raise `TraceWriteError` unless a trace can be the next epoch of those in a store."""
    anew = "Choose another path, or begin anew there: overwrite=True."
    before, after = _layers(there), _layers(fresh)
    if not all(schema.EPOCH in layer.dims for layer in before.values()):
        raise TraceWriteError(f"{folder}: the trace there is not one of epochs. {anew}")
    if set(before) != set(after):
        raise TraceWriteError(
            f"{folder}: the epochs there have the layers {', '.join(sorted(before))}, this trace "
            f"{', '.join(sorted(after))}. {anew}"
        )
    for path, layer in before.items():
        last, epoch = (int(each[path][schema.EPOCH][-1]) for each in (before, after))
        if epoch <= last:
            raise TraceWriteError(
                f"{folder}: epoch {epoch} cannot follow epoch {last}, the last one there. {anew}"
            )
        for name in dict.fromkeys([*layer.variables, *after[path].variables]):
            if name != schema.EPOCH and not _alike(layer, after[path], str(name)):
                raise TraceWriteError(
                    f"{folder}: {path} of epoch {epoch} has {_what(after[path], str(name))}, the "
                    f"epochs there {_what(layer, str(name))}. Record the same input with the same "
                    "Select in every epoch."
                )


def _alike(before: xr.Dataset, after: xr.Dataset, name: str) -> bool:
    """Whether a variable is in both: coordinates with the same values, others of the same form."""
    if name not in before.variables or name not in after.variables:
        return False
    a, b = before.variables[name], after.variables[name]
    if schema.EPOCH in a.dims:
        return (a.dims, a.shape[1:], a.dtype) == (b.dims, b.shape[1:], b.dtype)
    return bool(a.equals(b))  # type: ignore[no-untyped-call]


def _what(layer: xr.Dataset, name: str) -> str:
    """Say what a layer has of a variable."""
    if name not in layer.variables:
        return f"no {name}"
    variable = layer.variables[name]
    if name in layer.coords and variable.size <= 6:
        return f"{name}={variable.values.tolist()}"
    sizes = [f"{size} {dim}" for dim, size in variable.sizes.items() if dim != schema.EPOCH]
    return f"{name} of {variable.dtype}, {' x '.join(sizes)}"


def _append(folder: Path, group: str, layer: xr.Dataset, there: xr.Dataset) -> None:
    """Write one epoch of a layer behind those that count.

    The arrays may have room for it already, from an attempt that was stopped: it is used again.
    """
    count = there.sizes[schema.EPOCH]
    for name, variable in layer.variables.items():
        if schema.EPOCH in variable.dims:
            array = open_streamed(folder, group, str(name))
            array.resize((count + 1, *array.shape[1:]))
            array[count:] = variable.values
    attrs = [{str(name): value for name, value in each.attrs.items()} for each in (there, layer)]
    set_attributes(folder, group, worst(attrs))
