"""Units of which a gate never does anything."""

from collections.abc import Iterator
from typing import Final

import numpy as np
import xarray as xr

from everystate import schema
from everystate.analysis.case import Case, not_so_before, units_where
from everystate.analysis.finding import Finding, Plot
from everystate.analysis.saturation import CANDIDATES
from everystate.analysis.wording import named, share

RANK: Final = 70

HARMLESS: Final = (("f", "open"), ("i", "open"), ("o", "open"), ("f", "shut"), ("r", "open"))
"""What a healthy unit may do: count, write always, be seen always, hold nothing."""


def check(case: Case) -> Iterator[Finding]:
    """Yield the gates that are always shut, always open or always the same, by units."""
    found = case.measures.stuck
    for gate in found["variable"].values if found else ():
        for how in ("shut", "open", "constant"):
            flags = found[how].sel(variable=gate)
            if how == "constant":  # one that is shut is told as such
                flags = flags & ~found.shut.sel(variable=gate) & ~found.open.sel(variable=gate)
            if flags.any():
                yield _finding(case, str(gate), how, flags)


def _finding(case: Case, gate: str, how: str, flags: xr.DataArray) -> Finding:
    units, part = units_where(flags), float(flags.mean())
    normal = None
    if case.normal is not None and case.normal.stuck and gate in case.normal.stuck["variable"]:
        normal = float(case.normal.stuck[how].sel(variable=gate).mean())
    limit = case.limit(case.thresholds.units, normal)
    mild = (gate, how) in HARMLESS and normal is None
    new = flags & ~_usual(case, gate, how, flags)
    said = {"shut": "always shut", "open": "always open", "constant": "always the same"}[how]
    if gate in CANDIDATES:
        said = {"shut": "always -1", "open": "always 1"}.get(how, said)
    than = "" if normal is None else f" ({share(normal)} in the baseline)"
    return Finding(
        kind="stuck-gates",
        severity="warning" if new.any() or (part >= limit and not mild) else "info",
        layer=case.layer,
        message=f"the {schema.LONG_NAMES[gate]} {gate} of {len(units):,} of {flags.size:,} units "
        f"is {said}{than}: {named(units)}.{not_so_before(flags, new)}",
        evidence={
            "gate": gate,
            "how": how,
            "units": units,
            "share": part,
            "limit": limit,
            "baseline": normal,
            "new": None if normal is None else units_where(new),
        },
        formula=f"at least {case.thresholds.stuck:g} of the steps within {case.thresholds.edge:g} "
        f"of the end; the same: max - min < {case.thresholds.still:g}",
        caution="Other inputs may move it. A forget gate that is always open is how a unit counts.",
        plot=Plot("saturation", gate, units),
    )


def _usual(case: Case, gate: str, how: str, flags: xr.DataArray) -> xr.DataArray:
    """Return the units that are stuck so in the baseline, or nearly; all of them without one."""
    normal, t = case.normal, case.thresholds
    if normal is None or not normal.stuck or gate not in normal.stuck["variable"]:
        return xr.ones_like(flags)
    usual = normal.stuck[how].sel(variable=gate)
    ends = normal.saturation
    if how != "constant" and ends and gate in ends["variable"]:
        side = {"shut": "left", "open": "right"}[how]
        usual = ends[side].sel(variable=gate) >= t.stuck - t.above_baseline
    return flags.copy(data=np.asarray(usual.transpose(*flags.dims).values, bool))
