"""When each finding of a diagnosis holds: a bar for each, the worst on top."""

from __future__ import annotations

from collections.abc import Sequence
from textwrap import shorten
from typing import TYPE_CHECKING, Final

import numpy as np
import xarray as xr

from everystate import schema
from everystate.analysis.finding import SEVERITIES, Finding
from everystate.analysis.layer import layers
from everystate.errors import SelectionError
from everystate.views import palettes
from everystate.views.plot.canvas import axes_for, places, scaled, show_time, text
from everystate.views.time_axis import TimeAxis

if TYPE_CHECKING:
    from matplotlib.axes import Axes

HATCHES: Final = dict(zip(SEVERITIES, ("", "///", "xxx"), strict=True))
"""Of each severity: told apart without colour vision too."""
LONGEST: Final = 110
"""Characters of a message that are written above its bar, where there is room."""
LEAST: Final = 20
"""Characters of it that are written however narrow the axes are."""
TEXT_SIZE: Final = 8.0
"""Of a message, in points."""
LETTER: Final = 0.52
"""Width of a letter on average, over the size of the text: rather too wide than too narrow."""
SEEN: Final = 0.005
"""Share of the axis that a bar takes at least to be seen by itself."""


def prepare_timeline(findings: Sequence[Finding], trace: xr.DataTree) -> xr.Dataset:
    """Return the stretch of time in which each finding holds.

    Parameters
    ----------
    findings : sequence of Finding
        What ``es.diagnose`` returned.
    trace : xarray.DataTree
        What it is about. All layers are shown on the time axis of the first.

    Returns
    -------
    xarray.Dataset
        ``start`` and ``stop`` (finding): the ends of the stretch on the axis, half a step
        beyond its first and last step; of a finding without a window the whole record.
        ``severity``, ``layer`` and ``message`` (finding).

    Raises
    ------
    SelectionError
        If there is no finding.
    InputError
        If the window of a finding is not on the time axis.
    """
    if not len(findings):
        raise SelectionError("there is no finding to draw: the diagnosis is empty.")
    axis = TimeAxis.of(next(iter(layers(trace).values()))[schema.TIME])
    windows = [finding.plot.window if finding.plot else None for finding in findings]
    half = axis.step / 2
    ends = [
        axis.ends
        if window is None
        else (axis.place_of(window[0]) - half, axis.place_of(window[1]) + half)
        for window in windows
    ]
    told = {name: [getattr(f, name) for f in findings] for name in ("severity", "layer", "message")}
    start, stop = np.array(ends).T
    return xr.Dataset(
        {
            name: ("finding", values)
            for name, values in {"start": start, "stop": stop, **told}.items()
        }
    )


def timeline(findings: Sequence[Finding], trace: xr.DataTree, *, ax: Axes | None = None) -> Axes:
    """Draw when each finding of a diagnosis holds: a bar for each, in their order from the top.

    Severity is told by colour and hatching. A bar over the whole width is a finding about the
    whole record; a diamond marks one that is too short to be seen, such as a single step.
    Messages are shortened to the width that `ax` has.

    Parameters
    ----------
    findings : sequence of Finding
        What ``es.diagnose`` returned.
    trace : xarray.DataTree
        What it is about. All layers are shown on the time axis of the first.
    ax : matplotlib.axes.Axes, optional
        Where to draw. None: a new figure.

    Returns
    -------
    matplotlib.axes.Axes

    Raises
    ------
    SelectionError
        If there is no finding.
    InputError
        If the window of a finding is not on the time axis.
    MissingDependencyError
        If matplotlib is not installed (``pip install 'everystate[plot]'``).

    Examples
    --------
    >>> import matplotlib; matplotlib.use("agg")
    >>> from everystate.analysis.finding import Plot
    >>> h = xr.Dataset({"h": (("batch", "time", "unit"), np.zeros((1, 50, 2)))})
    >>> trace = xr.DataTree.from_dict({"/": xr.Dataset(attrs={"everystate_schema": 1}), "/gru": h})
    >>> late = Plot("heat_map", "h", window=(30, 39))
    >>> ax = timeline([Finding("stuck", "warning", "gru", "It is stuck.", plot=late)], trace)
    >>> bar = ax.patches[0]
    >>> float(bar.get_x()), float(bar.get_width())
    (29.5, 10.0)
    """
    ready = prepare_timeline(findings, trace)
    axis = TimeAxis.of(next(iter(layers(trace).values()))[schema.TIME])
    count = ready.sizes["finding"]
    ax = axes_for(ax, size=(8.0, 1.0 + 0.55 * count))
    start, stop = scaled(axis, ready.start.values), scaled(axis, ready.stop.values)
    first, last = places(axis, [-0.5, axis.size - 0.5])
    named, room = set(), _room(ax)
    for k, severity in enumerate(ready.severity.values.tolist()):
        ax.barh(
            count - 1 - k,
            stop[k] - start[k],
            left=start[k],
            height=0.32,
            color=palettes.SEVERITY[severity],
            edgecolor="white",
            hatch=HATCHES[severity],
            label="_" if severity in named else severity,
        )
        named.add(severity)
        if stop[k] - start[k] < SEEN * (last - first):
            _point_at(ax, (start[k] + stop[k]) / 2, count - 1 - k, severity)
        said = shorten(f"{ready.layer.values[k]}: {ready.message.values[k]}", room)
        ax.text(
            first + 0.004 * (last - first),
            count - 0.8 - k,
            text(said),
            va="bottom",
            fontsize=TEXT_SIZE,
            color=palettes.INK,
        ).set_in_layout(False)
    ax.set(ylim=(-0.5, count), yticks=[])
    ax.spines[["left", "top", "right"]].set_visible(False)
    show_time(ax, axis)
    ax.legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=3, frameon=False, fontsize="small")
    return ax


def _room(ax: Axes) -> int:
    """Return how many characters of a message fit into the width of the axes."""
    points = 72 * ax.get_window_extent().width / ax.figure.dpi
    return min(LONGEST, max(LEAST, int(points / (LETTER * TEXT_SIZE))))


def _point_at(ax: Axes, middle: float, bar: float, severity: str) -> None:
    """Mark a bar that is too narrow to be seen, such as that of one step among thousands."""
    ax.plot(
        middle,
        bar,
        marker="D",
        markersize=7,
        color=palettes.SEVERITY[severity],
        markeredgecolor="white",
        linestyle="none",
        label="_",
    )
