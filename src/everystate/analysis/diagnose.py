"""`diagnose`: what is wrong with a recording, where, and how one knows."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from importlib import import_module
from pkgutil import iter_modules

import xarray as xr

import everystate.analysis.verdicts as verdicts
from everystate.analysis.baseline import fitting
from everystate.analysis.case import Case, in_chunks
from everystate.analysis.finding import SEVERITIES, Diagnosis, Finding
from everystate.analysis.layer import one_epoch, recorded
from everystate.analysis.limits import Thresholds
from everystate.cells import Cell
from everystate.errors import InputTypeError, MissingDependencyError, SelectionError

Check = Callable[[Case], Iterator[Finding]]


def diagnose(
    trace: xr.DataTree,
    baseline: xr.DataTree | None = None,
    *,
    trained_on: int | None = None,
    thresholds: Thresholds | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Diagnosis:
    """Say what is wrong with a recording, where, how one knows, and when not to believe it.

    Parameters
    ----------
    trace : xarray.DataTree
        From ``es.record`` or ``es.open_trace``, or a part of it. One with chunks, or one above
        256 MB where Dask is installed, is read in passing.
    baseline : xarray.DataTree, optional
        A trace of normal operation of the same network: shares and sizes are judged by those it
        has there instead of fixed thresholds, and values by their range there.
    trained_on : int, optional
        Steps of the sequences that the network was trained on: how much longer units remember,
        and how far the state grows beyond what it reached within them, is told only if it is
        given.
    thresholds : Thresholds, optional
        From where on to speak; None: `everystate.analysis.limits.Thresholds` as it is.
    progress : callable, optional
        Called with (layers done, layers in all).

    Returns
    -------
    Diagnosis
        A sequence of `everystate.analysis.finding.Finding`, the worst first, each with
        ``severity``, ``layer``, ``message``, ``evidence``, ``formula``, ``caution`` and ``plot``.
        It prints as text, and as a table in a notebook; ``worst`` is the highest severity,
        ``at_least("warning")`` those as bad as that or worse, ``to_dict()`` is for programs.
        ``left_out`` says what could not be checked, and why.

    Raises
    ------
    TraceFormatError
        If `trace` or `baseline` is not a trace of everystate, or of a newer schema.
    SelectionError
        If `trained_on` is less than 1.
    InputError
        If `trace` or `baseline` has a dimension ``epoch``: choose one, ``trace.isel(epoch=-1)``. If
        no layer of `trace` is in `baseline` with equal units.
    InputTypeError
        If `trained_on` is no whole number.

    Notes
    -----
    Groups of units that are alike need scipy, and changes of level ruptures: without the extra
    ``analysis`` these two are left out, and said to be.

    Examples
    --------
    >>> import torch, everystate as es
    >>> lstm = torch.nn.LSTM(3, 8, batch_first=True)
    >>> with torch.no_grad():
    ...     _ = lstm.bias_ih_l0[24:].fill_(-9.0)  # output gates that nothing opens
    >>> found = es.diagnose(es.record(lstm, torch.randn(2, 300, 3)))
    >>> found.worst, found[0].kind
    ('warning', 'saturated-gates')
    >>> found[0].message
    '100 % of the output gates o are below 0.05: they show the rest of the model nothing.'
    """
    if trained_on is not None and (
        isinstance(trained_on, bool) or not hasattr(trained_on, "__index__")
    ):
        raise InputTypeError(
            f"trained_on={trained_on!r} is of type {type(trained_on).__name__}, expected a whole "
            "number of steps: trained_on=48."
        )
    if trained_on is not None and trained_on < 1:
        raise SelectionError(f"trained_on={trained_on!r}, expected 1 step or more.")
    ours = one_epoch(trace)
    normal, left_out = dict[str, xr.Dataset](), list[str]()
    if baseline is not None:
        normal, left_out = fitting(ours, one_epoch(baseline))
    found_checks, findings = checks(), list[Finding]()
    for done, (path, layer) in enumerate(ours.items(), start=1):
        usual = in_chunks(normal[path]) if path in normal else None
        case = Case(path, in_chunks(layer), usual, trained_on, thresholds or Thresholds())
        left_out += _unrecorded(case)
        for name, check in found_checks.items():
            try:
                findings += map(_without_none, check(case))
            except MissingDependencyError as error:
                left_out.append(f"{name}: {error}")
        if progress is not None:
            progress(done, len(ours))
    ranks = {kind: rank for rank, kind in enumerate(found_checks)}
    findings.sort(key=lambda f: (-SEVERITIES.index(f.severity), ranks[f.kind]))
    return Diagnosis(tuple(findings), tuple(dict.fromkeys(left_out)))


def _without_none(finding: Finding) -> Finding:
    """Return a finding without the evidence that there is not."""
    known = {name: value for name, value in finding.evidence.items() if value is not None}
    return replace(finding, evidence=known)


def checks() -> dict[str, Check]:
    """Return the check of each file in `everystate.analysis.verdicts`, the lowest `RANK` first.

    Each by the name of its file with hyphens, which is the ``kind`` of its findings.
    """
    names = [found.name for found in iter_modules(verdicts.__path__)]
    modules = [import_module(f"{verdicts.__name__}.{name}") for name in names]
    modules.sort(key=lambda module: int(module.RANK))
    return {m.__name__.rpartition(".")[2].replace("_", "-"): m.check for m in modules}


def _unrecorded(case: Case) -> Iterator[str]:
    """Yield what cannot be checked as it was not recorded."""
    families = {family.__name__: family for family in Cell.__subclasses__()}
    family = families.get(str(case.data.attrs.get("cell")))
    expected = (*family.states, *family.gates) if family is not None else ()
    missing = [name for name in expected if name not in recorded(case.data)]
    if missing:
        yield (
            f"layer {case.layer}: {', '.join(missing)} not recorded; what needs them was not "
            "checked. Record them: es.Select(variables=('states', 'gates'))."
        )
