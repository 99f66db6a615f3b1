"""Gates that are at an end of their range, over all units."""

from collections.abc import Iterator
from typing import Final

import xarray as xr

from everystate import schema
from everystate.analysis.case import Case, units_where
from everystate.analysis.finding import Finding, Plot, Severity
from everystate.analysis.saturation import CANDIDATES, gate_range
from everystate.analysis.wording import share

RANK: Final = 40

CANDIDATE: Final = 0.2
"""What a candidate may be saturated more than a gate: at both ends together."""
MEANING: Final = {
    ("i", "left"): "they take in nothing",
    ("o", "left"): "they show the rest of the model nothing",
    ("f", "left"): "they keep nothing",
    ("f", "right"): "they forget nothing",
    ("z", "writes nothing"): "they take in nothing",
    ("g", "both"): "what they write is -1 or 1, and no gradient passes",
    ("n", "both"): "what they write is -1 or 1, and no gradient passes",
}
MILD: Final = (("f", "left"), ("f", "right"))
"""Worth knowing, but what many healthy networks do."""


def check(case: Case) -> Iterator[Finding]:
    """Yield the gates of which too many values are at an end, all through or since a step."""
    opened = case.measures.openness
    for name in opened["variable"].values if opened else ():
        gate = opened.sel(variable=name)
        for end in ("both",) if name in CANDIDATES else ("left", "right"):
            yield from _judge(case, str(name), end, _share_of(gate, end))


def _share_of(shares: xr.Dataset, end: str) -> xr.DataArray:
    return shares.left + shares.right if end == "both" else shares[end]


def _judge(case: Case, gate: str, end: str, curve: xr.DataArray) -> Iterator[Finding]:
    t, key = case.thresholds, _key(case, gate, end)
    per_unit = _share_of(case.measures.saturation.sel(variable=gate), end)
    if not per_unit.notnull().any() or (key not in MEANING and case.normal is None):
        return
    normal = _baseline(case, gate, end)
    limit = case.limit(t.saturated + CANDIDATE * (end == "both"), normal)
    above = case.above(curve, float(per_unit.mean()), limit)
    if above is None:
        return
    start, part = above
    severity: Severity = "info" if key in MILD and normal is None else "warning"
    units = units_where(per_unit >= 0.5, per_unit)
    yield Finding(
        kind="saturated-gates",
        severity=severity,
        layer=case.layer,
        message=_sentence(case, gate, end, part, start, normal),
        evidence={
            "gate": gate,
            "end": end,
            "share": part,
            "limit": limit,
            "baseline": normal,
            "from": None if not start else case.number(case.place(start)),
            "units": units,
        },
        formula=f"share of values within {t.edge:g} of the end, over rows, units and steps",
        caution="A saturated gate is a fault only if it should decide: a network may have learnt "
        "to keep, or to leave out, most of what it sees."
        + (" The baseline must have inputs of the same kind." if normal is not None else ""),
        plot=Plot("over_units", gate, units, None if not start else case.window(start)),
    )


def _key(case: Case, gate: str, end: str) -> tuple[str, str]:
    """Return a gate's end by what it does: a GRU's `z` keeps or writes."""
    if gate == "z":
        frozen = "left" if case.data.attrs.get("update") == "writes" else "right"
        return gate, "writes nothing" if end == frozen else "keeps nothing"
    return gate, end


def _baseline(case: Case, gate: str, end: str) -> float | None:
    shares = None if case.normal is None else case.normal.saturation
    if not shares or gate not in shares["variable"]:
        return None
    return float(_share_of(shares.sel(variable=gate), end).mean())


def _sentence(
    case: Case, gate: str, end: str, part: float, start: int | None, normal: float | None
) -> str:
    low, high = gate_range(case.data, gate) or (0.0, 1.0)
    edge = case.thresholds.edge
    where = {
        "left": f"below {low + edge:g}",
        "right": f"above {high - edge:g}",
        "both": f"below {low + edge:g} or above {high - edge:g}",
    }[end]
    long = schema.LONG_NAMES[gate]
    when = f" {case.from_step(start)}" if start else ""
    than = "" if normal is None else f" ({share(normal)} in the baseline)"
    meaning = MEANING.get(_key(case, gate, end))
    means = f": {meaning}" if meaning else ""
    return f"{share(part)} of the {long}s {gate} are {where}{when}{than}{means}."
