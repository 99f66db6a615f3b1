"""Quantiles of each unit's values, from a sketch."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import xarray as xr

from everystate import schema
from everystate.analysis.reducers.base import Reducer, counts, finite, variable
from everystate.analysis.reducers.span import Part, Span, State, Values
from everystate.errors import MissingDependencyError, SelectionError


@dataclass
class Quantiles(Reducer):
    r"""Quantiles of each unit's values over rows and steps, by a KLL sketch of Apache DataSketches.

    The value given for :math:`q` is one of those seen whose rank, the share of values not above
    it, is off by at most ``rank_error`` with a probability of 99 %. Up to `k` values are kept as
    they are, and the result is exact.

    Parameters
    ----------
    q : tuple of float
        Which quantiles, from 0 to 1. Default: 0.01, 0.25, 0.5, 0.75 and 0.99.
    k : int
        Size of the sketch, 8 to 65,535. 200 has a rank error of 1.33 %, 800 one of 0.35 %, and
        keeps about 3 `k` values of 8 bytes for each unit. Default: 800.

    Raises
    ------
    SelectionError
        If a quantile or `k` is out of its range.
    MissingDependencyError
        If the package datasketches is not installed.

    Notes
    -----
    Result: ``quantiles`` (q, unit), NaN without a value; ``count`` (unit); ``rank_error`` ().
    Values that are not finite are left out. The sketch throws coins: two runs may give other
    values, within the bound.

    References
    ----------
    Karnin, Lang and Liberty 2016, Optimal quantile approximation in streams (arXiv:1603.05346);
    https://datasketches.apache.org/docs/KLL/KLLSketch.html

    Examples
    --------
    >>> seen = Quantiles(q=(0.5,))
    >>> seen.update(np.arange(101.0).reshape(101, 1, 1))
    >>> seen.result().quantiles.values.tolist()
    [[50.0]]
    """

    q: tuple[float, ...] = (0.01, 0.25, 0.5, 0.75, 0.99)
    k: int = 800

    def __post_init__(self) -> None:
        """Refuse what is no quantile, and a sketch that cannot be."""
        self.q = tuple(float(each) for each in self.q)
        if not self.q or not all(0 <= each <= 1 for each in self.q):
            raise SelectionError(f"q={self.q}: expected numbers from 0 to 1.")
        if not 8 <= self.k <= 65535:
            raise SelectionError(f"k={self.k}: expected 8 to 65,535.")
        _kll()

    def _of(self, block: Values, span: Span) -> State:
        x = finite(block).reshape(-1, span.units)
        sketches = [_kll()(self.k) for _ in range(span.units)]
        for sketch, values in zip(sketches, np.ascontiguousarray(x.T), strict=True):
            sketch.update(values)  # NaN is left out by the sketch itself
        return _stored(sketches)

    def _joined(self, a: Part, b: Part, *, seam: bool) -> State:
        sketches, others = _sketches(a), _sketches(b)
        for sketch, other in zip(sketches, others, strict=True):
            sketch.merge(other)
        return _stored(sketches)

    def _labelled(self, seen: Part) -> xr.Dataset:
        sketches = _sketches(seen)
        none = [np.nan] * len(self.q)
        found = [none if s.is_empty() else s.get_quantiles(list(self.q), True) for s in sketches]
        error = _kll().get_normalized_rank_error(self.k, False)
        return xr.Dataset(
            {
                "quantiles": variable(np.transpose(found), ("q", schema.UNIT), "quantile", "1"),
                "count": counts([s.n for s in sketches]),
                "rank_error": variable(error, (), "bound of the rank's error, at 99 %", "1"),
            },
            {"q": variable(self.q, ("q",), "share of values not above", schema.UNITS)},
        )


def _kll() -> Any:
    """Return the sketch's class."""
    try:
        from datasketches import kll_doubles_sketch
    except ModuleNotFoundError as error:
        raise MissingDependencyError(
            "quantiles in one pass need the package datasketches: pip install 'everystate[scale]'. "
            "A Histogram needs nothing."
        ) from error
    return kll_doubles_sketch


def _stored(sketches: list[Any]) -> State:
    """Return sketches as bytes, one behind the other, and where each ends."""
    parts = [sketch.serialize() for sketch in sketches]
    data: npt.NDArray[np.uint8] = np.frombuffer(b"".join(parts), dtype=np.uint8)
    return {"sketches": data, "ends": np.cumsum([len(part) for part in parts])}


def _sketches(part: Part) -> list[Any]:
    data, stops = part["sketches"].tobytes(), part["ends"].tolist()
    starts = [0, *stops[:-1]]
    return [_kll().deserialize(data[a:b]) for a, b in zip(starts, stops, strict=True)]
