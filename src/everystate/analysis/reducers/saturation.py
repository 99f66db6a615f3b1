"""How many values of each unit lie at the ends of a gate's range."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
import xarray as xr

from everystate import schema
from everystate.analysis.layer import gates_of
from everystate.analysis.reducers.base import Reducer, by_unit, counts, finite, variable
from everystate.analysis.reducers.span import Part, Span, State, Values
from everystate.analysis.saturation import range_of

EDGE: Final = 0.1
"""What counts as close to an end, as a distance from it."""


@dataclass
class Saturation(Reducer):
    """Counts of values close to either end of a range, over rows and steps.

    Given to `everystate.record` as ``reduce=`` it finds the same shares as
    `everystate.analysis.saturation.saturation`, in one pass: those of each gate within its own
    range, and none of states, and of gates whose activation has no ends.

    Parameters
    ----------
    low, high : float, optional
        Left-saturated is below `low`, right-saturated above `high`, whichever variable it is, also
        a state. Default: of a recording, 0.1 from the ends of each gate's own range (a candidate's
        are -1 and 1); of a reducer that is fed by hand 0.1 and 0.9, those of a gate of 0 to 1.

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

    low: float | None = None
    high: float | None = None

    def suits(self, variable: str, attrs: Mapping[str, object]) -> bool:
        """Take on the range of a variable, unless one was given; return whether there is one.

        Parameters
        ----------
        variable : str
            A state or gate.
        attrs : mapping
            The attributes of its layer, as in a trace.
        """
        if self.low is not None or self.high is not None:
            return True
        is_gate = variable in gates_of(str(attrs.get("cell")))
        ends = range_of(variable, attrs) if is_gate else None
        if ends is not None:
            self.low, self.high = ends[0] + EDGE, ends[1] - EDGE
        return ends is not None

    @property
    def _ends(self) -> tuple[float, float]:
        low, high = self.low, self.high
        return EDGE if low is None else low, 1.0 - EDGE if high is None else high

    def _of(self, block: Values, span: Span) -> State:
        x = by_unit(finite(block)).reshape(span.units, -1)
        low, high = self._ends
        found = {"n": np.isfinite(x), "left": x < low, "right": x > high}
        return {name: held.sum(axis=1) for name, held in found.items()}

    def _joined(self, a: Part, b: Part, *, seam: bool) -> State:
        return {name: a[name] + b[name] for name in ("n", "left", "right")}

    def _labelled(self, seen: Part) -> xr.Dataset:
        n = np.where(seen["n"] > 0, seen["n"], np.nan)
        low, high = self._ends
        places = {"left": f"below {low:g}", "right": f"above {high:g}"}
        found = {"count": counts(seen["n"])}
        for name, place in places.items():
            found[f"{name}_count"] = counts(seen[name], f"values {place}")
            share = seen[name] / n
            found[name] = variable(share, (schema.UNIT,), f"share of values {place}", schema.UNITS)
        return xr.Dataset(found)
