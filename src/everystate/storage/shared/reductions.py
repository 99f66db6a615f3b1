"""What reducers made of each row of a shared trace: arrays with a row for each sequence.

They are a store of their own in the folder of the trace, so that opening one does not list the
other's arrays. A shard's rows are files of their own here too.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import xarray as xr
import zarr

from everystate import schema
from everystate.errors import SelectionError
from everystate.storage.shared.root import Root
from everystate.storage.shared.writing import consolidate, to_zarr
from everystate.storage.writer import CODECS, open_to_write

FOLDER: Final = "everystate.reductions"
"""No group of the trace: it has no metadata of its own, what is in it has."""

NUMBERS: Final = "biuf"


def root_of(root: Root) -> Root:
    """Return where the reductions of a trace are."""
    return Root(f"{root}/{FOLDER}/figures.zarr")


@dataclass(frozen=True, eq=False)
class Node:
    """What one kind of reducer makes of one variable of a layer.

    Parameters
    ----------
    path : str
        ``layer/variable/name``.
    sample : xarray.Dataset
        The result for one row; no row's result has more of any dimension.
    """

    path: str
    sample: xr.Dataset

    def __post_init__(self) -> None:
        """Refuse what is no array of numbers."""
        for name, array in self.sample.data_vars.items():
            if array.dtype.kind not in NUMBERS:
                raise SelectionError(
                    f"{self.path}: {name} is of {array.dtype}; of many sequences, reducers may "
                    "give numbers only."
                )

    def room(self, rows: int) -> dict[str, npt.NDArray[np.float64]]:
        """Return arrays for the results of some rows: NaN where there is none."""
        return {
            str(name): np.full((rows, *array.shape), np.nan)
            for name, array in self.sample.data_vars.items()
        }


def place(result: xr.Dataset, room: Mapping[str, npt.NDArray[np.float64]], row: int) -> None:
    """Copy one row's result to its place; it may have less of a dimension than there is room."""
    for name, rows in room.items():
        values = result.variables[name].values
        there: tuple[Any, ...] = (row, *map(slice, values.shape))
        rows[there] = values


def lay_out_reductions(
    root: Root,
    attrs: Mapping[str, Any],
    nodes: list[Node],
    batch: Mapping[str, xr.Variable],
    shard_rows: int,
) -> None:
    """Create every group and array; arguments as of `writing.lay_out`.

    All numbers are float64, so that NaN can say that there is none.
    """
    store = root_of(root).zarr_store()
    to_zarr(xr.Dataset({}, dict(batch), dict(attrs)), store, "/")
    rows = len(batch[schema.BATCH])
    for node in nodes:
        to_zarr(xr.Dataset({}, node.sample.coords, node.sample.attrs), store, node.path)
        for name, array in node.sample.data_vars.items():
            zarr.create_array(
                store,
                name=f"{node.path}/{name}",
                shape=(rows, *array.shape),
                dtype=np.float64,
                chunks=(shard_rows, *(max(size, 1) for size in array.shape)),
                compressors=CODECS,
                fill_value=np.nan,
                dimension_names=[schema.BATCH, *map(str, array.dims)],
                attributes=dict(array.attrs),
            )
    consolidate(store)


def write_reductions(
    root: Root, path: str, values: Mapping[str, npt.NDArray[np.float64]], start: int
) -> None:
    """Write the results of a shard's rows, of one node; each file is written whole."""
    store = root_of(root).zarr_store()
    for name, rows in values.items():
        open_to_write(store, f"{path}/{name}")[start : start + len(rows)] = rows
