"""Whether states keep growing over time."""

from collections.abc import Callable, Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import xarray as xr

from everystate import schema
from everystate.analysis.layer import (
    Layer,
    dataset_of,
    finite,
    in_reading_order,
    memory_state,
    steps,
)

Floats = npt.NDArray[np.float64]

MEASURES: Final = ("slope", "level", "relative", "ratio")


def drift(layer: Layer, shortest: int = 100) -> xr.Dataset:
    r"""Return how the size of the state changes over time, row by row.

    With :math:`m_t`, the mean of :math:`|c_t|` over the units (of :math:`|h_t|`, or of the first
    recorded state, where there is no ``c``), and :math:`t` in steps:

    .. math::
        \text{slope} = \frac{\sum_t (t - \bar t)(m_t - \bar m)}{\sum_t (t - \bar t)^2}, \qquad
        \text{relative} = \text{slope} / \bar m, \qquad
        \text{ratio} = \frac{\text{mean of } m \text{ over the last tenth of the steps}}
                            {\text{mean of } m \text{ over the first tenth}}

    the slope being that of the least-squares line.

    Parameters
    ----------
    layer : xarray.DataTree or xarray.Dataset
        One layer of a trace.
    shortest : int
        Rows that span fewer steps get NaN: a state that starts at zero grows at first, and in a
        short sequence that start is all there is to see.

    Returns
    -------
    xarray.Dataset
        ``slope``, ``level`` (:math:`\bar m`), ``relative`` and ``ratio``, each (batch); the
        attribute ``state`` names the state. NaN for a row shorter than `shortest`. A tenth is at
        least one step. Empty if no state was recorded.

    Notes
    -----
    Time runs as the layer reads: in a layer that reads backwards the first tenth is at the end
    of the sequence. Steps are those of the ``time`` coordinate (`everystate.analysis.layer.steps`).

    A ratio above 1 is no sign of trouble while the start is a good part of the sequence; a steady
    slope over thousands of steps is. A straight line says nothing of *when* the growth began. A
    few huge units can carry the mean.

    Examples
    --------
    >>> growing = np.linspace(1.0, 3.0, 101).reshape(1, 101, 1)
    >>> c = xr.DataArray(growing, dims=("batch", "time", "unit"))
    >>> found = drift(xr.Dataset({"c": c}))
    >>> [round(found[name].item(), 3) for name in ("slope", "level", "relative", "ratio")]
    [0.02, 2.0, 0.01, 2.67]
    """
    return of_size(layer, _trend, MEASURES, shortest=shortest)


def of_size(
    layer: Layer, function: Callable[..., Floats], measures: Sequence[str], **options: Any
) -> xr.Dataset:
    """Return what a function makes of each row's `size_over_time`.

    Parameters
    ----------
    layer : xarray.DataTree or xarray.Dataset
        One layer of a trace.
    function : callable
        Called with sizes (..., time), the steps they go with (time,), and `options`; returns
        (..., measures).
    measures : sequence of str
        What to call these.

    Returns
    -------
    xarray.Dataset
        Each measure (batch); the attribute ``state`` names the state. Empty if none was recorded.
    """
    layer = dataset_of(layer)
    name = memory_state(layer)
    if name is None:
        return xr.Dataset()
    found = xr.apply_ufunc(
        function,
        size_over_time(layer),
        steps_read(layer),
        kwargs=options,
        input_core_dims=[[schema.TIME], [schema.TIME]],
        output_core_dims=[["measure"]],
        dask="parallelized",
        dask_gufunc_kwargs={"output_sizes": {"measure": len(measures)}},
        output_dtypes=[np.float64],
    )
    result = {measure: found.isel(measure=k) for k, measure in enumerate(measures)}
    return xr.Dataset(result, attrs={"state": name})


def size_over_time(layer: xr.Dataset) -> xr.DataArray:
    """Return the mean size of the memory state over the units, step by step as the layer reads.

    Parameters
    ----------
    layer : xarray.Dataset
        One layer of a trace, with a state.

    Returns
    -------
    xarray.DataArray
        (batch, time): :math:`m_t` of `drift`, in one chunk over time.
    """
    name = memory_state(layer)
    assert name is not None
    size = abs(finite(layer[name]))
    size = size.mean([dim for dim in size.dims if dim not in (schema.BATCH, schema.TIME)])
    if size.chunks is not None:
        size = size.chunk({schema.TIME: -1})
    return in_reading_order(size, layer)


def steps_read(layer: xr.Dataset) -> xr.DataArray:
    """Return the steps that go with `size_over_time`, rising: negative where it reads backwards."""
    at = steps(layer)
    return -at[::-1] if layer.attrs.get("direction") == "backward" else at


def _trend(size: npt.NDArray[np.floating], at: Floats, shortest: int) -> Floats:
    """Return slope, level, relative slope and ratio of series of shape (..., time)."""
    m = size.astype(np.float64)
    there = np.isfinite(m)
    count = there.sum(axis=-1)
    level = _mean(m, there)
    t = np.where(there, at - _mean(np.broadcast_to(at, m.shape), there)[..., None], 0.0)
    span = t.max(axis=-1, initial=0.0) - t.min(axis=-1, initial=0.0) + 1
    slope = _over((t * np.where(there, m - level[..., None], 0.0)).sum(-1), (t * t).sum(-1))
    rank = there.cumsum(axis=-1) - 1
    tenth = np.maximum(1, count // 10)[..., None]
    first = _mean(m, there & (rank < tenth))
    last = _mean(m, there & (rank >= count[..., None] - tenth))
    found = np.stack([slope, level, _over(slope, level), _over(last, first)], axis=-1)
    return np.where((span >= shortest)[..., None], found, np.nan)


def _mean(values: Floats, where: npt.NDArray[np.bool_]) -> Floats:
    return _over(np.where(where, values, 0.0).sum(axis=-1), where.sum(axis=-1))


def _over(a: Floats, b: npt.NDArray[np.generic]) -> Floats:
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(np.divide(a, b), dtype=np.float64)
