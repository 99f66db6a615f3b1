"""Values that are NaN or infinite."""

from collections.abc import Iterator
from typing import Final

import numpy as np

from everystate import schema
from everystate.analysis.case import Case, label_of
from everystate.analysis.finding import Finding, Plot
from everystate.analysis.layer import by_unit, unit_dim

RANK: Final = 0


def check(case: Case) -> Iterator[Finding]:
    """Yield the first place of values that are not finite within the sequences."""
    found = case.measures.not_finite
    counts = {str(n): int(found.not_finite.sel(variable=n)) for n in found["variable"].values}
    bad = {name: count for name, count in counts.items() if count}
    if not bad:
        return
    firsts = {name: int(found["first"].sel(variable=name)) for name in bad}
    name = min(firsts, key=lambda n: firsts[n])
    place = firsts[name]
    values = by_unit(case.data[name]).isel({schema.TIME: place})
    wrong = ~np.isfinite(values.values)
    at = np.unravel_index(wrong.argmax(), wrong.shape)
    unit = label_of(values, unit_dim(values), int(at[-1]))
    row = label_of(values, schema.BATCH, int(at[0])) if len(at) > 1 else None
    at_step = case.number(place)
    where = f"{case.step(place)}, unit {unit}" + ("" if row is None else f", row {row}")
    yield Finding(
        kind="not-finite",
        severity="error",
        layer=case.layer,
        message=f"{sum(bad.values()):,} values of {', '.join(bad)} are NaN or infinite; "
        f"the first is {name} at {where}.",
        evidence={
            "counts": bad,
            "variable": name,
            "step": at_step,
            "unit": unit,
            "row": row,
        },
        formula="values that are not finite at steps within the sequence's length",
        caution="Where the input is NaN itself, the cause is there. In a trace without the "
        "coordinate `length`, padding with NaN counts too.",
        plot=Plot("heat_map", name, (unit,), (case.label(place), case.label(place)), row),
    )
