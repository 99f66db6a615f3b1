"""How many values of each unit lie at the ends of a gate's range."""

from dataclasses import dataclass

import numpy as np
import xarray as xr

from everystate import schema
from everystate.analysis.reducers.base import Reducer, by_unit, counts, finite, variable
from everystate.analysis.reducers.span import Part, Span, State, Values


@dataclass
class Saturation(Reducer):
    """Counts of values close to either end of a range, over rows and steps.

    The same shares as `everystate.analysis.saturation.saturation`, in one pass.

    Parameters
    ----------
    low, high : float
        Left-saturated is below `low`, right-saturated above `high`. Default: 0.1 and 0.9, for a
        gate of range 0 to 1; of a candidate they are -0.9 and 0.9.

    Notes
    -----
    Result: ``count``, ``left_count`` and ``right_count``, and the shares ``left`` and ``right``,
    each (unit). Shares are NaN without a value. Values that are not finite are left out.

    References
    ----------
    Karpathy, Johnson and Fei-Fei 2015, Visualizing and understanding recurrent networks,
    section 4.2 (arXiv:1506.02078).

    Examples
    --------
    >>> gate = Saturation()
    >>> gate.update([[[0.05]], [[0.95]], [[0.99]], [[0.5]]])
    >>> gate.result().left.item(), gate.result().right.item()
    (0.25, 0.5)
    """

    low: float = 0.1
    high: float = 0.9

    def _of(self, block: Values, span: Span) -> State:
        x = by_unit(finite(block)).reshape(span.units, -1)
        found = {"n": np.isfinite(x), "left": x < self.low, "right": x > self.high}
        return {name: held.sum(axis=1) for name, held in found.items()}

    def _joined(self, a: Part, b: Part, *, seam: bool) -> State:
        return {name: a[name] + b[name] for name in ("n", "left", "right")}

    def _labelled(self, seen: Part) -> xr.Dataset:
        n = np.where(seen["n"] > 0, seen["n"], np.nan)
        places = {"left": f"below {self.low:g}", "right": f"above {self.high:g}"}
        found = {"count": counts(seen["n"])}
        for name, place in places.items():
            found[f"{name}_count"] = counts(seen[name], f"values {place}")
            share = seen[name] / n
            found[name] = variable(share, (schema.UNIT,), f"share of values {place}", schema.UNITS)
        return xr.Dataset(found)
