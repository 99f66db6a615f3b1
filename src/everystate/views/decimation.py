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
    count : ndarray, shape (buckets,)
        Finite values that the mean is over.
    """

    extremes: Floats
    mean: Floats
    low: Floats
    high: Floats
    count: Floats


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


def coarsen(fine: Decimated, buckets: int) -> Decimated:
    """Return what is kept if `buckets` buckets in a row are made one.

    It is what `decimate` would find with buckets of as many steps, so that the levels of a
    pyramid need one reading of the values; the mean to the rounding of single precision.

    Examples
    --------
    >>> h = xr.DataArray([[1.0], [5.0], [3.0], [9.0], [7.0], [8.0]], dims=("time", "unit"))
    >>> coarsen(decimate(h, 1), 3).extremes.tolist()
    [[1.0, 5.0, 9.0, 7.0]]
    """
    if buckets == 1:
        return fine
    each = fine.extremes.shape[1] // fine.mean.size
    columns = _grouped(fine.extremes.T, buckets * each)
    mean, low, high, count = (
        _grouped(part, buckets) for part in (fine.mean, fine.low, fine.high, fine.count)
    )
    total = np.nansum(count, axis=1, dtype=np.float64)
    summed = np.nansum(mean.astype(np.float64) * count, axis=1)
    return Decimated(
        _extremes(columns).astype(np.float32),
        (summed / np.where(total, total, np.nan)).astype(np.float32),
        np.asarray(np.fmin.reduce(low, axis=1)),
        np.asarray(np.fmax.reduce(high, axis=1)),
        np.asarray(total, dtype=np.float32),
    )


def _grouped(a: npt.NDArray[np.float32], size: int) -> npt.NDArray[np.float32]:
    """Return groups of `size` rows, the last filled up with NaN: shape (groups, size, ...)."""
    missing = -len(a) % size
    padded = np.pad(a, ((0, missing), *((0, 0),) * (a.ndim - 1)), constant_values=np.nan)
    return padded.reshape(-1, size, *a.shape[1:])


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
    a = np.ascontiguousarray(a.transpose(0, 2, 1))  # the last axis is searched fastest
    at_low, at_high = _places(a)
    low, high = np.fmin.reduce(a, axis=-1), np.fmax.reduce(a, axis=-1)
    rising = at_low <= at_high
    pairs = np.stack([np.where(rising, low, high), np.where(rising, high, low)], axis=-1)
    return np.asarray(pairs.transpose(1, 0, 2).reshape(a.shape[1], -1))


def _places(a: npt.NDArray[np.floating]) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    """Return where along the last axis the lowest and the highest number are."""
    missing = np.isnan(a)
    if not missing.any():
        return a.argmin(axis=-1), a.argmax(axis=-1)
    low, high = np.where(missing, np.inf, a), np.where(missing, -np.inf, a)
    return low.argmin(axis=-1), high.argmax(axis=-1)


def _band(a: npt.NDArray[np.floating]) -> npt.NDArray[np.float64]:
    """Return mean, ends of the band, and count of each bucket, shape (4, buckets)."""
    finite = np.isfinite(a)
    if finite.all():
        there = np.full(len(a), a[0].size, dtype=np.float64)
    else:
        a = np.where(finite, a, np.nan)
        there = finite.sum(axis=(1, 2), dtype=np.float64)
    mean = np.nansum(a, axis=(1, 2), dtype=np.float64) / np.where(there, there, np.nan)
    low, high = _quantiles(a)
    return np.stack([mean, np.fmin.reduce(low, axis=1), np.fmax.reduce(high, axis=1), there])


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
