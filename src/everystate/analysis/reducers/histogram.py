"""A histogram of each unit's values."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import xarray as xr

from everystate import schema
from everystate.analysis.reducers.base import Reducer, counts, finite, variable
from everystate.analysis.reducers.span import Part, Span, State, Values
from everystate.errors import SelectionError


@dataclass
class Histogram(Reducer):
    """Counts of each unit's values in bins of equal width, over rows and steps.

    Parameters
    ----------
    low, high : float
        Ends of the range. Default: -1 and 1, all that ``h`` of an LSTM can be.
    bins : int
        Number of bins. Default: 100.

    Raises
    ------
    SelectionError
        If the range is empty, or `bins` is below 1.

    Notes
    -----
    Result: ``histogram`` (unit, bin), the bins labelled by their middle; ``edge`` (edge);
    ``below`` and ``above`` (unit), the counts outside of the range. A bin holds its left edge,
    the last one both, as in `numpy.histogram`. Values that are not finite are left out.

    Examples
    --------
    >>> seen = Histogram(0.0, 1.0, bins=2)
    >>> seen.update([[[0.2]], [[0.5]], [[1.0]], [[7.0]]])
    >>> seen.result().histogram.values.tolist(), seen.result().above.item()
    ([[1, 2]], 1)
    """

    low: float = -1.0
    high: float = 1.0
    bins: int = 100

    def __post_init__(self) -> None:
        """Refuse a range without bins."""
        if not (np.isfinite([self.low, self.high]).all() and self.low < self.high):
            raise SelectionError(f"low={self.low}, high={self.high}: expected low < high.")
        if self.bins < 1:
            raise SelectionError(f"bins={self.bins}: expected 1 or more.")

    @property
    def edges(self) -> npt.NDArray[np.float64]:
        """Edges of the bins, shape (bins + 1,)."""
        return np.linspace(self.low, self.high, self.bins + 1)

    def _of(self, block: Values, span: Span) -> State:
        places = self.bins + 2  # below, the bins, above
        x = finite(block)
        place = np.searchsorted(self.edges, x, side="right")
        place[x == self.high] = self.bins
        place += np.arange(span.units) * places
        found = np.bincount(place[~np.isnan(x)], minlength=span.units * places)
        return {"counts": found.reshape(span.units, places)}

    def _joined(self, a: Part, b: Part, *, seam: bool) -> State:
        return {"counts": a["counts"] + b["counts"]}

    def _labelled(self, seen: Part) -> xr.Dataset:
        found, edges = seen["counts"], self.edges
        middle = (edges[:-1] + edges[1:]) / 2
        return xr.Dataset(
            {
                "histogram": variable(
                    found[:, 1:-1],
                    (schema.UNIT, "bin"),
                    "number of values in the bin",
                    schema.UNITS,
                ),
                "below": counts(found[:, 0], f"values below {self.low:g}"),
                "above": counts(found[:, -1], f"values above {self.high:g}"),
            },
            {
                "bin": variable(middle, ("bin",), "middle of the bin", schema.UNITS),
                "edge": variable(edges, ("edge",), "edge of a bin", schema.UNITS),
            },
        )
