"""Lazy arrays of a stored trace which, when damaged, say so by name."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from itertools import product
from math import ceil
from pathlib import Path
from typing import Any, Final

import xarray as xr
import zarr
from xarray.backends.zarr import ZarrArrayWrapper
from xarray.core.indexing import LazilyIndexedArray
from zarr.core.metadata import ArrayV3Metadata
from zarr.storage import LocalStore

from everystate import schema
from everystate.errors import CorruptTraceError, EverystateError, TraceFormatError
from everystate.storage.mark import Mark

DAMAGE: Final = (OSError, ValueError, TypeError, LookupError, RuntimeError)
"""What Zarr and xarray raise of metadata that are no metadata."""


@contextmanager
def damage_told(place: object, what: str = "trace") -> Iterator[None]:
    """Say of what is raised in a block that opens metadata that these are damaged.

    Raises
    ------
    CorruptTraceError
        In place of what is not an error of ours already.
    """
    try:
        yield
    except EverystateError:
        raise
    except DAMAGE as error:
        raise CorruptTraceError(
            f"{place}: the metadata of the {what} are damaged: {error}. Restore the folder from a "
            "copy, or record again."
        ) from error


class CheckedStore(xr.backends.ZarrStore):
    """xarray's Zarr store, with `_CheckedArray` for each variable."""

    def open_store_variable(self, name: str) -> xr.Variable:
        """Return the variable as xarray does, its values read through a `_CheckedArray`."""
        variable: xr.Variable = super().open_store_variable(name)  # type: ignore[no-untyped-call]
        data = LazilyIndexedArray(_CheckedArray(self.array(name), self.id))
        return xr.Variable(variable.dims, data, variable.attrs, variable.encoding)

    @cached_property
    def id(self) -> str | None:
        """What tells the trace from one that takes its place."""
        return _id(Path(self.zarr_group.store.root))

    def array(self, name: str) -> zarr.Array[Any]:
        """Return the Zarr array of a variable."""
        array = self.members[name]
        assert isinstance(array, zarr.Array)
        return array


class _CheckedArray(ZarrArrayWrapper):
    """An array in a Zarr store, whose damage is named, and which is not mistaken for a newer one.

    Zarr's own errors speak of a checksum, not of a variable. And a trace that was overwritten
    since would be read by the old one's metadata: as fill values, or worse.
    """

    __slots__ = ("_folder", "_id")

    def __init__(self, array: zarr.Array[Any], of: str | None) -> None:
        super().__init__(array)  # type: ignore[no-untyped-call]
        self._folder, self._id = _root(array), of

    def __getitem__(self, key: Any) -> Any:
        if _id(self._folder) != self._id:
            raise TraceFormatError(
                f"{self._folder}: the trace was overwritten since it was opened. Open it again."
            )
        try:
            return super().__getitem__(key)  # type: ignore[no-untyped-call]
        except (ValueError, RuntimeError, TypeError, OSError) as error:
            raise CorruptTraceError(
                f"{self._folder}: the variable {where(self._array)} is damaged: {error}. Other "
                "variables, and its steps in other files, can be read. Restore the folder from "
                "a copy, or record again."
            ) from error


def _root(array: zarr.Array[Any]) -> Path:
    assert isinstance(array.store, LocalStore)
    return array.store.root


def _id(folder: Path) -> str | None:
    mark = Mark.load(folder)
    return None if mark is None else mark.id


def where(array: zarr.Array[Any]) -> str:
    """Return the name and the group of an array, for messages."""
    group, _, name = array.name.rpartition("/")
    return f"{name!r} of {group or '/'}"


def missing_files(array: zarr.Array[Any], steps: int | None) -> Iterator[Path]:
    """Yield the files that an array should have and does not.

    Zarr takes a missing or an empty file for fill values; `save_trace` writes every file.

    Parameters
    ----------
    array : zarr.Array
        Of a trace with a mark.
    steps : int or None
        How many steps are complete; None if all are, or there is no time axis.
    """
    assert isinstance(array.metadata, ArrayV3Metadata)
    folder = _root(array) / array.path
    names = array.metadata.dimension_names or (None,) * array.ndim
    sizes = [
        steps if steps is not None and name == schema.TIME else size
        for name, size in zip(names, array.shape, strict=True)
    ]
    grid = array.shards or array.chunks
    counts = [ceil(size / cut) for size, cut in zip(sizes, grid, strict=True)]
    for index in product(*map(range, counts)):
        file = folder / array.metadata.encode_chunk_key(index)
        if not file.is_file() or file.stat().st_size == 0:
            yield file
