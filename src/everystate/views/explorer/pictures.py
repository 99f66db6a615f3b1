"""What the explorer draws, as HoloViews elements; each is a function of what is chosen."""

from functools import lru_cache
from typing import Any, Final

import datashader as ds
import holoviews as hv
import numpy as np
import xarray as xr
from bokeh.events import SelectionGeometry
from bokeh.models import (
    BasicTicker,
    BoxAnnotation,
    BoxSelectTool,
    CustomJSTickFormatter,
    DatetimeTickFormatter,
    PanTool,
    ResetTool,
    SaveTool,
    WheelZoomTool,
)
from bokeh.palettes import Cividis256

from everystate import schema
from everystate.analysis.layer import gates
from everystate.analysis.saturation import gate_range
from everystate.views import palettes
from everystate.views.explorer.session import Session
from everystate.views.explorer.source import Source, Stretch, reader
from everystate.views.figures import LEFT, RIGHT, steps_in_full
from everystate.views.time_axis import TimeAxis
from everystate.views.view import plain

HEIGHTS: Final = {"heat": 340, "lines": 220, "scores": 110}
INKS: Final = ["#c9d3dc", "#93a9bc", "#5b7d99", "#2d4f6e"]
"""How many units run through a place: few to many."""
INKED: Final = {
    "color": "ink",
    "cmap": list(palettes.DISTINCT),
    "clim": (-0.5, len(palettes.DISTINCT) - 0.5),
    "line_width": 1.5,
}
GAP: Final = [np.nan, np.nan]
NOTHING: Final = {"time": GAP, "value": GAP, "score": GAP, "unit": "", "ink": 0}
"""A line that is not seen: HoloViews cannot draw none."""
LABELLED: Final = 20_000
"""Steps up to which time labels that are no numbers are sent to the browser."""
TICKS: Final = 8
TEXT: Final = {"text_font_size": "11px", "text_color": palettes.INK}

TIME = hv.Dimension("time", label="time")
UNIT = hv.Dimension("unit", label="unit")
VALUE = hv.Dimension("value", label="value")
SCORE = hv.Dimension("score", label="score")
"""Names from a trace never name a dimension: bokeh would read ``@``, ``$`` and ``<`` in them."""


def heat_map(session: Session, what: str = "trace") -> hv.Overlay:
    """Return every unit over the stretch shown, in the order chosen, with what is selected."""
    shown = session.stretch(what)
    order = session.ordered(session.stretch() if what != "trace" else shown)
    left, right = (session.axis.at(end) for end in shown.ends)
    colors = _colors(session, shown, what)
    said = palettes.said_of_bound(shown.values.extremes, colors["clim"][1])
    title = _title(session, what) + (f" ({said})" if said else "")
    image = hv.Image(
        shown.values.extremes[order][::-1],
        bounds=(left, -0.5, right, len(order) - 0.5),
        kdims=[TIME, UNIT],
        vdims=[VALUE],
    ).opts(**colors, yticks=_ticks(session, order))
    chosen = [int(k) for k in np.flatnonzero(np.isin(order, session.picked))]
    arrows = hv.Labels(
        [
            (session.axis.at(session.window[0]), k, "\N{BLACK RIGHT-POINTING TRIANGLE}")
            for k in chosen
        ],
        [TIME, UNIT],
        "text",
    ).opts(text_align="left", text_font_size="11px", text_color=palettes.INK)
    return (image * arrows * _selected(session)).opts(
        **_frame(session, "heat", title, (-0.5, len(order) - 0.5))
    )


def lines(session: Session) -> hv.Overlay:
    """Return how many units run where, by Datashader, and the picked units as lines on it."""
    shown = session.stretch()
    x, values = session.axis.at(shown.middles), shown.values.extremes
    low, high = _limits(values)
    image = hv.Image(
        _density(shown),
        bounds=(float(x[0]), low, float(x[-1]), high),
        kdims=[TIME, VALUE],
        vdims=[hv.Dimension("count", label="units")],
    ).opts(cmap=INKS, clim=(0, 1), clipping_colors={"NaN": "#00000000"})
    paths = [
        {"time": x, "value": values[unit], "unit": str(label), "ink": k % len(palettes.DISTINCT)}
        for k, (unit, label) in enumerate((u, session.units[u]) for u in session.picked)
    ]
    drawn = hv.Path(paths or [NOTHING], [TIME, VALUE], ["unit", "ink"]).opts(**INKED)
    ends = [(float(x[-1]), float(path["value"][-1]), path["unit"]) for path in paths]
    names = hv.Labels(ends, [TIME, VALUE], "text")
    names = names.opts(text_align="right", text_baseline="bottom", **TEXT)
    every = image * drawn * names * _selected(session)
    title = f"{_long_name(session)}: all units as a density, picked units as lines"
    return every.opts(**_frame(session, "lines", title, (low, high)))


def scores(session: Session) -> hv.Overlay:
    """Return the scores that were given, each scaled to its largest size in the stretch shown."""
    paths = []
    for k, (name, layer) in enumerate(session.series.items()):
        axis = TimeAxis.of(layer[schema.TIME])
        first, last = ((session.axis.at(end) - axis.start) / axis.step for end in session.window)
        values = layer[schema.INPUTS]
        source = Source(reader(layer, schema.INPUTS), axis.size, values.shape[1])
        if last < 0 or first > axis.size:
            continue
        shown = source.stretch(int(np.floor(first + 0.5)), int(np.ceil(last + 0.5)), 1000)
        for row in shown.values.extremes:
            size = np.nanmax(np.abs(row), initial=0.0) or 1.0
            ink = k % len(palettes.DISTINCT)
            at = axis.at(shown.middles)
            paths.append({"time": at, "score": row / size, "unit": plain(name), "ink": ink})
    drawn = hv.Path(paths or [NOTHING], [TIME, SCORE], ["unit", "ink"]).opts(**INKED)
    title = "Scores, each over its largest size shown: " + ", ".join(session.series)
    every = drawn * _selected(session)
    return every.opts(**_frame(session, "scores", title, (-1.1, 1.1)))


@lru_cache(maxsize=2)
def _density(shown: Stretch) -> Any:
    """Return the share of units whose line runs through each place, on a log scale of 0 to 1."""
    values = shown.values.extremes
    units, count = values.shape
    limits = _limits(values)
    canvas = ds.Canvas(min(900, max(2, count)), 180, x_range=(0, max(1, count - 1)), y_range=limits)
    drawn = np.where(np.isfinite(values), values, np.nan)
    table = xr.Dataset({"y": (("unit", "x"), drawn)}, {"x": np.arange(count, dtype=float)})
    through = canvas.line(table, x="x", y="y", agg=ds.count(), line_width=1).values[::-1]
    through = np.where(through > 0, through, np.nan)
    return np.log1p(through) / np.log1p(max(units, 2))


def _limits(values: Any) -> tuple[float, float]:
    finite = values[np.isfinite(values)]
    if not finite.size:
        return -1.0, 1.0
    low, high = float(finite.min()), float(finite.max())
    margin = 0.05 * (high - low) or 0.5
    return low - margin, high + margin


def _long_name(session: Session) -> str:
    long = str(session.data[session.variable].attrs.get("long_name", session.variable))
    return long if long == session.variable else f"{long} {session.variable}"


def _title(session: Session, what: str) -> str:
    name = _long_name(session)
    if what == "difference":
        return f"{name}: this trace minus the other"
    return f"{name} of the other trace" if what == "other" else f"{name}, every unit"


def _colors(session: Session, shown: Stretch, what: str) -> dict[str, Any]:
    colors = {"clipping_colors": {"NaN": palettes.MISSING}, "colorbar": True}
    layer = session.layers[session.layer]
    is_gate = what != "difference" and session.variable in gates(layer)
    ends = gate_range(layer, session.variable) if is_gate else None
    if ends is not None and ends[0] == 0.0:
        return {**colors, "cmap": list(Cividis256), "clim": (0.0, 1.0)}
    bound = palettes.bound_of(shown.values.extremes) if ends is None else ends[1]
    return {**colors, "cmap": list(palettes.DIVERGING), "clim": (-bound, bound)}


def _ticks(session: Session, order: Any) -> list[tuple[int, str]]:
    every = max(1, len(order) // TICKS)
    return [(k, plain(str(session.units[order[k]]))) for k in range(0, len(order), every)]


def _selected(session: Session) -> hv.VSpans:
    """Frame the selection."""
    spans = []
    if session.selection is not None:
        first, stop = session.selection
        spans = [(session.axis.at(first - 0.5), session.axis.at(stop - 0.5))]
    return hv.VSpans(spans).opts(
        fill_alpha=0.08, color=palettes.INK, line_dash="dashed", line_alpha=1
    )


def _shade(figure: Any, session: Session) -> None:
    """Shade the labelled stretches, once."""
    if "shaded" in figure.tags:
        return
    figure.tags = [*figure.tags, "shaded"]
    for mark in session.marks:
        for left, right in mark.places(session.axis):
            box = BoxAnnotation(left=left, right=right, fill_alpha=0.06, line_alpha=1)
            box.update(fill_color=mark.color, line_color=mark.color, line_width=1.5)
            box.update(hatch_pattern=mark.hatch, hatch_color=mark.color, hatch_alpha=0.3)
            figure.add_layout(box)


def _frame(session: Session, kind: str, title: str, limits: tuple[float, float]) -> dict[str, Any]:
    def every_time(plot: Any, element: object) -> None:
        figure = plot.handles["plot"]
        figure.title.text = plain(title)
        figure.toolbar.logo = None
        figure.min_border_left, figure.min_border_right = LEFT, RIGHT
        figure.xaxis.axis_label = plain(session.axis.title)
        session.ranges[kind] = figure.x_range
        figure.x_range.bounds = session.axis.ends
        figure.x_range.min_interval = 2 * session.axis.step
        figure.xaxis.formatter = _formatter(session.axis) or figure.xaxis.formatter
        _shade(figure, session)
        figure.yaxis.minor_tick_line_color = None
        if kind != "heat":
            figure.yaxis.ticker = BasicTicker(desired_num_ticks=4)
        if (figure.y_range.start, figure.y_range.end) != limits:
            figure.y_range.update(start=limits[0], end=limits[1])
        if not figure.select(type=BoxSelectTool):
            _equip(figure, session)

    return {
        "responsive": True,
        "height": HEIGHTS[kind],
        "title": "",
        "toolbar": "above",
        "default_tools": [],
        "xlim": tuple(session.axis.at(end) for end in session.window),
        "show_legend": False,
        "hooks": [every_time],
    }


def _equip(figure: Any, session: Session) -> None:
    """Give a picture the tools that move in time only, and none of those that HoloViews gave."""

    def boxed(event: Any) -> None:
        session.boxed(event.geometry["x0"], event.geometry["x1"])

    select, wheel = BoxSelectTool(dimensions="width"), WheelZoomTool(dimensions="width")
    figure.toolbar.tools = [select, wheel, PanTool(dimensions="width"), ResetTool(), SaveTool()]
    figure.toolbar.active_drag, figure.toolbar.active_scroll = select, wheel
    figure.on_event(SelectionGeometry, boxed)


def _formatter(axis: TimeAxis) -> Any:
    if axis.kind == "datetime":
        return DatetimeTickFormatter()
    if axis.kind == "number":
        return steps_in_full()
    if axis.size > LABELLED:
        return None
    names = [axis.text(k) for k in range(axis.size)]
    return CustomJSTickFormatter(args={"names": names}, code="return names[Math.round(tick)] ?? ''")
