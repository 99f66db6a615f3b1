"""Units that never move."""

from collections.abc import Iterator
from typing import Final

from everystate.analysis.case import Case, not_so_before, units_where
from everystate.analysis.finding import Finding, Plot
from everystate.analysis.wording import named, share

RANK: Final = 80


def check(case: Case) -> Iterator[Finding]:
    """Yield the units whose state stays where it is, whatever the input."""
    moved, t = case.measures.movement, case.thresholds
    if not moved or not moved.still.any():
        return
    units = units_where(moved.still)
    part = float(moved.still.mean())
    normal, new = None, moved.still & False
    if case.normal is not None and case.normal.movement:
        usual = case.normal.movement.still
        normal = float(usual.mean())
        new = moved.still & ~usual.transpose(*moved.still.dims).values
    limit = case.limit(t.units, normal)
    state = str(moved.attrs["state"])
    than = "" if normal is None else f" ({share(normal)} in the baseline)"
    yield Finding(
        kind="still-units",
        severity="warning" if new.any() or part >= limit else "info",
        layer=case.layer,
        message=f"{len(units):,} of {moved.still.size:,} units never move{than}: the {state} of "
        f"{named(units)} travels less than {t.still:g} over time.{not_so_before(moved.still, new)}",
        evidence={
            "units": units,
            "share": part,
            "limit": limit,
            "baseline": normal,
            "new": None if normal is None else units_where(new),
        },
        formula="max - min of the state over the steps of a row, in the row where it is largest",
        caution="A unit may be there for inputs that this recording does not have; a state of a "
        "tiny scale moves little.",
        plot=Plot("heat_map", state, units),
    )
