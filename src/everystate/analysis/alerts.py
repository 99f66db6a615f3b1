"""Alerts: the stretches of a trace that are unlike normal operation, as findings."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import xarray as xr

from everystate import schema
from everystate.analysis.anomaly import Detector, Method, fit_detector, top_contributors
from everystate.analysis.finding import Diagnosis, Finding, Plot
from everystate.analysis.layer import layers
from everystate.analysis.thresholds import Threshold, stretches, threshold
from everystate.errors import AnalysisError

FORMULA: Final = (
    "root of the mean over the units, and over the steps of the window, of the parts of the "
    "squared distance from the baseline; in alarm above the threshold, which normal steps that "
    "were held out exceed at the stated rate"
)


@dataclass(frozen=True)
class Watch:
    """How a trace is watched.

    Parameters
    ----------
    method : {"mahalanobis", "robust", "nearest", "residual"}
        See `everystate.analysis.anomaly.fit_detector`.
    variables : str or sequence of str
        What is looked at.
    window : int
        Recorded steps over which squared distances are averaged.
    false_alarm_rate : float
        Share of the steps of normal data that may be in alarm.
    gap : int
        Alarms with at most this many recorded steps between them are one.
    count : int
        Most alarms to tell of each layer, the highest first.
    """

    method: Method = "mahalanobis"
    variables: str | Sequence[str] = "states"
    window: int = 1
    false_alarm_rate: float = 0.01
    gap: int = 10
    count: int = 10


def alerts(
    trace: xr.DataTree,
    baseline: xr.DataTree,
    held_out: xr.DataTree,
    watch: Watch | None = None,
) -> Diagnosis:
    """Say where a trace is unlike normal operation, and which units show it.

    Parameters
    ----------
    trace : xarray.DataTree
        What to look at.
    baseline, held_out : xarray.DataTree
        Two traces of normal operation, or two parts of one: the first is what states are compared
        with, the second what the threshold comes from.
    watch : Watch, optional
        How; None: `Watch` as it is.

    Returns
    -------
    Diagnosis
        As from ``es.diagnose``: a finding for each alarm, of severity ``warning``, the highest
        score in units of its threshold first; ``left_out`` names the layers that are not in all
        three traces. Pass it to ``es.report(trace, findings=...)``.

    Raises
    ------
    AnalysisError
        If no layer is in all three traces, or as `everystate.analysis.anomaly.fit_detector` and
        `everystate.analysis.thresholds.threshold`.
    SelectionError
        As those.
    MissingDependencyError
        If scikit-learn is not installed (``pip install 'everystate[analysis]'``).
    TraceFormatError
        If one of the three is not a trace of everystate.

    Examples
    --------
    >>> import torch, everystate as es
    >>> x = torch.randn(1, 3000, 2, generator=torch.manual_seed(0))
    >>> x[0, 2500:2510] += 6.0
    >>> trace = es.record(torch.nn.LSTM(2, 6, batch_first=True), x)
    >>> normal, held_out = (trace.isel(time=part) for part in (slice(1000), slice(1000, 2000)))
    >>> live = trace.isel(time=slice(2000, None))
    >>> found = alerts(live, normal, held_out, Watch(false_alarm_rate=0.001))
    >>> 2500 <= found[0].evidence["first"] <= 2510
    True
    """
    watch = Watch() if watch is None else watch
    seen, normal, kept = layers(trace), layers(baseline), layers(held_out)
    paths = [path for path in seen if path in normal and path in kept]
    if not paths:
        raise AnalysisError(
            f"no layer is in all three traces: they hold {list(seen)}, {list(normal)} and "
            f"{list(kept)}. Record the same layers."
        )
    found: list[Finding] = []
    for path in paths:
        detector = fit_detector(normal[path], watch.method, watch.variables)
        score = detector.score(kept[path], window=watch.window, contributions=False).score
        limit = threshold(score, watch.false_alarm_rate)
        found += _of_layer(path, seen[path], (detector, limit), watch)
    found.sort(key=lambda f: -f.evidence["score"] / f.evidence["threshold"])
    left_out = [f"layer {path} is not in all three traces." for path in seen if path not in paths]
    return Diagnosis(tuple(found), tuple(left_out))


def _of_layer(
    path: str, layer: xr.Dataset, fitted: tuple[Detector, Threshold], watch: Watch
) -> list[Finding]:
    detector, limit = fitted
    score = detector.score(layer, window=watch.window, contributions=False).score
    values = np.atleast_2d(score.transpose(..., schema.TIME).values)
    places = [
        (float(values[row, start:stop].max()), row, start, stop)
        for row in range(len(values))
        for start, stop in stretches(values[row] > limit.value, watch.gap)
    ]
    highest = sorted(places, key=lambda place: -place[0])[: watch.count]
    return [_finding(path, layer, place, fitted) for place in highest]


def _finding(
    path: str,
    layer: xr.Dataset,
    place: tuple[float, int, int, int],
    fitted: tuple[Detector, Threshold],
) -> Finding:
    (peak, row, start, stop), (detector, limit) = place, fitted
    if schema.BATCH in layer.dims:
        layer = layer.isel({schema.BATCH: row})
    part = layer.isel({schema.TIME: slice(start, stop)})
    units = list(_units(detector, part)) if np.isfinite(peak) else []
    first, last = (_plain(part[schema.TIME].values[k]) for k in (0, -1))
    label = _plain(layer[schema.BATCH].values) if schema.BATCH in layer.coords else None
    evidence = {
        **({"row": label} if label is not None else {}),
        "first": first if isinstance(first, int | float) else str(first),
        "last": last if isinstance(last, int | float) else str(last),
        "score": peak,
        "threshold": limit.value,
        "false_alarm_rate": limit.false_alarm_rate,
        "effective_samples": limit.effective_samples,
        "units": [f"{variable}[{unit}] {share:.0%}" for variable, unit, share in units],
    }
    variable = units[0][0] if units else detector.variables[0]
    chosen = tuple(unit for name, unit, _ in units if name == variable)
    plot = Plot("lines", variable, chosen, (first, last), label)
    message = _message(evidence, "" if label is None else f"in row {label}, ")
    return Finding("anomaly", "warning", path, message, evidence, FORMULA, _caution(limit), plot)


def _units(detector: Detector, part: xr.Dataset) -> Iterator[tuple[str, Any, float]]:
    top = top_contributors(detector.score(part), count=3)
    for name, unit, share in zip(
        top["variable"].values, top[schema.UNIT].values, top.share.values, strict=True
    ):
        yield str(name), _plain(unit), float(share)


def _plain(label: Any) -> Any:
    """Return a label as the time axis of a report has it: no NumPy scalar but for times."""
    label = np.asarray(label)
    return label[()] if label.dtype.kind in "mM" else label.item()


def _message(e: dict[str, Any], where: str) -> str:
    mostly = f", mostly by {', '.join(e['units'])}" if e["units"] else ": values are not finite"
    single = e["first"] == e["last"]
    what = f"step {e['first']} is" if single else f"steps {e['first']} to {e['last']} are"
    return (
        f"{where}{what} unlike the baseline: the score reaches "
        f"{e['score']:.3g}, the threshold is {e['threshold']:.3g}{mostly}."
    )


def _caution(limit: Threshold) -> str:
    return (
        f"{limit.false_alarm_rate:.2%} of normal steps are in alarm too, in stretches. The "
        f"threshold rests on some {limit.effective_samples:.0f} independent scores: if that times "
        f"the rate is below about 10, the true rate may be far off. What is unusual need not be "
        f"wrong."
    )
