"""A sequence as chunks of time: from an array, on disk or in memory, a file, or an iterator."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from array_api_compat import array_namespace, is_numpy_array, is_torch_array

from everystate.errors import DataError, InputError, InputTypeError


class Source:
    """Hands out a sequence, chunk after chunk.

    Parameters
    ----------
    x : array, path or iterator of arrays
        The sequence: anything with ``shape`` that can be sliced, a path of a ``.npy`` file or a
        ``.zarr`` array, or an iterator of chunks in the model's layout, of any lengths.
    time_axis : callable
        Takes an array; returns which of its axes is time.

    Attributes
    ----------
    steps : int or None
        Steps of the whole sequence; None if only its end will tell.

    Raises
    ------
    InputError
        If an iterator has no chunk at all, or later one of another shape.
    """

    def __init__(self, x: Any, time_axis: Any) -> None:
        if isinstance(x, (str, os.PathLike)):
            x = opened(Path(x))
        self.steps: int | None = None
        self._x, self._chunks = x, None
        self._held: list[Any] = []
        self._next = self._count = 0
        self._shape: tuple[int, ...] = ()
        if not _sliced(x):
            self._x, self._chunks = None, _iterator(x)
            self._hold(1)
            if not self._held:
                raise InputError(
                    "the iterator has no chunk: there is nothing to record. One that was used up "
                    "before gives nothing any more."
                )
        first = self._held[0] if self._held else x
        self.axis: int = time_axis(first)
        if self._x is not None:
            self.steps = int(x.shape[self.axis])

    def peek(self, count: int) -> Any:
        """Return the next steps, as many as there are up to `count`, and keep them."""
        if self._x is not None:
            return self._slice(self._next, self._next + count)
        self._hold(count)
        return _part(_joined(self._held, self.axis), self.axis, 0, count)

    def take(self, count: int) -> Any | None:
        """Return the next steps, as many as there are up to `count`; None at the end."""
        if self._x is not None:
            assert self.steps is not None
            start, self._next = self._next, min(self._next + count, self.steps)
            return self._slice(start, self._next) if self._next > start else None
        self._hold(count)
        if not self._held:
            return None
        whole = _joined(self._held, self.axis)
        steps = whole.shape[self.axis]
        self._held = [_part(whole, self.axis, count, steps)] if steps > count else []
        return _part(whole, self.axis, 0, count)

    @property
    def ended(self) -> bool:
        """Whether there are no more steps; an iterator is asked for its next chunk to tell."""
        if self._x is not None:
            return self._next == self.steps
        self._hold(1)
        return not self._held

    def skip(self, count: int) -> None:
        """Pass over steps that were recorded before."""
        if self._x is not None:
            self._next += count
            return
        while count > 0 and (chunk := self.take(min(count, 1 << 16))) is not None:
            count -= chunk.shape[self.axis]

    def _hold(self, count: int) -> None:
        """Take chunks from the iterator until there are so many steps, or no more."""
        assert self._chunks is not None
        axis = getattr(self, "axis", 0)
        there = sum(chunk.shape[axis] for chunk in self._held)
        while there < count and (chunk := next(self._chunks, None)) is not None:
            chunk = chunk if hasattr(chunk, "shape") else np.asarray(chunk)
            self._check(chunk)
            self._held.append(_own(chunk))
            there += chunk.shape[axis]

    def _check(self, chunk: Any) -> None:
        """Refuse a chunk that differs from the one before in more than its steps."""
        shape, self._count = tuple(chunk.shape), self._count + 1
        if self._count > 1 and _without(shape, self.axis) != _without(self._shape, self.axis):
            raise InputError(
                f"chunk {self._count} of the iterator has shape {shape}, and the one before "
                f"{self._shape}: they may differ in their steps alone, axis {self.axis}."
            )
        self._shape = shape

    def _slice(self, start: int, stop: int) -> Any:
        part = _part(self._x, self.axis, start, stop)
        # A copy of what is on the disk: the model may not write there.
        return np.array(part) if _is_numpy_like(part) else part


def opened(path: Path) -> Any:
    """Return the array in a ``.npy`` or ``.zarr`` file, left on the disk.

    Raises
    ------
    DataError
        If there is none.
    """
    try:
        if path.suffix == ".npy":
            return np.load(path, mmap_mode="r", allow_pickle=False)
        if path.suffix == ".zarr":
            import zarr

            return zarr.open_array(str(path), mode="r")
    except (OSError, ValueError, LookupError) as error:
        raise DataError(f"{path} cannot be read as an array: {error}") from error
    raise DataError(
        f"{path}: expected a .npy file or a .zarr array, which can be read in parts. Save the "
        "sequence as one of them, or give an array or an iterator of chunks."
    )


def _without(shape: tuple[int, ...], axis: int) -> tuple[int, ...]:
    return shape[:axis] + shape[axis + 1 :]


def _sliced(x: Any) -> bool:
    return hasattr(x, "shape") and hasattr(x, "__getitem__")


def _iterator(x: Any) -> Iterator[Any]:
    try:
        return iter(x)
    except TypeError:
        raise InputTypeError(
            f"got a {type(x).__name__}, expected an array, a path or an iterator of chunks."
        ) from None


def _own(chunk: Any) -> Any:
    """Return a chunk that stays as it is now: its maker may put the next one in its place."""
    if is_numpy_array(chunk) or is_torch_array(chunk):
        return array_namespace(chunk).asarray(chunk, copy=True)
    return chunk


def _is_numpy_like(a: Any) -> bool:
    return isinstance(a, np.ndarray) or type(a).__module__.startswith("xarray")


def _part(a: Any, axis: int, start: int, stop: int) -> Any:
    return a[(slice(None),) * axis + (slice(start, stop),)]


def _joined(chunks: list[Any], axis: int) -> Any:
    if len(chunks) == 1:
        return chunks[0]
    return array_namespace(*chunks).concat(chunks, axis=axis)
