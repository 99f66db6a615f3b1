"""Values beyond what they reach in the baseline."""

from collections.abc import Iterator
from typing import Final

import numpy as np
import xarray as xr

from everystate.analysis.case import Case, units_where
from everystate.analysis.finding import Finding, Plot
from everystate.analysis.layer import states
from everystate.analysis.outside import outside
from everystate.analysis.wording import named, share

RANK: Final = 30


def check(case: Case) -> Iterator[Finding]:
    """Yield the states of which too many values are beyond their range in the baseline."""
    if case.baseline is None:
        return
    found = outside(case.data[states(case.data)], case.baseline)
    found = found.compute()
    for name in found["variable"].values if found else ():
        one = found.sel(variable=name)
        part = float(one["share"].mean())
        if part >= case.thresholds.outside:
            yield _finding(case, str(name), part, one)


def _finding(case: Case, name: str, part: float, one: xr.Dataset) -> Finding:
    units = units_where(one["share"] >= case.thresholds.outside, one["share"])
    curve = case.read(one.over_time)
    first = int(np.flatnonzero(np.nan_to_num(curve) > 0)[0])
    return Finding(
        kind="out-of-range",
        severity="warning",
        layer=case.layer,
        message=f"{share(part)} of {name} are beyond what they reach in the baseline, the first at "
        f"{case.step(case.place(first))}: {named(units)} of {one['share'].size:,}.",
        evidence={
            "variable": name,
            "share": part,
            "limit": case.thresholds.outside,
            "first": case.number(case.place(first)),
            "units": units,
        },
        formula="share of values below min - (max - min)/10 or above max + (max - min)/10 of the "
        "same unit in the baseline",
        caution="A short baseline has seen little: everything else is new. Two networks trained "
        "apart have no unit in common.",
        plot=Plot("heat_map", name, units, case.window(first)),
    )
