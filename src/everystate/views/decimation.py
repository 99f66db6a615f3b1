"""Fewer points than steps, and no extreme lost.

A long series is cut into buckets of equally many steps. Each bucket keeps its lowest and its
highest value, in the order in which they occurred, so that a line or an image through them
covers what one through all steps would (the min-max part of Jugel et al. 2014, M4,
doi:10.14778/2732951.2732953). Values are read block by block: a trace on disk is never in
memory as a whole.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
import xarray as xr

from everystate import schema

Floats = npt.NDArray[np.float32]

BLOCK_VALUES: Final = 1 << 22
"""Values read at a time, at least one bucket: 16 MB in single precision."""
BAND: Final = (0.1, 0.9)
"""Quantiles over the units between which the band is drawn."""


@dataclass(frozen=True, eq=False)
class Decimated:
    """What is kept of one variable.

    Parameters
    ----------
    extremes : ndarray, shape (units, columns)
        Every value, if a bucket is one step; else two columns for each bucket, its lowest and
        highest value in the order in which they occurred. NaN where a bucket has no number.
    mean : ndarray, shape (buckets,)
        Over the units and the steps of the bucket.
    low, high : ndarray, shape (buckets,)
        The `BAND` over the units at each step: the lowest of its lower ends in the bucket, and
        the highest of its upper ends.
    """

    extremes: Floats
    mean: Floats
    low: Floats
    high: Floats


def bucket_size(steps: int, columns: int) -> int:
    """Return how many steps a bucket must have for at most `columns` columns to be drawn."""
    return 1 if steps <= columns else -(-steps // (columns // 2))


def decimate(values: xr.DataArray, size: int) -> Decimated:
    """Decimate one variable.

    Parameters
    ----------
    values : xarray.DataArray
        Dimensions ``time`` and one of units or features.
    size : int
        Steps of a bucket; the last one may have fewer.

    Returns
    -------
    Decimated

    Examples
    --------
    >>> h = xr.DataArray([[1.0], [5.0], [3.0], [9.0], [7.0], [8.0]], dims=("time", "unit"))
    >>> decimate(h, 3).extremes.tolist()
    [[1.0, 5.0, 9.0, 7.0]]
    """
    parts = [_of_block(block) for block in _blocks(values, size)]
    extremes, bands = zip(*parts, strict=True)
    return Decimated(np.concatenate(extremes, axis=1), *np.concatenate(bands, axis=1))


def _blocks(values: xr.DataArray, size: int) -> Iterator[npt.NDArray[np.floating]]:
    """Yield blocks of shape (buckets, size, units), the last bucket filled up with NaN."""
    width = values.sizes[next(dim for dim in values.dims if dim != schema.TIME)]
    rows = max(1, BLOCK_VALUES // (size * width)) * size
    for start in range(0, values.sizes[schema.TIME], rows):
        block = values.isel({schema.TIME: slice(start, start + rows)})
        a = np.asarray(block.transpose(schema.TIME, ...).values)
        a = a.astype(np.promote_types(a.dtype, np.float32), copy=False)
        missing = -a.shape[0] % size
        if missing:
            a = np.pad(a, ((0, missing), (0, 0)), constant_values=np.nan)
        yield a.reshape(-1, size, width)


def _of_block(a: npt.NDArray[np.floating]) -> tuple[Floats, Floats]:
    with np.errstate(over="ignore"):  # float64 beyond the range of float32 is drawn as infinite
        return _extremes(a).astype(np.float32), _band(a).astype(np.float32)


def _extremes(a: npt.NDArray[np.floating]) -> npt.NDArray[np.floating]:
    if a.shape[1] == 1:
        return a[:, 0].T
    low, high = np.fmin.reduce(a, axis=1), np.fmax.reduce(a, axis=1)
    there = ~np.isnan(a)
    at_low = np.where(there, a, np.inf).argmin(axis=1)
    at_high = np.where(there, a, -np.inf).argmax(axis=1)
    rising = at_low <= at_high
    pairs = np.stack([np.where(rising, low, high), np.where(rising, high, low)], axis=1)
    return np.asarray(pairs.reshape(-1, a.shape[2]).T)


def _band(a: npt.NDArray[np.floating]) -> npt.NDArray[np.float64]:
    """Return mean, lower and upper end of the band of each bucket, shape (3, buckets)."""
    finite = np.where(np.isfinite(a), a, np.nan)
    there = (~np.isnan(finite)).sum(axis=(1, 2))
    mean = np.nansum(finite, axis=(1, 2), dtype=np.float64) / np.where(there, there, np.nan)
    low, high = _quantiles(finite)
    return np.stack([mean, np.fmin.reduce(low, axis=1), np.fmax.reduce(high, axis=1)])


def _quantiles(a: npt.NDArray[np.floating]) -> list[npt.NDArray[np.floating]]:
    """Return the `BAND` over the last axis, NaN left out; sorting beats `numpy.nanquantile`."""
    ordered = np.sort(a, axis=-1)  # NaN last
    last = (~np.isnan(a)).sum(axis=-1, keepdims=True) - 1
    found = []
    for q in BAND:
        place = q * np.maximum(last, 0)
        under = np.floor(place).astype(np.int64)
        over = np.minimum(under + 1, np.maximum(last, 0))
        below = np.take_along_axis(ordered, under, axis=-1)
        above = np.take_along_axis(ordered, over, axis=-1)
        found.append((below + (above - below) * (place - under))[..., 0])
    return found
