"""Sequences in arrays: one of all of them, in memory or in Zarr, or a list."""

import os
from collections.abc import Sequence
from typing import Any

import numpy as np

from everystate.errors import InputError
from everystate.scale.inputs.source import Sizes, Values, as_sequence, sizes_of


class Arrays:
    """Sequences in one array (sequence, step, feature), or in a list of arrays.

    Parameters
    ----------
    values : str, path-like, zarr.Array, ndarray, or sequence of ndarray
        The path or URL of a Zarr array, or of a group that holds one array of three dimensions;
        such an array; or a list of arrays (steps, features). What is in memory is sent to the
        workers; what is in Zarr they read themselves.
    lengths : array-like of int, or str, optional
        Valid steps of each sequence of an array, or the name of the group's array that holds
        them. Default: the group's array ``length`` or ``lengths``, if there is one; else all.

    Raises
    ------
    InputError
        If there are no sequences, or the shapes do not fit.

    Examples
    --------
    >>> import numpy as np
    >>> source = Arrays(np.zeros((3, 7, 2)), lengths=[7, 5, 6])
    >>> [values.shape for values in source.part(1, 3).read()]
    [(5, 2), (6, 2)]
    """

    def __init__(self, values: Any, lengths: Any = None) -> None:
        if isinstance(values, str | os.PathLike):
            values, lengths = _opened(os.fspath(values), lengths)
        self._values = values
        self._listed = isinstance(values, Sequence)
        if not self._listed and len(values.shape) != 3:
            raise InputError(
                f"got an array of shape {values.shape}, expected (sequence, step, feature). One "
                "sequence is recorded by es.record."
            )
        if not len(values) if self._listed else 0 in values.shape:
            raise InputError("got no sequences; expected one or more, with steps and features.")
        self._lengths = None if lengths is None else _checked(values, lengths)
        self._start, self._stop = 0, len(values) if self._listed else values.shape[0]
        self._first = 0

    @property
    def count(self) -> int:
        """Number of sequences."""
        return self._stop - self._start

    @property
    def cheap(self) -> bool:
        """The shapes are known."""
        return True

    def names(self) -> None:
        """Return None: the sequences go by their numbers."""

    def part(self, start: int, stop: int) -> "Arrays":
        """Return some of the sequences; of an array in memory, only these."""
        import zarr

        begin, end = self._start + start, self._start + stop
        found = object.__new__(Arrays)
        found.__dict__ |= self.__dict__ | {"_start": begin, "_stop": end}
        if not isinstance(self._values, zarr.Array):
            found._values = self._values[begin:end]
            found._start, found._stop = 0, stop - start
        if self._lengths is not None:
            found._lengths = self._lengths[start:stop]
        found._first = self._first + start
        return found

    def sizes(self) -> Sizes:
        """Return the size of each sequence."""
        if self._listed:
            return sizes_of(self.read())
        _, steps, features = self._values.shape
        found = np.full(self.count, steps) if self._lengths is None else self._lengths
        empty = np.flatnonzero(found == 0).tolist()
        faults = {k: f"sequence {self._first + k}: has no steps" for k in empty}
        return Sizes(found.astype(np.int64), np.where(found > 0, features, 0), faults)

    def read(self) -> list[Values | str]:
        """Return the sequences, without the steps past their lengths."""
        if self._listed:
            return [
                as_sequence(f"sequence {k}", a) for k, a in enumerate(self._values, self._first)
            ]
        block = np.asarray(self._values[self._start : self._stop])
        lengths = [block.shape[1]] * self.count if self._lengths is None else self._lengths
        return [
            as_sequence(f"sequence {k}", rows[:n])
            for k, (rows, n) in enumerate(zip(block, lengths, strict=True), self._first)
        ]


def _opened(place: str, lengths: Any) -> tuple[Any, Any]:
    """Return a Zarr array and the lengths beside it."""
    import zarr

    from everystate.storage.shared.root import Root

    try:
        found = zarr.open(Root(place).zarr_store(), mode="r")
    except (FileNotFoundError, ValueError) as error:
        raise InputError(f"{place}: cannot be opened as Zarr: {error}.") from error
    if isinstance(found, zarr.Array):
        return found, lengths
    arrays = {str(name): array for name, array in found.arrays()}
    series = [name for name, array in arrays.items() if array.ndim == 3]
    if len(series) != 1:
        raise InputError(
            f"{place}: expected one array (sequence, step, feature), there are "
            f"{', '.join(series) or 'none'} of three dimensions. Say which: {place}/NAME"
        )
    names = ("length", "lengths") if lengths is None else (lengths,)
    if lengths is None or isinstance(lengths, str):
        lengths = next((arrays[name][:] for name in names if name in arrays), None)
    return arrays[series[0]], lengths


def _checked(values: Any, lengths: Any) -> Values:
    array = np.asarray(lengths)
    count, steps = values.shape[:2]
    if array.shape != (count,) or array.dtype.kind not in "iu":
        raise InputError(
            f"lengths={lengths!r}: expected a whole number for each of {count} sequences."
        )
    if (array < 0).any() or (array > steps).any():
        raise InputError(
            f"lengths: from {array.min()} to {array.max()}, but there are {steps} steps."
        )
    return array
