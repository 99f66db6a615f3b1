"""Units that remember for much longer, or shorter, than the network was trained for."""

from collections.abc import Iterator
from typing import Final

import numpy as np
import xarray as xr

from everystate.analysis.autocorrelation import decorrelation
from everystate.analysis.case import Case, units_where
from everystate.analysis.finding import Finding, Plot
from everystate.analysis.wording import named, number

RANK: Final = 50

CAUTION = (
    "By the median of the gate: a unit that is reset now and then forgets sooner (see `average`). "
    "The direct path only: what comes back through the recurrent weights may be held for longer."
)
FORMULA = "half-life = ln 2 / -ln(median over rows and steps of the share that the gate keeps)"


def check(case: Case) -> Iterator[Finding]:
    """Yield units whose half-life is out of proportion to the training, or the baseline."""
    found = case.measures.half_life
    if not found:
        return
    if case.trained_on is not None:
        yield from _long(case, found, case.trained_on)
        yield from _short(case, found, case.trained_on)
    yield from _changed(case, found)


def _long(case: Case, found: xr.Dataset, trained_on: int) -> Iterator[Finding]:
    limit = case.thresholds.memory * trained_on
    units = units_where(found.half_life >= limit, found.half_life)
    if not units:
        return
    place = int(np.nanargmax(found.half_life.values))
    steps, average = (float(found[name].values[place]) for name in ("half_life", "average"))
    half = decorrelation(case.data).half.values
    like = float(half[place]) if half.size == found.half_life.size else float("nan")
    more = len(units) - 1
    others = f"; {more:,} more unit{'s' * (more > 1)} beyond {number(limit)}" if more else ""
    long = "an endless half-life" if np.isinf(steps) else f"a half-life of {number(steps)} steps"
    yield Finding(
        kind="memory",
        severity="warning",
        layer=case.layer,
        message=f"unit {units[0]} has {long}, the training windows were "
        f"{trained_on:,}{others}: what it holds by then was never seen in training.",
        evidence={
            "units": units,
            "half_life": steps,
            "average": average,
            "autocorrelation_half": like,
            "limit": limit,
            "trained_on": trained_on,
        },
        formula=FORMULA,
        caution=CAUTION,
        plot=Plot("half_life", str(found.attrs["gate"]), units),
    )


def _short(case: Case, found: xr.Dataset, trained_on: int) -> Iterator[Finding]:
    longest = float(found.half_life.max())
    if not longest < trained_on / case.thresholds.memory:
        return
    yield Finding(
        kind="memory",
        severity="info",
        layer=case.layer,
        message=f"no half-life is longer than {number(longest)} steps, the training windows were "
        f"{trained_on:,}: shorter windows might do as well.",
        evidence={"longest": longest, "trained_on": trained_on},
        formula=FORMULA,
        caution=CAUTION,
        plot=Plot("half_life", str(found.attrs["gate"])),
    )


def _changed(case: Case, found: xr.Dataset) -> Iterator[Finding]:
    if case.normal is None or not case.normal.half_life:
        return
    before, now = case.normal.half_life.half_life, found.half_life
    times = case.thresholds.times_baseline
    usual, here = (float(np.nanmedian(h.values)) for h in (before, now))
    if before.size != now.size or not (here >= times * usual or here <= usual / times):
        return
    ratio = xr.DataArray(now.values / np.maximum(before.values, 1e-3), now.coords, now.dims)
    units = units_where((ratio >= times) | (ratio <= 1 / times), abs(now - before.values))
    yield Finding(
        kind="memory",
        severity="warning",
        layer=case.layer,
        message=f"the median unit has a half-life of {number(here)} steps, {number(usual)} in the "
        f"baseline; it is {times:g} times longer or shorter in {named(units)}.",
        evidence={"median": here, "baseline": usual, "limit": times, "units": units},
        formula=FORMULA,
        caution=CAUTION + " Two networks trained apart have no unit in common.",
        plot=Plot("half_life", str(found.attrs["gate"]), units),
    )
