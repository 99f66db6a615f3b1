"""What a diagnosis says: findings, each with its evidence, and the picture that shows it."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from html import escape
from typing import Any, Final, Literal, overload

from everystate.errors import SelectionError

Severity = Literal["info", "warning", "error"]
SEVERITIES: Final[tuple[Severity, ...]] = ("info", "warning", "error")
"""From the least to the worst."""

Label = Any
"""The label of a step, row or unit, as the trace's coordinate has it: a number, text or time."""

PlotName = Literal["heat_map", "lines", "over_units", "saturation", "half_life"]


@dataclass(frozen=True)
class Plot:
    """Which picture of a layer shows a finding; drawing is left to `everystate.views`.

    Parameters
    ----------
    name : {"heat_map", "lines", "over_units", "saturation", "half_life"}
        ``heat_map``: every unit of the variable over time. ``lines``: the units in `units` over
        time. ``over_units``: mean, least and largest over the units at each step.
        ``saturation``: one point for each unit, its left- against its right-saturated share.
        ``half_life``: the half-life of each unit, in order of size.
    variable : str
        The state or gate it is of.
    units : tuple of labels
        The units to show or to stress, worst first; empty: all alike.
    window : (label, label), optional
        Labels of the first step to shade and of the last, included, as the time axis has them.
        None: the whole recording.
    row : label, optional
        The row of the batch that shows it best. None: any.
    """

    name: PlotName
    variable: str
    units: tuple[Label, ...] = ()
    window: tuple[Label, Label] | None = None
    row: Label | None = None


@dataclass(frozen=True)
class Finding:
    """One thing that a diagnosis found in one layer.

    Parameters
    ----------
    kind : str
        Which check found it: the name of its file in `everystate.analysis.verdicts`, with
        hyphens, such as ``"growing-state"``.
    severity : {"info", "warning", "error"}
        ``info`` is worth knowing; a ``warning`` is a probable cause of trouble; an ``error``
        means that the values are of no use.
    layer : str
        Path of the layer.
    message : str
        What is the matter, in a sentence without the layer's name.
    evidence : mapping of str to number, text, or list of them
        The figures behind the message: shares, steps, units, the threshold that was crossed.
    formula : str
        How the figures were computed.
    caution : str
        When not to trust it.
    plot : Plot, optional
        Which picture shows it.

    Examples
    --------
    >>> print(Finding("still-units", "info", "lstm", "2 of 64 units never move."))
    info: layer lstm: 2 of 64 units never move.
    """

    kind: str
    severity: Severity
    layer: str
    message: str
    evidence: Mapping[str, Any] = field(default_factory=dict)
    formula: str = ""
    caution: str = ""
    plot: Plot | None = None

    def __str__(self) -> str:
        """Return severity, layer and message in a line."""
        return f"{self.severity}: layer {self.layer}: {self.message}"


@dataclass(frozen=True, repr=False)
class Diagnosis(Sequence[Finding]):
    """What `everystate.diagnose` found, the worst first; a sequence of `Finding`.

    Parameters
    ----------
    findings : tuple of Finding
        In order of severity, within it by layer.
    left_out : tuple of str
        Checks that could not be made, and why, in a sentence each.
    """

    findings: tuple[Finding, ...] = ()
    left_out: tuple[str, ...] = ()

    @overload
    def __getitem__(self, place: int) -> Finding: ...
    @overload
    def __getitem__(self, place: slice) -> tuple[Finding, ...]: ...
    def __getitem__(self, place: int | slice) -> Finding | tuple[Finding, ...]:
        """Return a finding by its place, or a tuple of those of a slice."""
        return self.findings[place]

    def __len__(self) -> int:
        """Return the number of findings."""
        return len(self.findings)

    def __iter__(self) -> Iterator[Finding]:
        """Iterate over the findings, the worst first."""
        return iter(self.findings)

    @property
    def worst(self) -> Severity | None:
        """The highest severity, None without a finding."""
        return max((f.severity for f in self), key=SEVERITIES.index, default=None)

    def at_least(self, severity: Severity) -> tuple[Finding, ...]:
        """Return the findings of a severity or a worse one.

        Raises
        ------
        SelectionError
            If there is no such severity.
        """
        if severity not in SEVERITIES:
            raise SelectionError(f"severity={severity!r}, expected one of {SEVERITIES}.")
        least = SEVERITIES.index(severity)
        return tuple(f for f in self if SEVERITIES.index(f.severity) >= least)

    def to_dict(self) -> dict[str, Any]:
        """Return everything as plain dicts and lists, for programs."""
        findings = [{**asdict(f), "evidence": dict(f.evidence)} for f in self]
        return {"worst": self.worst, "findings": findings, "left_out": list(self.left_out)}

    def __repr__(self) -> str:
        """Return the findings as text, a paragraph each, and what was left out."""
        found = [_paragraph(f) for f in self] or ["Nothing was found."]
        return "\n".join([*found, *(f"left out: {said}" for said in self.left_out)])

    def _repr_html_(self) -> str:
        head = (
            "<tr><th>severity</th><th>layer</th><th>finding</th><th>when not to trust it</th></tr>"
        )
        body = "".join(map(_row, self)) or "<tr><td colspan=4>Nothing was found.</td></tr>"
        rest = "".join(f"<p>Left out: {escape(said)}</p>" for said in self.left_out)
        return f"<table>{head}{body}</table>{rest}"


def _paragraph(f: Finding) -> str:
    return str(f) + (f"\n    But: {f.caution}" if f.caution else "")


def _row(f: Finding) -> str:
    cells = (f.severity, f.layer, f.message, f.caution)
    return "<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in cells) + "</tr>"
