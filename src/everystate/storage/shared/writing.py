"""The Zarr arrays of a shared trace: laid out by one, filled by many, completed by one."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import xarray as xr
import zarr

from everystate import schema
from everystate.storage.shared.grid import row_grid
from everystate.storage.shared.root import Root
from everystate.storage.writer import CODECS, expected_warnings, open_to_write


@dataclass(frozen=True, eq=False)
class Leaf:
    """A layer to be written.

    Parameters
    ----------
    path : str
        Its group.
    sample : xarray.Dataset
        The layer as recorded from one row: its variables, labels of units, attributes.
    steps : ndarray of int
        Numbers of the recorded steps of the longest row.
    full : bool
        Whether its variables are stored. False: what is made of them alone.
    """

    path: str
    sample: xr.Dataset
    steps: npt.NDArray[np.int64]
    full: bool = True

    @property
    def stored(self) -> dict[str, xr.DataArray]:
        """The variables that are stored."""
        return {str(n): v for n, v in self.sample.data_vars.items()} if self.full else {}

    @property
    def step_bytes(self) -> int:
        """Bytes of a step of the widest variable."""
        return max(self._sizes)

    @property
    def all_bytes(self) -> int:
        """Bytes of a step of all variables."""
        return sum(self._sizes)

    @property
    def _sizes(self) -> list[int]:
        return [
            _bytes_at_a_step(v) for v in self.sample.data_vars.values() if schema.TIME in v.dims
        ]

    def shape(self, name: str, rows: int) -> tuple[int, ...]:
        """Return the shape of a variable of `rows` rows."""
        array = self.sample[name]
        sizes = {**array.sizes, schema.BATCH: rows, schema.TIME: len(self.steps)}
        return tuple(sizes[dim] for dim in array.dims)


def _bytes_at_a_step(array: xr.DataArray) -> int:
    sizes = [size for dim, size in array.sizes.items() if dim not in (schema.BATCH, schema.TIME)]
    return int(np.prod(sizes)) * array.dtype.itemsize


def lay_out(
    root: Root,
    attrs: Mapping[str, Any],
    leaves: list[Leaf],
    batch: Mapping[str, xr.Variable],
    shard_rows: int,
) -> None:
    """Create every group, coordinate and array; the values are NaN until they are written.

    Parameters
    ----------
    root : Root
        An empty place.
    attrs : mapping
        Of the root group.
    leaves : list of Leaf
        The layers.
    batch : mapping of str to xarray.Variable
        Coordinates along ``batch``.
    shard_rows : int
        Rows of a shard.
    """
    store = root.zarr_store()
    head = xr.Dataset(attrs={**attrs, schema.COMPLETE_ATTR: 0})
    to_zarr(head, store, "/")
    for leaf in leaves:
        units = {n: c.variable for n, c in leaf.sample.coords.items() if c.dims not in _ROW_OR_STEP}
        time = {schema.TIME: xr.Variable(schema.TIME, leaf.steps)}
        to_zarr(xr.Dataset({}, {**time, **batch, **units}, leaf.sample.attrs), store, leaf.path)
        for name in leaf.stored:
            _create(store, leaf, name, len(batch[schema.BATCH]), shard_rows)
    consolidate(store)


_ROW_OR_STEP = ((schema.BATCH,), (schema.TIME,))


def to_zarr(dataset: xr.Dataset, store: Any, group: str) -> None:
    """Write a group's coordinates and attributes."""
    with expected_warnings():
        dataset.to_zarr(store, group=group, mode="a", zarr_format=3, consolidated=False)


def _create(store: Any, leaf: Leaf, name: str, rows: int, shard_rows: int) -> None:
    array = leaf.sample[name]
    shape = leaf.shape(name, rows)
    grid = row_grid(shape, array.dtype.itemsize, shard_rows)
    zarr.create_array(
        store,
        name=f"{leaf.path}/{name}".strip("/"),
        shape=shape,
        dtype=array.dtype,
        chunks=grid.chunks,
        shards=grid.shards,
        compressors=CODECS,
        fill_value=np.nan if array.dtype.kind == "f" else 0,
        dimension_names=[str(dim) for dim in array.dims],
        attributes=dict(array.attrs),
    )


def write_rows(root: Root, path: str, values: Mapping[str, npt.NDArray[Any]], start: int) -> None:
    """Write the rows of a shard, of one layer; each file is written whole.

    Parameters
    ----------
    root : Root
        Where.
    path : str
        The layer's group.
    values : mapping of str to ndarray
        Each (row, step, unit), as many steps as the shard's longest row has, or (row, unit).
    start : int
        The shard's first row.
    """
    for name, rows in values.items():
        with RowWriter(root, path, name, start) as writer:
            writer.write(rows)


class RowWriter:
    """Writes rows of one variable, a stretch of steps at a time, in whole files.

    Parameters
    ----------
    root : Root
        Where.
    path, name : str
        The layer's group, and the variable.
    start : int
        The shard's first row.
    """

    def __init__(self, root: Root, path: str, name: str, start: int) -> None:
        self.array = open_to_write(root.zarr_store(), f"{path}/{name}")
        self._start, self._stop = start, 0
        self._kept: list[npt.NDArray[Any]] = []

    def __enter__(self) -> "RowWriter":
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is None:
            self._flush(whole=False)

    def write(self, rows: npt.NDArray[Any]) -> None:
        """Write the next steps, (row, step, unit), or all of (row, unit)."""
        self._kept.append(rows)
        if rows.ndim == 3 and sum(part.shape[1] for part in self._kept) >= self.file_steps:
            self._flush(whole=True)

    @property
    def file_steps(self) -> int:
        """Steps of a file."""
        return int((self.array.shards or self.array.chunks)[1])

    def _flush(self, *, whole: bool) -> None:
        """Write what is kept; with `whole`, only as far as it fills files."""
        if not self._kept:
            return
        if self._kept[0].ndim == 2:
            values = self._kept.pop()
            self.array[self._start : self._start + len(values)] = values
            return
        values = np.concatenate(self._kept, axis=1) if len(self._kept) > 1 else self._kept[0]
        steps = values.shape[1]
        cut = steps - steps % self.file_steps if whole else steps
        ready, self._kept = values[:, :cut], [values[:, cut:]]
        last = self.array.shape[1]
        padded = min(-(-(self._stop + cut) // self.file_steps) * self.file_steps, last)
        missing = padded - self._stop - cut
        if missing:  # the file's own end: a file that is written whole is never read first
            ready = np.pad(ready, ((0, 0), (0, missing), (0, 0)), constant_values=np.nan)
        if ready.size:
            place = slice(self._start, self._start + len(ready))
            self.array[place, self._stop : padded] = ready
        self._stop += cut


def grow(root: Root, leaf: Leaf) -> None:
    """Make room for longer rows than the trace was laid out for."""
    store = root.zarr_store()
    for name, variable in leaf.stored.items():
        if schema.TIME in variable.dims:
            array = zarr.open_array(store, path=f"{leaf.path}/{name}".strip("/"), mode="r+")
            array.resize(leaf.shape(name, array.shape[0]))
    set_coordinate(root, leaf.path, schema.TIME, leaf.steps)
    consolidate(store)


def coordinate(root: Root, path: str, name: str) -> npt.NDArray[Any]:
    """Return the values of a coordinate of a layer."""
    store = root.zarr_store()
    return np.asarray(zarr.open_array(store, path=f"{path}/{name}".strip("/"), mode="r")[:])


def set_coordinate(root: Root, path: str, name: str, values: npt.NDArray[Any]) -> None:
    """Replace the values of a numeric coordinate of a layer."""
    array = zarr.open_array(root.zarr_store(), path=f"{path}/{name}".strip("/"), mode="r+")
    array.resize(values.shape)
    array[:] = values


def complete(root: Root, attrs: Mapping[str, Mapping[str, Any]]) -> None:
    """Say that the trace is complete.

    Parameters
    ----------
    root : Root
        The trace's place.
    attrs : mapping of str to mapping
        What is to be said of each group, the root being ``/``.
    """
    store = root.zarr_store()
    for path, said in attrs.items():
        group = zarr.open_group(store, path=path.strip("/"), mode="r+", use_consolidated=False)
        group.attrs.update(dict(said))
    consolidate(store)
    with expected_warnings():
        whole = zarr.open_group(store, mode="r+", use_consolidated=True)
        whole.attrs[schema.COMPLETE_ATTR] = 1


def consolidate(store: Any) -> None:
    """Gather all metadata in the root's file, which is what a reader sees."""
    with expected_warnings():
        zarr.consolidate_metadata(store, zarr_format=3)
