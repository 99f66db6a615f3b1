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
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
import xarray as xr
import zarr
from zarr.codecs import BloscCodec, BytesCodec, Crc32cCodec, ShardingCodec
from zarr.core.metadata import ArrayV3Metadata
from zarr.dtype import parse_dtype
from zarr.storage import LocalStore

from everystate import schema
from everystate.storage.layout import Grid, block_steps, grid
from everystate.storage.mark import Mark

# The checksum comes last, so that it is of the bytes on the disk.
CODECS = (BloscCodec(cname="lz4", clevel=5, shuffle="shuffle"), Crc32cCodec())

_FILL = {"f": np.nan}
"""What a plain reader sees where nothing is written yet, by kind of dtype; elsewhere it is 0."""

_opening = Lock()
"""The global configuration is for one thread at a time."""

_warning = Lock()
"""And so are the filters of warnings: threads in turn would leave another's behind."""

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
    consolidate(folder)
    mark.save(folder)


def consolidate(folder: Path) -> None:
    """Gather all metadata in the root's file, which is what a reader sees."""
    with expected_warnings():
        zarr.consolidate_metadata(str(folder), zarr_format=3)


def set_attributes(folder: Path, path: str, attributes: Mapping[str, Any]) -> None:
    """Set attributes of a group, which is made if it is not there."""
    with expected_warnings():
        group = zarr.open_group(str(folder), path=path.strip("/"), mode="a", zarr_format=3)
        group.update_attributes(plain(attributes))


def create_arrays(
    folder: Path, path: str, dataset: xr.Dataset, variables: Mapping[str, xr.Variable], block: int
) -> dict[str, zarr.Array[Any]]:
    """Create arrays of numbers, of their full size, with nothing in them; return them.

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
    nodes: dict[str, Any] = {}
    for name, variable in variables.items():
        own = sorted(label for label, v in labels.items() if set(v.dims) <= set(variable.dims))
        if own and name not in dataset.coords:  # as CF conventions say which are coordinates
            variable = variable.copy(deep=False)
            variable.attrs["coordinates"] = " ".join(own)
        nodes[f"{path}/{name}".strip("/")] = _metadata(variable, block)
    with _writing_all():
        made: dict[str, Any] = dict(zarr.create_hierarchy(store=LocalStore(folder), nodes=nodes))
    return {name: made[key] for name, key in zip(variables, nodes, strict=True)}


def _metadata(variable: xr.Variable, block: int) -> ArrayV3Metadata:
    """Return what Zarr says of the array of a variable."""
    whole = tuple(max(size, 1) for size in variable.shape)
    cut = grid(variable, block) if schema.TIME in variable.dims else Grid(whole, whole)
    codecs = BytesCodec(), *CODECS
    sharded = cut.shards != cut.chunks
    dtype = parse_dtype(variable.dtype, zarr_format=3)
    return ArrayV3Metadata(
        shape=variable.shape,
        data_type=dtype,
        chunk_grid={"name": "regular", "configuration": {"chunk_shape": cut.shards}},
        chunk_key_encoding={"name": "default"},
        fill_value=_FILL.get(variable.dtype.kind, dtype.default_scalar()),
        codecs=[ShardingCodec(chunk_shape=cut.chunks, codecs=codecs)] if sharded else codecs,
        dimension_names=list(map(str, variable.dims)),
        attributes=plain(variable.attrs),
    )


def plain(attributes: Mapping[str, Any]) -> dict[str, Any]:
    """Return attributes as JSON has them: NumPy's numbers and arrays as xarray writes them."""
    return {
        name: value.tolist() if isinstance(value, np.generic | np.ndarray) else value
        for name, value in attributes.items()
    }


def open_streamed(folder: Path, path: str, name: str) -> zarr.Array[Any]:
    """Return an array that `create_arrays` made, to be written."""
    return open_to_write(str(folder), f"{path}/{name}")


def open_layer(folder: Path, path: str) -> dict[str, zarr.Array[Any]]:
    """Return all arrays of a group, to be written."""
    with _writing_all():
        group = zarr.open_group(
            str(folder), path=path.strip("/"), mode="r+", use_consolidated=False
        )
        return dict(group.arrays())


def open_to_write(store: Any, path: str) -> zarr.Array[Any]:
    """Return an array that is there, to be written."""
    with _writing_all():
        return zarr.open_array(store, path=path.strip("/"), mode="r+")


@contextmanager
def _writing_all() -> Iterator[None]:
    """Have arrays that are opened now write every chunk, one of nothing but NaN too.

    What is missing is then always damage. zarr 3.1.5, the last with NumPy 1, reads this setting
    from its global configuration alone.
    """
    with _opening, zarr.config.set({"array.write_empty_chunks": True}):
        yield


def write_rest(folder: Path, path: str, dataset: xr.Dataset) -> None:
    """Write what of a group is written at once: its attributes, and all without a time axis."""
    if not dataset.variables:
        set_attributes(folder, path, dataset.attrs)
        return
    # Zarr has a specification for strings of any length, but none for those of a fixed one.
    texts = [name for name, variable in dataset.variables.items() if variable.dtype.kind == "U"]
    dataset = dataset.assign({name: dataset[name].astype(object) for name in texts})
    encoding = {str(name): _encoding(v.dtype) for name, v in dataset.variables.items()}
    _to_zarr(dataset, folder, path, encoding)


def _encoding(dtype: np.dtype[Any]) -> dict[str, Any]:
    encoding: dict[str, Any] = {"compressors": CODECS}
    if dtype.kind == "f":
        encoding |= {"_FillValue": None, "fill_value": _FILL["f"]}  # no mask when read
    return encoding


def _to_zarr(
    dataset: xr.Dataset, folder: Path, path: str, encoding: dict[str, dict[str, Any]]
) -> None:
    # Every chunk is written, also one of zeros: a missing file is always damage.
    with expected_warnings():
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
def expected_warnings() -> Iterator[None]:
    """Ignore what Zarr says of choices that are made on purpose here."""
    with _warning, warnings.catch_warnings():
        for message in (
            "Consolidated metadata is currently not part",  # who lacks it lists folders instead
            ".*does not have a Zarr V3 specification",  # labels that are bytes
            ".*is not recognized as a component",  # plan, mark, and what it refers to
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
    set_attributes(folder, "/", {schema.COMPLETE_ATTR: 1})


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
