"""States that keep growing, or leave what they reached in training."""

from collections.abc import Iterator
from typing import Final

import numpy as np
import xarray as xr

from everystate import schema
from everystate.analysis.case import Case, label_of
from everystate.analysis.finding import Finding, Label, Plot
from everystate.analysis.growth import growth
from everystate.analysis.layer import by_unit, finite, unit_dim
from everystate.analysis.wording import named, number

RANK: Final = 20
LOOKED_AT: Final = 16
"""Most units whose own growth is computed, the largest ones: their whole row is read."""


def check(case: Case) -> Iterator[Finding]:
    """Yield a state whose size keeps rising, or is beyond all of the training windows."""
    found, t = case.measures.growth, case.thresholds
    if not found:
        return
    if schema.BATCH not in found.dims:
        found = found.expand_dims(schema.BATCH)
    least, excess = _limits(case)
    grows = ((found.trend >= t.trend) & (found.growth >= least)).values
    beyond = (found.excess >= excess).values & (case.trained_on is not None)
    rows = np.flatnonzero(grows | beyond)
    if not rows.size:
        return
    row = int(rows[np.argmax(found.growth.values[rows] * found.excess.values[rows])])
    figures = {str(n): float(found[n].values[row]) for n in found.data_vars}
    why = bool(grows[row]), bool(beyond[row])
    state, units = str(found.attrs["state"]), _largest(case, row, why)
    label = case.label(row, schema.BATCH) if found.sizes[schema.BATCH] > 1 else None
    yield Finding(
        kind="growing-state",
        severity="warning",
        layer=case.layer,
        message=_sentence(case, figures, why, units)
        + ("" if label is None else f" So in {rows.size:,} of {found.trend.size:,} rows."),
        evidence={**figures, "rows": rows.size, "row": label, "units": units}
        | {"limit_growth": least, "limit_excess": excess, "slope": _slope(case, row)},
        formula=f"m_t: mean |{state}| over the units; trend: Kendall's tau of its means over 8 "
        "equal stretches after the start; growth: the last of them over the first; excess: the "
        "largest of them over max m of the start",
        caution="A few huge units can carry the mean. In a row that is not much longer than the "
        "memory, a rise at the start looks like growth."
        + ("" if case.trained_on else " The start is a tenth, as `trained_on` was not given."),
        plot=Plot("over_units", state, units, _window(case, figures), label),
    )


def _limits(case: Case) -> tuple[float, float]:
    """Return from where on growth and excess are too large."""
    fixed_limits = case.thresholds.growth, case.thresholds.excess
    if case.normal is None or not case.normal.growth:
        return fixed_limits
    times = case.thresholds.times_baseline
    usual = [float(case.normal.growth[name].median()) for name in ("growth", "excess")]
    return tuple(  # type: ignore[return-value]
        max(fixed, times * value) if np.isfinite(value) else fixed
        for fixed, value in zip(fixed_limits, usual, strict=True)
    )


def _slope(case: Case, row: int) -> float:
    slope: xr.DataArray = case.measures.drift.slope
    return float(slope.values[row] if slope.ndim else slope)


def _largest(case: Case, row: int, why: tuple[bool, bool]) -> tuple[Label, ...]:
    """Return up to three units that grow themselves, the largest in the last eighth first."""
    state = str(case.measures.growth.attrs["state"])
    values = by_unit(finite(case.data[state]))
    if schema.BATCH in values.dims:
        values = values.isel({schema.BATCH: row})
    there = np.flatnonzero(case.read(values.notnull().any(unit_dim(values))))
    last = [case.place(int(position)) for position in there[-max(1, there.size // 8) :]]
    size = abs(values.isel({schema.TIME: sorted(last)})).mean(schema.TIME).values
    order = np.argsort(-np.nan_to_num(size, nan=-np.inf), kind="stable")[:LOOKED_AT]
    few = values.isel({unit_dim(values): order}).load()
    own = [k for k in range(len(order)) if _grows(case, few.isel({few.dims[-1]: [k]}), why)][:3]
    # A mean can grow though no unit does by as much: then the largest one stands for it.
    return tuple(label_of(few, unit_dim(few), k) for k in own or [0])


def _grows(case: Case, unit: xr.DataArray, why: tuple[bool, bool]) -> bool:
    """Whether a unit by itself does what was found of the mean: keep growing, or leave training."""
    layer = xr.Dataset({str(case.measures.growth.attrs["state"]): unit}, attrs=case.data.attrs)
    own, (growth_limit, excess_limit) = growth(layer, case.trained_on), _limits(case)
    grows = own.trend >= case.thresholds.trend and own.growth >= growth_limit
    return bool((why[0] and grows) or (why[1] and own.excess >= excess_limit))


def _sentence(
    case: Case, f: dict[str, float], why: tuple[bool, bool], units: tuple[Label, ...]
) -> str:
    state = case.measures.growth.attrs["state"]
    grows, beyond = why
    start = "tenth" if case.trained_on is None else f"{case.trained_on:,} steps, as trained on"
    said = f"the mean |{state}| is at most {number(f['reached'])} in the first {start}, and "
    said += f"reaches {number(f['largest'])} within {f['steps']:,.0f} steps"
    if beyond and np.isfinite(f["left_at"]):
        said += f", beyond all of the training from its step {f['left_at']:,.0f} on"
    if grows:
        said += f"; it still grows, to {number(f['growth'])} times as much over the rest"
    return f"{said}. It is largest in {named(units)}."


def _window(case: Case, f: dict[str, float]) -> tuple[Label, Label] | None:
    """Return the steps beyond the training, else those after the start."""
    at = f["left_at"] if np.isfinite(f["left_at"]) else f["steps"] / 10
    first = round(at / max(f["steps"], 1.0) * case.size)
    return case.window(min(first, case.size - 1))
