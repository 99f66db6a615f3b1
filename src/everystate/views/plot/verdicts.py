"""When each finding of a diagnosis holds: a bar for each, the worst on top."""

from __future__ import annotations

from collections.abc import Sequence
from textwrap import shorten, wrap
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
"""Characters of a message that are written beside its bar."""


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
    whole record.

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
    named = set()
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
        said = shorten(f"{ready.layer.values[k]}: {ready.message.values[k]}", LONGEST)
        ax.text(
            first + 0.004 * (last - first),
            count - 0.8 - k,
            text("\n".join(wrap(said, LONGEST))),
            va="bottom",
            fontsize="small",
            color=palettes.INK,
        )
    ax.set(ylim=(-0.5, count), yticks=[])
    ax.spines[["left", "top", "right"]].set_visible(False)
    show_time(ax, axis)
    ax.legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=3, frameon=False)
    return ax
