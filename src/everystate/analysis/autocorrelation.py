"""How long states stay like themselves."""

from typing import Final

import numpy as np
import numpy.typing as npt
import xarray as xr

from everystate import schema
from everystate.analysis import layer as layer_module
from everystate.analysis.layer import (
    Layer,
    by_unit,
    dataset_of,
    finite,
    in_reading_order,
    memory_state,
    steps,
)

Floats = npt.NDArray[np.float64]

SHARE_OF_ROW: Final = 4
"""Lags go up to this part of a row: beyond it few pairs are left, and the mean distorts them."""


def decorrelation(layer: Layer, longest: int | None = None) -> xr.Dataset:
    r"""Return after how many steps the autocorrelation of each unit's state has fallen to a half.

    With the deviations :math:`d_t` from the mean over a row, over all pairs of steps that are
    :math:`k` apart, in all rows:

    .. math::
        r_k = \frac{\operatorname{mean}_t d_t d_{t+k}}{\operatorname{mean}_t d_t^2}, \qquad
        \text{half} = \text{the least } k \text{ (interpolated) with } r_k = 1/2

    A state that decays by the share :math:`f` at each step, and is fed noise, has
    :math:`r_k = f^k`, and so the half-life of `everystate.analysis.memory.half_life`. Measured on
    the state itself, it also counts what comes back through the recurrent weights, and what the
    input itself is like: a slow input makes a slow state.

    Parameters
    ----------
    layer : xarray.DataTree or xarray.Dataset
        One layer of a trace.
    longest : int, optional
        Of longer rows the last so many recorded steps count: the start is left behind, and a
        recording larger than memory is never held as a whole. None: 65,536, divided among the
        rows, but 1,024 at least.

    Returns
    -------
    xarray.Dataset
        ``half`` (unit), in steps of the model, of ``c``, or ``h``, or the first state: infinite
        where the autocorrelation stays above a half over a quarter of the row, as far as it is
        looked at; NaN for a unit that never moves, or of fewer than eight steps. The attribute
        ``state`` names the state, ``lags`` is the number of steps looked at. Empty if no state
        was recorded.

    Notes
    -----
    The mean is that of the same row, which pulls :math:`r_k` down by about the share of the row
    that the memory takes: times beyond a twentieth of a row are too short by a tenth and more.
    A state that does nothing but rise comes out at a fifth of the row: longer times cannot be
    told, and drift makes any time out of the memory. In a periodic state the time is a sixth of
    the period (:math:`\cos(2\pi/6) = 1/2`), whatever the memory.

    References
    ----------
    Box, Jenkins, Reinsel and Ljung 2015, Time Series Analysis, section 2.1.5 (the estimate; they
    divide by the length throughout, here each lag is divided by its own number of pairs).

    Examples
    --------
    >>> turn = np.cos(2 * np.pi * np.arange(240) / 24).reshape(1, 240, 1)
    >>> c = xr.DataArray(turn, dims=("batch", "time", "unit"))
    >>> decorrelation(xr.Dataset({"c": c})).half.round(0).values.tolist()
    [4.0]
    """
    layer = dataset_of(layer)
    name = memory_state(layer)
    if name is None:
        return xr.Dataset()
    values = by_unit(in_reading_order(finite(layer[name]), layer))
    if schema.BATCH not in values.dims:
        values = values.expand_dims(schema.BATCH)
    longest = longest or max(1024, 4 * layer_module.SAMPLES // max(1, values.sizes[schema.BATCH]))
    values = values.isel({schema.TIME: slice(-longest, None)})
    if values.chunks is not None:
        values = values.chunk({schema.TIME: -1, schema.BATCH: -1})
    at = steps(values).values
    stride = float(np.median(abs(np.diff(at)))) if at.size > 1 else 1.0
    lags = values.sizes[schema.TIME] // SHARE_OF_ROW
    half = xr.apply_ufunc(
        _half,
        values,
        kwargs={"lags": int(lags * stride)},
        input_core_dims=[[schema.BATCH, schema.TIME]],
        vectorize=True,
        dask="parallelized",
        output_dtypes=[np.float64],
    )
    half = (half * stride).assign_attrs(long_name="half-time of autocorrelation", units="step")
    return xr.Dataset({"half": half}, attrs={"state": name, "lags": int(lags * stride)})


def _half(values: Floats, lags: int) -> float:
    """Return the lag at which the autocorrelation of (batch, time) crosses a half."""
    there = np.isfinite(values)
    if lags < 2 or not there.any():
        return np.nan
    count = there.sum(axis=1, keepdims=True)
    mean = np.where(there, values, 0.0).sum(axis=1, keepdims=True) / np.maximum(count, 1)
    d = np.where(there, values - mean, 0.0)
    pairs = _products(there.astype(np.float64), lags)
    r = _products(d, lags) / np.maximum(pairs.round(), 1.0)
    if not r[0] > 1e-12 * (1.0 + float((mean**2).max())):
        return np.nan
    r, enough = r / r[0], pairs >= 0.5
    below = np.flatnonzero((r < 0.5) & enough)
    if not below.size:
        return np.inf
    k = int(below[0])
    return float(k - 1 + (r[k - 1] - 0.5) / (r[k - 1] - r[k]))


def _products(d: Floats, lags: int) -> Floats:
    """Return the sum over rows and steps of ``d[t] * d[t + k]`` for k = 0 ... lags, by FFT."""
    size = 1 << int(2 * d.shape[1] - 1).bit_length()
    power = np.zeros(size // 2 + 1)
    for row in d:  # one at a time: the transforms of a large batch need not fit into memory
        power += np.abs(np.fft.rfft(row, size)) ** 2
    return np.asarray(np.fft.irfft(power, size)[: lags + 1])
