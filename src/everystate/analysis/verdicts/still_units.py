"""Units that never move."""

from collections.abc import Iterator
from typing import Final

from everystate.analysis.case import Case, units_where
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
    normal = None if case.normal is None else float(case.normal.movement.still.mean())
    limit = case.limit(t.units, normal)
    state = str(moved.attrs["state"])
    than = "" if normal is None else f" ({share(normal)} in the baseline)"
    yield Finding(
        kind="still-units",
        severity="warning" if part >= limit else "info",
        layer=case.layer,
        message=f"{len(units):,} of {moved.still.size:,} units never move{than}: the {state} of "
        f"{named(units)} travels less than {t.still:g} over time.",
        evidence={"units": units, "share": part, "limit": limit, "baseline": normal},
        formula="max - min of the state over the steps of a row, in the row where it is largest",
        caution="A unit may be there for inputs that this recording does not have; a state of a "
        "tiny scale moves little.",
        plot=Plot("heat_map", state, units),
    )
