"""Units that say the same as others."""

from collections.abc import Iterator
from typing import Final

import numpy as np

from everystate.analysis.case import Case, units_where
from everystate.analysis.finding import Finding, Plot
from everystate.analysis.redundancy import redundancy, spare_units
from everystate.analysis.wording import named, share

RANK: Final = 90


def check(case: Case) -> Iterator[Finding]:
    """Yield groups of units whose states are correlated."""
    t = case.thresholds
    found = redundancy(case.data, t.alike)
    if not found:
        return
    found = found.compute()
    spare, units = spare_units(found), found.group.size
    part = spare / units
    normal = None
    if case.baseline is not None and (usual := redundancy(case.baseline, t.alike)):
        normal = spare_units(usual.compute()) / usual.group.size
    limit = case.limit(t.spare, normal)
    if part < limit:
        return
    groups = int(np.unique(found.group.values[found["size"].values > 1]).size)
    largest = units_where(found.group == 0)
    state = str(found.attrs["state"])
    than = "" if normal is None else f" ({share(normal)} in the baseline)"
    yield Finding(
        kind="alike-units",
        severity="info" if normal is None else "warning",
        layer=case.layer,
        message=f"{spare:,} of {units:,} units say what others say{than}: their {state} is alike "
        f"but for scale and sign, in {groups:,} {'group' if groups == 1 else 'groups'}; the "
        f"largest is {named(largest)}.",
        evidence={
            "spare": spare,
            "share": part,
            "limit": limit,
            "baseline": normal,
            "groups": groups,
            "largest": largest,
        },
        formula=f"groups by complete linkage with |r| >= {t.alike:g} of any two; spare: the units "
        "but one of each group",
        caution="Alike on these inputs: a recording of one slow or simple input makes all units "
        "alike.",
        plot=Plot("lines", state, largest),
    )
