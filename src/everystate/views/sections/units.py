"""Units beside each other, over all rows and steps: saturation of their gates, and half-life."""

from typing import Final

import numpy as np
import xarray as xr
from bokeh.models import ColumnDataSource, HoverTool, LayoutDOM, Range1d, Row
from bokeh.plotting import figure

from everystate.analysis.memory import half_life
from everystate.analysis.saturation import saturation
from everystate.views import palettes
from everystate.views.view import View, plain

MARKERS: Final = ("circle", "triangle", "square", "diamond")
"""Of each gate in turn: told apart without colour vision too."""
SIZE: Final = 300
"""Screen lines of a picture, and most columns of one."""


def draw(view: View) -> list[LayoutDOM]:
    """Return the scatter of saturation and the half-lives in order, as far as gates say them."""
    if view.layer is None:
        return []
    parts = [*_saturation(view, view.layer), *_half_life(view, view.layer)]
    styles = {"flex-wrap": "wrap", "gap": "12px"}
    return [Row(children=parts, styles=styles, sizing_mode="stretch_width")] if parts else []


def _blank(view: View, kind: str, title: str, **ranges: object) -> figure:
    fig = figure(
        title=title,
        frame_height=SIZE,
        sizing_mode="stretch_width",
        min_width=SIZE,
        max_width=2 * SIZE - 100,
        toolbar_location=None,
        tools="",
        name=view.picture(kind, ""),
        **ranges,
    )
    fig.min_border_left = 60
    return fig


def _saturation(view: View, layer: xr.Dataset) -> list[figure]:
    shares = saturation(layer)
    if not shares:
        return []
    ends = {"x_range": Range1d(start=-0.03, end=1.03), "y_range": Range1d(start=-0.03, end=1.03)}
    fig = _blank(view, "saturation", "Each unit's gates near the ends of their range", **ends)
    fig.xaxis.axis_label = "share of values right-saturated (open)"
    fig.yaxis.axis_label = "share of values left-saturated (shut)"
    fig.line([0, 1], [1, 0], color=palettes.RULE)
    for k, name in enumerate(map(str, shares["variable"].values)):
        one = shares.sel(variable=name)
        labels = [plain(str(label)) for label in shares["unit"].values]
        source = ColumnDataSource({"x": one.right.values, "y": one.left.values, "unit": labels})
        points = fig.scatter(
            "x",
            "y",
            source=source,
            marker=MARKERS[k % len(MARKERS)],
            size=8,
            fill_alpha=0.15,
            color=palettes.DISTINCT[k % len(palettes.DISTINCT)],
            legend_label=view.long_name(name),
        )
        said = [("unit", "@unit"), ("open", "@x{0.0 %}"), ("shut", "@y{0.0 %}")]
        fig.add_tools(HoverTool(renderers=[points], tooltips=said))
    fig.legend.update(label_text_font_size="11px", background_fill_alpha=0.7, location="top_right")
    return [fig]


def _half_life(view: View, layer: xr.Dataset) -> list[figure]:
    found = half_life(layer)
    if not found:
        return []
    steps = found.half_life.values
    order = np.argsort(steps)
    order = order[np.isfinite(steps[order]) & (steps[order] > 0)]
    if not order.size:
        return []
    labels = [plain(str(label)) for label in found.half_life["unit"].values[order]]
    endless = int(np.isinf(steps).sum())
    beyond = f"; {endless} more without end" if endless else ""
    title = f"Half-life of what a unit holds, shortest first{beyond}"
    fig = _blank(view, "half_life", title, y_axis_type="log")
    fig.xaxis.axis_label, fig.yaxis.axis_label = "units in order", "steps"
    places = np.arange(order.size)
    source = ColumnDataSource({"x": places, "y": steps[order], "unit": labels})
    points = fig.scatter("x", "y", source=source, size=6, color=palettes.MEAN, fill_alpha=0.3)
    said = [("unit", "@unit"), ("half-life", "@y{0,0.0} steps")]
    fig.add_tools(HoverTool(renderers=[points], tooltips=said))
    return [fig]
