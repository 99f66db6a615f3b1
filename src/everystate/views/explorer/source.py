"""What the explorer shows of one variable: any stretch of steps, at the width of a screen.

A short stretch is read from the trace as it is asked for. A long one comes from a level of
coarser buckets, which is made block by block, in passing: until all of it was read, what is
missing is shown as missing, and nothing of the record is ever in memory as a whole.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

import numpy as np
import numpy.typing as npt
import xarray as xr

from everystate import schema
from everystate.views.decimation import Decimated, bucket_size, coarsen, decimate

Values = npt.NDArray[np.floating]
Read = Callable[[int, int], Values]
"""Gets the positions of the first step and of the one after the last, returns (time, unit)."""

DIRECT: Final = 1 << 22
"""Values up to which a stretch is read when it is asked for: 16 MB in single precision."""
LEVEL_VALUES: Final = 1 << 24
"""About how many values the coarse level has: 64 MB."""
COARSEST: Final = 16
"""Steps of a bucket of the coarse level, at least."""


def reader(layer: xr.Dataset, name: str) -> Read:
    """Return what reads a variable of one row of a layer."""
    values = layer[name].transpose(schema.TIME, ...)

    def read(first: int, last: int) -> Values:
        return np.asarray(values.isel({schema.TIME: slice(first, last)}).values)

    return read


def difference(a: Read, b: Read) -> Read:
    """Return what reads the first minus the second."""

    def read(first: int, last: int) -> Values:
        return a(first, last) - b(first, last)

    return read


@dataclass(frozen=True, eq=False)
class Stretch:
    """Some steps of a variable, decimated.

    Parameters
    ----------
    values : Decimated
        Extremes, mean and band.
    first, size : int
        Position of the first step, and steps of a bucket.
    """

    values: Decimated
    first: int
    size: int

    @property
    def ends(self) -> tuple[float, float]:
        """Where the columns begin and end, half a step beyond the first and last step."""
        return self.first - 0.5, self.first + self.size * self.values.mean.size - 0.5

    @property
    def middles(self) -> npt.NDArray[np.float64]:
        """The middle of each column, as a position."""
        count = self.values.extremes.shape[1]
        left, right = self.ends
        return np.asarray(left + (np.arange(count) + 0.5) * (right - left) / count)


@dataclass(eq=False)
class Source:
    """One variable of one row.

    Parameters
    ----------
    read : callable
        Reads steps.
    steps, width : int
        Recorded steps, and units of each.
    """

    read: Read
    steps: int
    width: int
    size: int = field(init=False)
    """Steps of a bucket of the coarse level."""
    _blocks: list[Decimated] = field(init=False, default_factory=list)

    def __post_init__(self) -> None:
        """Choose the coarse level for the steps there are; a record that grows keeps it."""
        self.size = max(COARSEST, -(-2 * self.steps * self.width // LEVEL_VALUES))

    @property
    def block(self) -> int:
        """Steps that are read at a time."""
        return max(1, DIRECT // (self.size * self.width)) * self.size

    @property
    def done(self) -> float:
        """Share of the record that the coarse level has, the last part of a block apart."""
        blocks = self.steps // self.block
        return 1.0 if self._is_short(self.steps) or not blocks else len(self._blocks) / blocks

    def work(self) -> bool:
        """Read one more block; return whether there is still one to read."""
        if self.done < 1.0:
            first = len(self._blocks) * self.block
            self._blocks.append(self._decimated(first, first + self.block, self.size))
        return self.done < 1.0

    def stretch(self, first: int, last: int, columns: int) -> Stretch:
        """Return the steps from `first` up to `last` in at most about so many columns."""
        first, last = max(0, first), min(self.steps, last)
        size = bucket_size(last - first, columns)
        if self._is_short(last - first):
            return Stretch(self._decimated(first, last, size), first, size)
        start, stop = first // self.size, -(-last // self.size)
        found = self._buckets(start, stop)
        together = max(1, -(-2 * (stop - start) // columns))
        return Stretch(coarsen(found, together), start * self.size, self.size * together)

    def _is_short(self, steps: int) -> bool:
        return steps * self.width <= DIRECT

    def _decimated(self, first: int, last: int, size: int) -> Decimated:
        values = xr.DataArray(self.read(first, last), dims=(schema.TIME, schema.UNIT))
        return decimate(values, size)

    def _buckets(self, start: int, stop: int) -> Decimated:
        """Return buckets of the coarse level, NaN where it was not read yet."""
        each = self.block // self.size
        parts = [
            self._blocks[k] if k < len(self._blocks) else self._missing(each)
            for k in range(start // each, -(-stop // each))
        ]
        tail = self.steps // self.block
        if (stop - 1) // each >= tail:  # the last block, which is not whole
            parts[-1] = self._decimated(tail * self.block, self.steps, self.size)
        shift = start // each * each
        return _joined(parts, slice(start - shift, stop - shift))

    def _missing(self, buckets: int) -> Decimated:
        one = np.full(buckets, np.nan, dtype=np.float32)
        return Decimated(np.full((self.width, 2 * buckets), np.nan, np.float32), *(one,) * 4)


def _joined(parts: list[Decimated], buckets: slice) -> Decimated:
    columns = slice(2 * buckets.start, 2 * buckets.stop)
    extremes = np.concatenate([part.extremes for part in parts], axis=1)[:, columns]
    names = ("mean", "low", "high", "count")
    rest = [np.concatenate([getattr(part, name) for part in parts])[buckets] for name in names]
    return Decimated(extremes, *rest)
