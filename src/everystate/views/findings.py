"""Findings on the page: what is said of each, and which picture it leads to."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from markupsafe import Markup

from everystate.analysis.finding import Finding, Plot, Severity
from everystate.views import palettes
from everystate.views.view import View

SIGNS: Final[Mapping[Severity, str]] = {
    "error": "M7 1L13 13H1Z",
    "warning": "M7 1L13 7L7 13L1 7Z",
    "info": "M7 1A6 6 0 1 1 6.99 1Z",
}
"""The shape of each severity, as a path of 14 by 14: told apart without colour vision."""
SHOWN: Final = 20
"""Steps that are shown at least."""
FEW: Final = 2
"""Findings that are not worth folding."""


@dataclass(frozen=True)
class Told:
    """One finding as the template needs it.

    Parameters
    ----------
    finding : Finding
        What was found.
    sign, color : str
        Shape and colour of its severity.
    evidence : list of (str, str)
        Name and figure.
    where : str
        Unit, time and row that the picture shows; empty if it has none.
    target : str
        As JSON, what the page does when it is asked to show it: see ``templates/show.js``.
    """

    finding: Finding
    sign: str
    color: str
    evidence: list[tuple[str, str]]
    where: str
    target: str


def told(finding: Finding, views: Mapping[str, View], row: object) -> Told:
    """Return a finding with the picture that shows it.

    Parameters
    ----------
    finding : Finding
        What was found.
    views : mapping of str to View
        The layers that were drawn, by path.
    row : label
        The row of the batch that is drawn.
    """
    view = views.get(finding.layer)
    plot = finding.plot
    target = {} if view is None else _target(view, plot)
    return Told(
        finding,
        SIGNS[finding.severity],
        palettes.SEVERITY[finding.severity],
        [
            (str(name).replace("_", " "), _written(value))
            for name, value in finding.evidence.items()
        ],
        "" if view is None or plot is None else _where(view, plot, row),
        json.dumps(target),
    )


def shown_open(findings: Sequence[Finding]) -> int:
    """Return how many findings the page shows at once; the others are one click away.

    All up to the last that is a warning or worse; and all if there is none, or if what follows is
    no more than `FEW`.
    """
    grave = [k for k, finding in enumerate(findings) if finding.severity != "info"]
    most = 1 + grave[-1] if grave else len(findings)
    return most if len(findings) - most > FEW else len(findings)


def _target(view: View, plot: Plot | None) -> dict[str, Any]:
    target: dict[str, Any] = {"block": view.block}
    if plot is None:
        return target
    if plot.variable in view.variables:
        key = view.key(plot.variable)
        target |= {"key": key, "picture": view.picture(plot.name, plot.variable)}
    target |= {"range": view.x_range.name, "least": SHOWN * view.axis.step}
    if plot.window is not None:
        target["stretch"] = _stretch(view, plot.window)
    at = _position(view, plot)
    return target if at is None else target | {"unit": str(at)}


def _stretch(view: View, window: tuple[Any, Any]) -> list[float]:
    """Return where a window begins and ends on the axis, half a step beyond its steps."""
    half = view.axis.step / 2
    return [view.axis.place_of(window[0]) - half, view.axis.place_of(window[1]) + half]


def _position(view: View, plot: Plot) -> int | None:
    if not plot.units or not view.choosable():
        return None
    labels = view.data[view.width_dim(view.choosable()[0])].values
    found = np.flatnonzero(labels == plot.units[0])
    return int(found[0]) if found.size else None


def _where(view: View, plot: Plot, row: object) -> str:
    parts = []
    if plot.units:
        several = len(plot.units) > 1
        listed = ", ".join(map(str, plot.units[:5])) + (" …" if len(plot.units) > 5 else "")
        parts.append(f"unit{'s' if several else ''} {listed}")
    if plot.window is not None:
        first, last = plot.window
        parts.append(f"at {first}" if first == last else f"{first} to {last}")
    if plot.row is not None and plot.row != row:
        parts.append(f"best seen in row {plot.row}, while the pictures show row {row}")
    return "; ".join(parts)


def coded(text: str) -> Markup:
    """Return text as HTML, what stands between backticks as code."""
    parts = re.split(r"`([^`]+)`", text)
    html = ("{}", "<code>{}</code>")
    return Markup().join(Markup(html[k % 2]).format(part) for k, part in enumerate(parts))  # noqa: S704  # format escapes


def _written(value: Any) -> str:
    if isinstance(value, list | tuple | np.ndarray):
        listed = list(value)
        return ", ".join(map(_written, listed[:8])) + (" …" if len(listed) > 8 else "")
    if isinstance(value, Mapping):
        return ", ".join(f"{name}: {_written(one)}" for name, one in value.items())
    if isinstance(value, float | np.floating):
        return f"{value:,.4g}"
    if isinstance(value, int | np.integer) and not isinstance(value, bool):
        return f"{value:,}"
    return str(value)
