"""States beside labels: what a step is known to be, and what its states say of it.

Samples are ordered row by row and, within a row, by time, so that what is near in this order is
near in time, and a shift of labels along it keeps how smooth they are.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import xarray as xr

from everystate import schema
from everystate.analysis.features import COLUMN, Floats, features, within
from everystate.analysis.layer import Layer
from everystate.errors import AnalysisError


def labelled_states(
    layer: Layer, labels: Any, variables: str | Sequence[str]
) -> tuple[xr.DataArray, npt.NDArray[Any]]:
    """Return the states of the steps that count, and their labels.

    Parameters
    ----------
    layer : xarray.DataTree or xarray.Dataset
        One layer of a trace.
    labels : array-like
        One label for each row and step, or for each step alone, which then holds for every row.
        A step whose label is NaN does not count. Whole numbers that are all 0 or 1 are truth
        values.
    variables : str or sequence of str
        See `everystate.analysis.features.features`.

    Returns
    -------
    states : xarray.DataArray
        (sample, column), float64.
    labels : ndarray, shape (samples,)

    Raises
    ------
    AnalysisError
        If the labels have another shape, or are all the same.

    Examples
    --------
    >>> h = xr.DataArray(np.arange(6.0).reshape(1, 3, 2), dims=("batch", "time", "unit"))
    >>> states, labels = labelled_states(xr.Dataset({"h": h}), [0.5, np.nan, 1.5], "h")
    >>> states.values.tolist(), labels.tolist()
    ([[0.0, 1.0], [4.0, 5.0]], [0.5, 1.5])
    """
    table = features(layer, variables).where(within(layer)).transpose(..., schema.TIME, COLUMN)
    shape = table.shape[:-1]
    if isinstance(labels, xr.DataArray):
        labels = labels.transpose(..., schema.TIME)
    y = np.asarray(labels)
    if y.shape not in (shape, shape[-1:]):
        raise AnalysisError(
            f"the labels have shape {y.shape}, the steps {shape}, as {table.dims[:-1]}. Pass one "
            f"label for each step."
        )
    x = table.values.reshape(-1, table.sizes[COLUMN]).astype(np.float64)
    y = np.broadcast_to(y, shape).reshape(-1)
    known = np.isfinite(x).all(axis=1)
    if np.issubdtype(y.dtype, np.floating):
        known &= ~np.isnan(y)
    x, y = x[known], y[known]
    if np.issubdtype(y.dtype, np.integer) and np.isin(y, (0, 1)).all():
        y = y.astype(bool)
    if y.size == 0 or (y == y[0]).all():
        raise AnalysisError(f"all of the {y.size} steps that count have the same label")
    names = {name: table[name] for name in ("variable", schema.UNIT)}
    return xr.DataArray(x, names, dims=("sample", COLUMN)), y


def shifts_of(size: int, count: int, least: int, seed: int) -> npt.NDArray[np.int64]:
    """Return random distances to shift labels by, from `least` on in either direction.

    Raises
    ------
    AnalysisError
        If there is no such distance.

    Examples
    --------
    >>> shifts_of(10, 3, least=4, seed=0).tolist()
    [6, 4, 5]
    """
    possible = np.arange(least, size - least + 1)
    if not possible.size:
        raise AnalysisError(
            f"{size} steps are too few to shift labels by at least {least} in either direction"
        )
    return np.random.default_rng(seed).permutation(possible)[:count]


def p_value(own: npt.ArrayLike, controls: Floats) -> npt.NDArray[np.float64]:
    r"""Return :math:`(1 + \#\{\text{control} \ge \text{own}\}) / (1 + \#\text{controls})`."""
    beaten = (controls >= np.asarray(own)[..., None]).sum(axis=-1)
    return np.asarray((1 + beaten) / (1 + controls.size))
