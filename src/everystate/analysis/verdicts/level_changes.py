"""Steps at which the states change their level."""

from collections.abc import Iterator
from typing import Final

import numpy as np
import xarray as xr

from everystate import schema
from everystate.analysis.case import Case, units_where
from everystate.analysis.changes import changes
from everystate.analysis.finding import Finding, Plot
from everystate.analysis.wording import named

RANK: Final = 100

ROWS: Final = 4
"""Most rows of a batch that are looked at: the first ones."""


def check(case: Case) -> Iterator[Finding]:
    """Yield the change of level of each row that moves the most units."""
    for row in range(min(ROWS, case.data.sizes.get(schema.BATCH, 1))):
        found = changes(case.data, row)
        if not found:
            return
        found = found.assign(moved=found.moved.where(~found.straight))
        moved = abs(found.moved) >= case.thresholds.shift
        count = moved.sum(moved.dims[1]).values if found.sizes["change"] else np.zeros(0)
        strong = np.flatnonzero(count > 0)
        if strong.size:
            yield _finding(case, row, found.isel(change=strong), int(np.argmax(count[strong])))


def _finding(case: Case, row: int, found: xr.Dataset, main: int) -> Finding:
    places = [int(place) for place in found["at"].values]
    place, shift = places[main], abs(found.moved.isel(change=main))
    units = units_where(shift >= case.thresholds.shift, shift)
    label = case.label(row, schema.BATCH) if case.data.sizes.get(schema.BATCH, 1) > 1 else None
    state = str(found.attrs["state"])
    others = [case.step(p) for p in places if p != place]
    more = f" It changes at {', '.join(others[:3])} too." if others else ""
    return Finding(
        kind="level-changes",
        severity="info",
        layer=case.layer,
        message=f"the level of {state} changes at {case.step(place)}"
        + ("" if label is None else f" of row {label}")
        + f": {named(units)} by up to {float(shift.max()):.2g} standard deviations.{more}",
        evidence={
            "at": [case.number(p) for p in places],
            "units": units,
            "largest_shift": float(shift.max()),
            "exact_to_recorded_steps": int(found.attrs["bucket"]),
            "row": label,
        },
        formula="least-squares levels of bucket means over long-run deviations, penalty 3 U ln K "
        "for each change (ruptures.KernelCPD)",
        caution="A change of the input changes the states. A drift that is no straight line, or a "
        "wave as slow as the recording, is cut into levels too.",
        plot=Plot("heat_map", state, units, (case.label(place), case.label(place)), label),
    )
