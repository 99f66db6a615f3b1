"""States in the flat part of the tanh that squashes them."""

from collections.abc import Iterator
from typing import Final

from everystate.analysis.case import Case, units_where
from everystate.analysis.finding import Finding, Plot
from everystate.analysis.wording import share

RANK: Final = 60


def check(case: Case) -> Iterator[Finding]:
    """Yield a state that what reads it can no longer tell from its neighbours."""
    flat, t = case.measures.flatness, case.thresholds
    if not flat:
        return
    normal = None if case.normal is None else float(case.normal.flatness["share"].mean())
    limit = case.limit(t.flat, normal)
    above = case.above(flat.over_time, float(flat["share"].mean()), limit)
    if above is None:
        return
    start, part = above
    state = str(flat.attrs["state"])
    read = "tanh(c)" if state == "c" else "h"
    when = f" {case.from_step(start)}" if start else ""
    than = "" if normal is None else f" ({share(normal)} in the baseline)"
    units = units_where(flat["share"] >= 0.5, flat["share"])
    yield Finding(
        kind="flat-state",
        severity="warning",
        layer=case.layer,
        message=f"{share(part)} of {read} are within 0.01 of -1 or 1{when}{than}: what reads the "
        "layer sees the sign of these units and little else, and gradients do not pass.",
        evidence={
            "share": part,
            "limit": limit,
            "baseline": normal,
            "from": None if not start else case.number(case.place(start)),
            "units": units,
        },
        formula=f"share of values with |{read}| > 0.99, over rows, units and steps",
        caution="A unit that counts, or holds a yes or no, is there on purpose.",
        plot=Plot("heat_map", state, units, None if not start else case.window(start)),
    )
