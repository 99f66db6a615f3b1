"""Steps at which states change their level for good."""

from itertools import pairwise
from types import ModuleType
from typing import Final

import numpy as np
import numpy.typing as npt
import xarray as xr

from everystate import schema
from everystate.analysis.extra import extra
from everystate.analysis.layer import (
    Layer,
    by_unit,
    dataset_of,
    finite,
    in_reading_order,
    memory_state,
    unit_dim,
)

Floats = npt.NDArray[np.float64]

BUCKETS: Final = 512
"""Most stretches of equal length by whose means the levels are told."""
LEAST: Final = 20
"""A level lasts at least this part of the buckets."""
SKIPPED: Final = 10
"""This part of the row, its start, is left out: a state that starts at zero moves to its level."""


def changes(layer: Layer, row: int = 0) -> xr.Dataset:
    r"""Return the steps at which the level of a row's states changes, all units together.

    The row, without its first tenth, is cut into at most 512 buckets; their means
    :math:`x_{ku}` are scaled by their long-run deviation :math:`\lambda_u`, whose
    autocovariances :math:`\gamma_j` are estimated from differences, which a change of level hardly
    touches, up to the least length :math:`q` of a level, a twentieth:

    .. math::
        D_j = \tfrac12 \operatorname{mean}_k (x_{k+j} - x_k)^2, \qquad
        \gamma_j = D_q - D_j, \qquad
        \lambda^2 = \max\Bigl(\gamma_0,\; \gamma_0 + 2 \sum_{0<j<q} (1 - j/q) \gamma_j\Bigr)

    The changes are the cuts :math:`\tau` with the least

    .. math:: \sum_{\text{levels}} \sum_{k, u} (x_{ku} - \bar x_u)^2 / \lambda_u^2
              + 3 \, U \ln K \cdot |\tau|

    for :math:`K` buckets and :math:`U` units: three times the BIC's penalty, as units are not
    independent of one another.

    Parameters
    ----------
    layer : xarray.DataTree or xarray.Dataset
        One layer of a trace.
    row : int
        Which row of the batch, by its place.

    Returns
    -------
    xarray.Dataset
        With a dimension ``change``, of as many as were found, in reading order: ``at``, the
        place of the first recorded step of the new level, exact to a bucket; ``moved``
        (change, unit), the difference of the new level's mean from the old one's, in standard
        deviations of the unit over all steps looked at (2 at most where there are two levels of
        equal length); ``straight`` (unit), whether a straight line over the steps looked at leaves
        smaller squares than the levels do: a ramp, which has no change of level. The attributes
        ``state`` and ``bucket``, its number of recorded steps.
        No change if the row has fewer than 40 recorded steps. Empty if no state was recorded.

    Raises
    ------
    MissingDependencyError
        If ruptures is not installed (``pip install 'everystate[analysis]'``).

    Notes
    -----
    It reads the values at once: the number of changes cannot be known before. A change of the
    states is as a rule one of the input. A drift, and waves and memories longer than a twentieth
    of the row, are cut into levels too; ``straight`` tells the drifts that are a line.

    References
    ----------
    Truong, Oudre and Vayatis 2020, Selective review of offline change point detection methods
    (the package ruptures; ``KernelCPD`` with a linear kernel is exact for this cost);
    Hall and Van Keilegom 2003 (autocovariances from differences); Newey and West 1987 (the
    weights :math:`1 - j/q`).

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> c = rng.normal(size=(1, 400, 3)) + 2.0 * (np.arange(400) >= 250)[:, None]
    >>> found = changes(xr.Dataset({"c": xr.DataArray(c, dims=("batch", "time", "unit"))}))
    >>> found.at.values.tolist()
    [250]
    """
    layer = dataset_of(layer)
    name = memory_state(layer)
    if name is None:
        return xr.Dataset()
    ruptures = extra("ruptures", "finding change points")
    values = by_unit(in_reading_order(finite(layer[name]), layer))
    if schema.BATCH in values.dims:
        values = values.isel({schema.BATCH: row})
    first, size, means, deviation = _buckets(values)
    cuts = _cuts(means, ruptures)
    levels = [part.mean(axis=0) for part in np.split(means, cuts)] if len(means) else []
    shift = np.array([b - a for a, b in pairwise(levels)]).reshape(len(cuts), values.shape[-1])
    at = first + size * np.array(cuts, np.int64)
    if layer.attrs.get("direction") == "backward":
        at = values.sizes[schema.TIME] - 1 - at
    unit = unit_dim(values)
    return xr.Dataset(
        {
            "at": ("change", at),
            "moved": (("change", unit), shift / np.where(deviation > 0, deviation, np.nan)),
            "straight": (unit, _straight(means, cuts)),
        },
        {unit: values[unit].values} if unit in values.coords else {},
        {"state": name, "bucket": size},
    )


def _buckets(values: xr.DataArray) -> tuple[int, int, Floats, Floats]:
    """Return the first step, the size and the means of the buckets, and each unit's deviation."""
    there = np.flatnonzero(values.notnull().any(unit_dim(values)).values)
    if not there.size:
        return 0, 1, np.empty((0, values.shape[-1])), np.zeros(values.shape[-1])
    length = int(there[-1]) + 1 - int(there[0])
    first = int(there[0]) + length // SKIPPED
    values = values.isel({schema.TIME: slice(first, int(there[-1]) + 1)})
    size = max(1, -(-values.sizes[schema.TIME] // BUCKETS))
    if values.chunks is not None:  # whole buckets, or all of them would become one chunk
        chunk = values.chunksizes[schema.TIME][0]
        values = values.chunk({schema.TIME: max(1, chunk // size) * size})
    bare = values.drop_vars(list(values.coords))  # labels of time may be words: they have no mean
    means = bare.coarsen({schema.TIME: size}, boundary="trim").mean()
    deviation = values.std(schema.TIME)
    return first, size, np.asarray(means.values, np.float64), np.asarray(deviation.values)


def _cuts(means: Floats, ruptures: ModuleType) -> list[int]:
    """Return the buckets at which a new level begins."""
    scaled = _scaled(means[:, np.isfinite(means).all(axis=0)])
    buckets, units = scaled.shape
    if buckets < 2 * LEAST or not units:
        return []
    search = ruptures.KernelCPD(kernel="linear", min_size=buckets // LEAST).fit(scaled)
    return [int(cut) for cut in search.predict(pen=3.0 * units * np.log(buckets))[:-1]]


def _straight(means: Floats, cuts: list[int]) -> npt.NDArray[np.bool_]:
    """Return the units whose means a least-squares line fits better than levels do."""
    if not cuts:
        return np.zeros(means.shape[1], bool)
    levels = sum(((part - part.mean(axis=0)) ** 2).sum(axis=0) for part in np.split(means, cuts))
    k = np.arange(len(means)) - (len(means) - 1) / 2
    rest = means - means.mean(axis=0)
    line = rest - k[:, None] * (k @ rest) / (k @ k)
    return np.asarray((line**2).sum(axis=0) < levels, bool)


def _scaled(means: Floats) -> Floats:
    """Return the means of the units that move, by their long-run deviation."""
    q = len(means) // LEAST
    if q < 2:
        return means[:0]
    D = [((means[j:] - means[:-j]) ** 2).mean(axis=0) / 2 for j in range(1, q + 1)]
    variance = np.maximum(D[-1], D[0])
    summed = sum((1 - j / q) * (variance - D[j - 1]) for j in range(1, q))
    long_run = np.maximum(variance, variance + 2 * summed)
    moves = long_run > 0
    return np.asarray(means[:, moves] / np.sqrt(long_run[moves]))
