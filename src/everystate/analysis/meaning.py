"""Meaning as findings: which units of a trace follow what is known of its steps."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import xarray as xr

from everystate import schema
from everystate.analysis.features import Floats
from everystate.analysis.finding import Diagnosis, Finding, Plot
from everystate.analysis.layer import layers, states
from everystate.analysis.probes import Split, probe
from everystate.analysis.selectivity import selectivity
from everystate.errors import SelectionError

FORMULA = (
    "2 AUC - 1 of a label that is true or false, Spearman's rank correlation of a quantity; by "
    "chance: the best of all states with the label shifted in time; probe: balanced accuracy or "
    "R² on stretches of time that it was not fitted on"
)
CAUTION = (
    "A unit may follow a label because it follows something that goes with it, and what can be "
    "read from states need not be used by the network."
)


def meanings(
    trace: xr.DataTree,
    labels: Mapping[str, Any],
    *,
    at_most: float = 0.05,
    shifts: int = 99,
    split: Split | None = None,
) -> Diagnosis:
    """Say which units follow which labels, as findings for a report.

    Parameters
    ----------
    trace : xarray.DataTree
        From ``es.record`` or ``es.open_trace``.
    labels : mapping of str to array-like
        What is known of each step, by name: truth values or quantities, as in
        `everystate.analysis.selectivity.selectivity`.
    at_most : float
        Largest p-value, corrected for the number of states, that makes a finding.
    shifts : int
        How many shifts of the labels it is compared with; shifts are at least the gap of `split`.
    split : Split, optional
        How the probe's steps are parted; None: `everystate.analysis.probes.Split` as it is.

    Returns
    -------
    Diagnosis
        As from ``es.diagnose``: for each label and layer in which a unit follows it, the unit that
        does so most closely and what a probe reads from all states; of severity ``info``, the
        closest first. Pass it to ``es.report(trace, findings=...)``.

    Raises
    ------
    SelectionError
        If fewer shifts are asked for than a p-value as small as `at_most` takes.
    AnalysisError
        If labels do not fit, or steps are too few.
    MissingDependencyError
        If scikit-learn or SciPy is not installed (``pip install 'everystate[analysis]'``).
    TraceFormatError
        If `trace` is not a trace of everystate.

    Examples
    --------
    >>> import torch, everystate as es
    >>> x = torch.randn(1, 1500, 2, generator=torch.manual_seed(0))
    >>> loud = torch.arange(1500) // 50 % 3 == 0
    >>> x[0, loud] += 2.0
    >>> trace = es.record(torch.nn.LSTM(2, 6, batch_first=True), x)
    >>> [found.evidence["label"] for found in meanings(trace, {"loud": loud.numpy()}, shifts=39)]
    ['loud']
    """
    if 1 / (1 + shifts) > at_most:
        raise SelectionError(
            f"no p-value is below {1 / (1 + shifts):.3g} with shifts={shifts}: ask for more of "
            f"them, or for at_most={1 / (1 + shifts):.3g}"
        )
    split = Split() if split is None else split
    found = [
        finding
        for path, layer in layers(trace).items()
        if states(layer)
        for name, known in labels.items()
        for finding in _of_layer(path, layer, (name, known), (at_most, shifts, split))
    ]
    return Diagnosis(tuple(sorted(found, key=lambda f: -abs(f.evidence["selectivity"]))))


def _of_layer(
    path: str,
    layer: xr.Dataset,
    label: tuple[str, Any],
    options: tuple[float, int, Split],
) -> Iterator[Finding]:
    (name, known), (at_most, shifts, split) = label, options
    single = selectivity(
        layer, known, shifts=shifts, least_shift=max(1, split.gap), seed=split.seed
    )
    best = int(np.abs(single.selectivity.values).argmax())
    if single.p_value.values[best] > at_most:
        return
    # A count is a quantity: a probe would take whole numbers for classes.
    y = np.asarray(known)
    truth = not np.issubdtype(y.dtype, np.floating) and bool(np.isin(y, (0, 1)).all())
    read = probe(layer, y.astype(bool if truth else np.float64), split=split)
    variable, unit = str(single["variable"].values[best]), single[schema.UNIT].values[best].item()
    evidence = {
        "label": name,
        "variable": variable,
        "unit": unit,
        "selectivity": float(single.selectivity.values[best]),
        "best_by_chance": float(single.strongest_by_chance.max()),
        "p_value": float(single.p_value.values[best]),
        "probe": float(read.score),
        "probe_control": float(read.control.max()),
    }
    message = _message(evidence, single.selectivity.values, truth)
    plot = Plot("lines", variable, (unit,))
    yield Finding("meaning", "info", path, message, evidence, FORMULA, CAUTION, plot)


def _message(e: dict[str, Any], all_of_them: Floats, truth: bool) -> str:
    direction = "higher" if e["selectivity"] > 0 else "lower"
    follows = f"where {e['label']!r} holds" if truth else f"the larger {e['label']!r} is"
    measure = "balanced accuracy" if truth else "R²"
    return (
        f"{e['variable']} of unit {e['unit']} is {direction} {follows} ({e['selectivity']:+.2f}; "
        f"by chance the best of {all_of_them.size} states reaches {e['best_by_chance']:.2f}). A "
        f"probe of all of them reads it with {measure} {e['probe']:.2f} (shifted labels: "
        f"{e['probe_control']:.2f})."
    )
