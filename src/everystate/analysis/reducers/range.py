"""Least and largest value of each unit."""

from dataclasses import dataclass

import numpy as np
import xarray as xr

from everystate import schema
from everystate.analysis.reducers.base import Reducer, by_unit, finite, variable
from everystate.analysis.reducers.span import Part, Span, State, Values


@dataclass
class Range(Reducer):
    """The least and the largest of each unit's values, over rows and steps.

    Result: ``min`` and ``max``, each (unit), NaN without a value. Values that are not finite are
    left out.

    Examples
    --------
    >>> seen = Range()
    >>> seen.update([[[0.5, np.nan], [-2.0, np.nan]]])
    >>> seen.result()["min"].values, seen.result()["max"].values
    (array([-2., nan]), array([0.5, nan]))
    """

    def _of(self, block: Values, span: Span) -> State:
        x = by_unit(finite(block)).reshape(span.units, -1)
        return {"min": np.fmin.reduce(x, axis=1), "max": np.fmax.reduce(x, axis=1)}

    def _joined(self, a: Part, b: Part, *, seam: bool) -> State:
        return {"min": np.fmin(a["min"], b["min"]), "max": np.fmax(a["max"], b["max"])}

    def _labelled(self, seen: Part) -> xr.Dataset:
        unit = (schema.UNIT,)
        return xr.Dataset(
            {
                "min": variable(seen["min"], unit, "least value", schema.UNITS),
                "max": variable(seen["max"], unit, "largest value", schema.UNITS),
            }
        )
