"""`TraceWriter`: writes a trace's blocks of time and advances its progress mark.

The order of writes is what makes a stopped writer harmless:

1. `lay_out` creates every group and array at its full size, writes what has no time axis and
   all coordinates, consolidates the metadata. The root attribute ``complete`` is 0.
2. `TraceWriter.write` writes one block of one layer, file by file, then advances the mark.
3. `TraceWriter.finish` sets ``complete`` to 1.

Each file, the mark and the metadata too, is written beside and renamed, so a process may be
killed between any two instructions. (The operating system losing power is another matter:
nothing is forced to the disk, but checksums tell of what was lost.)
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
import xarray as xr
import zarr
from zarr.codecs import BloscCodec, Crc32cCodec
from zarr.storage import LocalStore, StorePath

from everystate import schema
from everystate.storage import metadata
from everystate.storage.layout import Grid, block_steps, grid
from everystate.storage.mark import Mark

# The checksum comes last, so that it is of the bytes on the disk.
CODECS = (BloscCodec(cname="lz4", clevel=5, shuffle="shuffle"), Crc32cCodec())

_opening = Lock()
"""The global configuration is for one thread at a time."""

NUMERIC = "biufc"
"""Kinds of dtype that Zarr holds as they are; all others are encoded by xarray."""


def nodes(tree: xr.DataTree) -> Iterator[tuple[str, xr.Dataset]]:
    """Yield the path and the own variables of every node, the root first."""
    for key, node in tree.subtree_with_keys:
        at_root = node is tree
        path = "/" if at_root else f"/{key}"
        yield path, node.to_dataset(inherit=at_root).drop_encoding()


def streamed(dataset: xr.Dataset) -> dict[str, xr.Variable]:
    """Return what of a node is written in blocks of time: its numeric data along ``time``."""
    return {
        str(name): variable
        for name, variable in dataset.variables.items()
        if name not in dataset.coords
        and schema.TIME in variable.dims
        and variable.dtype.kind in NUMERIC
    }


def lay_out(folder: Path, tree: xr.DataTree) -> None:
    """Create the store of a trace in an empty folder: all but the blocks of time.

    Parameters
    ----------
    folder : Path
        An empty folder.
    tree : xarray.DataTree
        The trace. Of the variables along ``time`` only shapes, dtypes and attributes are used.
    """
    mark = Mark()
    mark.save(folder)
    for path, dataset in nodes(tree):
        blocks = streamed(dataset)
        rest = dataset.drop_vars(blocks)
        if path == "/":
            rest = rest.assign_attrs({schema.COMPLETE_ATTR: 0})
        if blocks:
            create_arrays(folder, path, dataset, blocks, block_steps(blocks))
            mark.done[path], mark.total[path] = 0, dataset.sizes[schema.TIME]
        write_rest(folder, path, rest)
        mark.variables[path] = {str(n): str(v.dtype) for n, v in dataset.variables.items()}
    metadata.consolidate(folder)
    mark.save(folder)


def create_arrays(
    folder: Path, path: str, dataset: xr.Dataset, variables: Mapping[str, xr.Variable], block: int
) -> None:
    """Create arrays of numbers, of their full size, with nothing in them.

    Parameters
    ----------
    folder : Path
        The store's folder.
    path : str
        The layer's group.
    dataset : xarray.Dataset
        The layer.
    variables : mapping of str to xarray.Variable
        Those of its variables that are wanted.
    block : int
        Steps of a block: what has a time axis is written in these.
    """
    labels = {name: v for name, v in variables.items() if name in dataset.coords}
    labels = {name: v for name, v in labels.items() if name not in dataset.dims}
    for name, variable in variables.items():
        own = sorted(label for label, v in labels.items() if set(v.dims) <= set(variable.dims))
        if own and name not in dataset.coords:  # as CF conventions say which are coordinates
            variable = variable.copy(deep=False)
            variable.attrs["coordinates"] = " ".join(own)
        whole = tuple(max(size, 1) for size in variable.shape)
        cut = grid(variable, block) if schema.TIME in variable.dims else Grid(whole, whole)
        codec = replace(CODECS[0], typesize=variable.dtype.itemsize)
        metadata.save(folder, f"{path}/{name}", metadata.array(variable, cut, codec.to_dict()))


def open_streamed(folder: Path, path: str, name: str) -> zarr.Array[Any]:
    """Return an array that `create_arrays` made, to be written."""
    at = StorePath(LocalStore(folder), f"{path}/{name}".strip("/"))
    with _writing_all():
        return zarr.Array.from_dict(at, metadata.load(folder, at.path))


def open_to_write(store: Any, path: str) -> zarr.Array[Any]:
    """Return an array of which every chunk is written, one of nothing but NaN too.

    What is missing is then always damage. zarr 3.1.5, the last with NumPy 1, reads this setting
    from its global configuration alone.
    """
    with _writing_all():
        return zarr.open_array(store, path=path.strip("/"), mode="r+")


@contextmanager
def _writing_all() -> Iterator[None]:
    """Have arrays that are opened now write also what equals their fill value."""
    with _opening, zarr.config.set({"array.write_empty_chunks": True}):
        yield


def write_rest(folder: Path, path: str, dataset: xr.Dataset) -> None:
    """Write what of a group is written at once: its attributes, and all without a time axis."""
    if not dataset.variables:
        metadata.save(folder, path, metadata.group(dataset.attrs))
        return
    # Zarr has a specification for strings of any length, but none for those of a fixed one.
    texts = [name for name, variable in dataset.variables.items() if variable.dtype.kind == "U"]
    dataset = dataset.assign({name: dataset[name].astype(object) for name in texts})
    encoding = {str(name): _encoding(v.dtype) for name, v in dataset.variables.items()}
    _to_zarr(dataset, folder, path, encoding)


def _encoding(dtype: np.dtype[Any]) -> dict[str, Any]:
    encoding: dict[str, Any] = {"compressors": CODECS}
    if dtype.kind == "f":
        # No mask when read, and NaN, not 0, for a plain reader where nothing is written yet.
        encoding |= {"_FillValue": None, "fill_value": np.nan}
    return encoding


def _to_zarr(
    dataset: xr.Dataset, folder: Path, path: str, encoding: dict[str, dict[str, Any]]
) -> None:
    # Every chunk is written, also one of zeros: a missing file is always damage.
    with _expected_warnings():
        dataset.to_zarr(
            str(folder),
            group=path,
            mode="a",
            encoding=encoding,
            zarr_format=3,
            consolidated=False,
            write_empty_chunks=True,
        )


@contextmanager
def _expected_warnings() -> Iterator[None]:
    """Ignore what Zarr says of choices that are made on purpose here."""
    with warnings.catch_warnings():
        for message in (
            ".*does not have a Zarr V3 specification",  # labels that are bytes
            r".*everystate\.\S+ is not recognized",  # the mark, and what it refers to
        ):
            warnings.filterwarnings("ignore", message)
        yield


class TraceWriter:
    """Writes the blocks of a trace that `lay_out` made, or of one begun earlier.

    Parameters
    ----------
    folder : Path
        The trace's folder.

    Attributes
    ----------
    mark : Mark
        What is completely written so far.
    """

    def __init__(self, folder: Path) -> None:
        mark = Mark.load(folder)
        assert mark is not None, f"{folder} is not laid out"
        self.folder, self.mark = folder, mark
        self._arrays: dict[tuple[str, str], zarr.Array[Any]] = {}

    def write(self, path: str, start: int, block: Mapping[str, xr.Variable]) -> None:
        """Write one block of one layer, and advance the mark past it.

        Parameters
        ----------
        path : str
            The layer's group.
        start : int
            The block's first step; a multiple of the layer's `block_steps`.
        block : mapping of str to xarray.Variable
            All variables of the layer that have a time axis, these steps of them.
        """
        stop = start
        for name, variable in block.items():
            stop = start + variable.sizes[schema.TIME]
            write_shards(self._array(path, name), variable, start)
        self.mark.done[path] = stop
        self.mark.save(self.folder)

    def finish(self) -> None:
        """Say that the trace is complete."""
        say_complete(self.folder)

    def _array(self, path: str, name: str) -> zarr.Array[Any]:
        if (path, name) not in self._arrays:
            self._arrays[path, name] = open_streamed(self.folder, path, name)
        return self._arrays[path, name]


def say_complete(folder: Path) -> None:
    """Set the root's attribute ``complete``, the last thing to be written of a trace."""
    metadata.update(folder, "/", {schema.COMPLETE_ATTR: 1})


def write_shards(array: zarr.Array[Any], variable: xr.Variable, start: int) -> None:
    """Write a block file by file: a lazy source is never held as a whole."""
    rows = variable.sizes.get(schema.BATCH, 1)
    step = (array.shards or array.chunks)[variable.get_axis_num(schema.BATCH)] if rows > 1 else 1
    for row in range(0, rows, step):
        part = {schema.BATCH: slice(row, row + step)} if rows > 1 else {}
        begin = {schema.TIME: start, schema.BATCH: row}
        values = variable.isel(part)
        place = tuple(
            slice(begin.get(str(dim), 0), begin.get(str(dim), 0) + size)
            for dim, size in values.sizes.items()
        )
        array[place] = np.asarray(values.values)
