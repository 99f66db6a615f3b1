"""The pictures that sections are made of: heat maps, and strips of lines, over a shared time."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
from bokeh.core.properties import value
from bokeh.models import (
    BasicTicker,
    BasicTickFormatter,
    BoxAnnotation,
    BoxZoomTool,
    ColorBar,
    CrosshairTool,
    CustomJSHover,
    CustomJSTickFormatter,
    GlyphRenderer,
    HoverTool,
    Label,
    Legend,
    LegendItem,
    LinearColorMapper,
    PanTool,
    Range1d,
    ResetTool,
    SaveTool,
    WheelZoomTool,
)
from bokeh.palettes import Cividis256
from bokeh.plotting import figure

from everystate.views import palettes
from everystate.views.marks import Mark
from everystate.views.view import View, plain

LEFT, RIGHT = 70, 84
"""Room beside every picture, the same for all, so that their time axes lie below each other."""
STRIP_HEIGHT: Final = 92
HEAT_MAP_HEIGHT: Final = (150, 600)
"""Least and most; between them each unit has a whole number of screen lines."""
NUMBER: Final = "{%.6g}"
"""How hovering writes a value."""
LANE_HEIGHT: Final = 9
"""Of each mark above a heat map, whose colours it must not cover."""
FRAMED: Final = 7
"""Screen lines that a unit must have to be framed."""


@dataclass(frozen=True)
class Scale:
    """The colours of a heat map.

    Parameters
    ----------
    palette : sequence of str
        Colours from `low` to `high`.
    low, high : float
        Values beyond them have the last colours.
    """

    palette: Sequence[str]
    low: float
    high: float

    @classmethod
    def around_zero(cls, values: npt.NDArray[np.floating]) -> "Scale":
        """Return a symmetric scale for all finite values, or for most (`palettes.bound_of`)."""
        return cls.symmetric(palettes.bound_of(values))

    @classmethod
    def symmetric(cls, bound: float) -> "Scale":
        """Return the diverging scale from minus `bound` to `bound`."""
        return cls(palettes.DIVERGING, -bound, bound)

    @classmethod
    def share(cls) -> "Scale":
        """Return the sequential scale from 0 to 1."""
        return cls(Cividis256, 0.0, 1.0)


def blank(view: View, title: str, height: int) -> figure:
    """Return a picture with nothing in it but its axes, tools and marks."""
    box = BoxZoomTool(dimensions="width")
    wheel = WheelZoomTool(dimensions="width", modifiers={"ctrl": True})
    fig = figure(
        sizing_mode="stretch_width",
        frame_height=height,
        min_border_left=LEFT,
        min_border_right=RIGHT,
        x_range=view.x_range,
        x_axis_type="datetime" if view.axis.kind == "datetime" else "linear",
        title=title,
        tools=[
            box,
            PanTool(dimensions="width"),
            wheel,
            ResetTool(),
            SaveTool(),
            CrosshairTool(overlay=view.cursor),
        ],
        active_drag=box,
        active_scroll=wheel,
    )
    if view.axis.kind == "label":
        fig.xaxis.formatter = _labels_at(view)
    elif view.axis.kind == "number":
        fig.xaxis.formatter = steps_in_full()
    stretch = BoxAnnotation(
        left=0, right=0, visible=False, fill_alpha=0, name=f"stretch-{view.block}"
    )
    stretch.update(line_color=palettes.INK, line_alpha=1, line_dash="dashed", tags=["stretch"])
    fig.add_layout(stretch)
    return fig


def steps_in_full() -> BasicTickFormatter:
    """Write step numbers as people do, 150000: bokeh's own choice is 1.500e+5."""
    return BasicTickFormatter(power_limit_high=10)


def _labels_at(view: View) -> CustomJSTickFormatter:
    """Write the label of the first step of the bucket under each tick."""
    code = """
        const [left, width] = buckets.tags, names = buckets.data.first
        return names[Math.min(names.length - 1, Math.max(0, Math.floor((tick - left) / width)))]
    """
    return CustomJSTickFormatter(args={"buckets": view.buckets}, code=code)


def shade(fig: figure, view: View) -> None:
    """Shade the marks behind the lines of a strip, faintly: a mark may be most of the record."""
    for mark in view.marks:
        _add_boxes(fig, view, mark, level="underlay", fill_alpha=0.1)


def _add_boxes(fig: figure, view: View, mark: Mark, **style: object) -> None:
    for left, right in mark.places(view.axis):
        box = BoxAnnotation(left=left, right=right, fill_color=mark.color, line_color=mark.color)
        box.update(line_alpha=1, **style)
        fig.add_layout(box)


def heat_map(view: View, name: str, scale: Scale) -> figure:
    """Return the picture of one variable: time across, units up, values as colours."""
    fig = blank_heat_map(view, name)
    add_image(fig, view, name, scale)
    said = palettes.said_of_bound(view.data[name].values, scale.high)
    if said:
        fig.title.text += f" ({said})"
    return fig


def blank_heat_map(view: View, name: str) -> figure:
    """Return a heat map without its image: units up, and above them a lane for each mark."""
    labels = view.labels(name)
    least, most = HEAT_MAP_HEIGHT
    height = min(most, len(labels) * max(1, -(-least // len(labels))))
    lane = len(labels) * LANE_HEIGHT / height
    title = f"{view.long_name(name)}, every {view.noun(name)}"
    fig = blank(view, title, height + LANE_HEIGHT * len(view.marks))
    fig.name = view.picture("heat_map", name)
    top = len(labels) - 0.5
    fig.y_range = Range1d(start=-0.5, end=top + lane * len(view.marks))
    for k, mark in enumerate(reversed(view.marks)):
        place = {"bottom": top + k * lane, "top": top + (k + 1) * lane, "fill_alpha": 0.14}
        hatch = {"hatch_pattern": mark.hatch, "hatch_color": mark.color, "hatch_alpha": 0.5}
        _add_boxes(fig, view, mark, **place, **hatch, hatch_scale=9)
    fig.yaxis.axis_label = view.noun(name)
    every = max(1, int(float(f"{len(labels) / 5:.0e}")))
    fig.yaxis.ticker = list(range(0, len(labels), every))
    fig.yaxis.formatter = CustomJSTickFormatter(
        args={"labels": labels}, code="return labels[tick] ?? ''"
    )
    fig.ygrid.visible = fig.xgrid.visible = False
    if name in view.choosable():
        view.heat_maps.append(fig)
        _point_at_chosen(fig, view, height / len(labels))
    return fig


def _point_at_chosen(fig: figure, view: View, pixels: float) -> None:
    """Point at the chosen unit; frame it too, where that leaves something of it to be seen."""
    at = int(view.choice.value)
    arrow = Label(x=0, y=at, x_units="screen", text="\N{BLACK RIGHT-POINTING TRIANGLE}")
    arrow.update(text_font_size="11px", text_baseline="middle", text_color=palettes.INK)
    arrow.update(text_outline_color="white", text_outline_width=3)  # seen on light and on dark
    fig.add_layout(arrow)
    view.arrows.append(arrow)
    if pixels >= FRAMED:
        for color, width in (("white", 3), (palettes.INK, 1)):
            box = BoxAnnotation(bottom=at - 0.5, top=at + 0.5, fill_alpha=0, line_alpha=1)
            box.update(line_color=color, line_width=width)
            fig.add_layout(box)
            view.frames.append(box)


def add_image(fig: figure, view: View, name: str, scale: Scale) -> tuple[GlyphRenderer, ColorBar]:
    """Draw one variable as an image with its colour bar and what hovering says."""
    mapper = LinearColorMapper(
        palette=scale.palette, low=scale.low, high=scale.high, nan_color=palettes.MISSING
    )
    left = view.axis.at(-0.5)
    renderer = fig.image(
        image=view.key(name),
        source=view.images,
        x=left,
        y=-0.5,
        dw=view.axis.step * view.bucket_size * view.data.sizes["bucket"],
        dh=view.data.sizes[view.width_dim(name)],
        color_mapper=mapper,
    )
    view.image_glyphs.append(renderer)
    bar = ColorBar(color_mapper=mapper, width=10, ticker=BasicTicker(desired_num_ticks=5))
    fig.add_layout(bar, "right")
    fig.add_tools(_image_hover(view, name, renderer))
    return renderer, bar


def _image_hover(view: View, name: str, renderer: GlyphRenderer) -> HoverTool:
    span = CustomJSHover(
        args={"buckets": view.buckets},
        code="""
            const [left, width] = buckets.tags
            return buckets.data.span[Math.floor((value - left) / width)] ?? ''
        """,
    )
    unit = CustomJSHover(
        args={"labels": view.labels(name)}, code="return labels[Math.round(value)] ?? ''"
    )
    key = f"@{view.key(name)}"
    tips = [(view.noun(name), "$y{custom}"), ("time", "$x{custom}"), ("value", key + NUMBER)]
    return HoverTool(
        renderers=[renderer],
        tooltips=tips,
        formatters={"$x": span, "$y": unit, key: "printf"},
    )


def strip(view: View, name: str, limits: tuple[float, float] | None) -> figure:
    """Return the picture of one variable's mean and band over units, and of the chosen unit."""
    fig = blank(view, f"{view.long_name(name)}, over all {view.noun(name)}s", STRIP_HEIGHT)
    fig.name = view.picture("over_units", name)
    low, high, mean = (view.key(name, part) for part in ("low", "high", "mean"))
    fig.varea("x", low, high, source=view.columns, color=palettes.BAND, fill_alpha=0.7)
    line = fig.line("x", mean, source=view.columns, color=palettes.MEAN, line_width=2.5)
    tips = [("mean", mean), ("10 % of the units below", low), ("10 % above", high)]
    if name in view.choosable():
        chosen = view.key(name)
        fig.line("x", chosen, source=view.columns, color=palettes.CHOSEN, line_width=1)
        tips.insert(0, ("chosen unit", chosen))
    fig.add_tools(
        HoverTool(
            renderers=[line],
            mode="vline",
            tooltips=[("time", "@span"), *((text, f"@{key}{NUMBER}") for text, key in tips)],
            formatters={f"@{key}": "printf" for _, key in tips},
        )
    )
    fig.window_axis = "x"  # without limits: the values of the stretch of time shown
    if limits is not None:
        margin = 0.04 * (limits[1] - limits[0])
        fig.y_range = Range1d(start=limits[0] - margin, end=limits[1] + margin)
    fig.yaxis.ticker = BasicTicker(desired_num_ticks=3)
    shade(fig, view)
    return fig


def lines(view: View, name: str) -> figure:
    """Return the picture of one variable's features, a line for each."""
    fig = blank(view, view.long_name(name), 2 * STRIP_HEIGHT)
    labels, items = view.labels(name), []
    for k, label in enumerate(labels):
        key = view.key(name, f"feature{k}")
        view.columns.add(view.data[name].values[k], key)
        line = fig.line(
            "x", key, source=view.columns, color=palettes.DISTINCT[k], line_width=1.3, name=label
        )
        items.append(LegendItem(label=value(plain(label)), renderers=[line]))
    if len(items) > 1:
        legend = Legend(items=items, orientation="horizontal", ncols=3, padding=2, margin=0)
        legend.update(label_text_font_size="11px", border_line_color=None)
        fig.add_layout(legend, "above")
    fig.add_tools(
        HoverTool(
            tooltips=[("time", "@span"), ("feature", "$name"), ("value", "$snap_y" + NUMBER)],
            formatters={"$snap_y": "printf"},
        )
    )
    shade(fig, view)
    return fig
