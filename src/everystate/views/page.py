"""The page of a report: sections drawn, linked, and rendered as one HTML file."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import xarray as xr
from bokeh.embed import components
from bokeh.layouts import gridplot
from bokeh.models import BoxZoomTool, Column, LayoutDOM, Range1d, Span
from bokeh.plotting import figure
from bokeh.resources import Resources
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from everystate import schema
from everystate.analysis.layer import layers
from everystate.views import palettes
from everystate.views.controls import connect_units, time_bar
from everystate.views.marks import Mark, Marks, marks_of
from everystate.views.prepare import columns_for, input_layer, prepare, row_of
from everystate.views.sections import gates, inputs, states
from everystate.views.summary import summary
from everystate.views.table import lines_of
from everystate.views.theme import THEME
from everystate.views.time_axis import TimeAxis
from everystate.views.view import View, plain

Section = Callable[[View], list[LayoutDOM]]

SECTIONS: Final[tuple[Section, ...]] = (inputs.draw, states.draw, gates.draw)
"""What is shown of each layer, in this order."""


@dataclass(frozen=True)
class Block:
    """One layer, or the input, as the template needs it.

    Parameters
    ----------
    title : str
        The layer's path.
    root : bokeh.models.LayoutDOM
        Its pictures.
    steps, columns, bucket_size : int
        How much was decimated.
    """

    title: str
    root: LayoutDOM
    steps: int
    columns: int
    bucket_size: int


class Pictures:
    """Draws layers with linked time axes and one cursor.

    Parameters
    ----------
    columns : int
        Most columns of a picture.
    marks : sequence of Mark
        Stretches to shade.
    """

    def __init__(self, columns: int, marks: Sequence[Mark]) -> None:
        self.columns = columns
        self.marks = list(marks)
        self.cursor = Span(dimension="height", line_color=palettes.QUIET, line_dash="dotted")
        self.linked: list[tuple[TimeAxis, Range1d]] = []

    def draw(self, title: str, layer: xr.Dataset) -> Block:
        """Return the pictures of one row of a layer."""
        axis = TimeAxis.of(layer[schema.TIME])
        data = prepare(layer, self.columns)
        view = View(data, axis, self._range(axis), self.cursor, self.marks)
        parts = [part for draw in SECTIONS for part in draw(view)]
        connect_units(view)
        sizes = data.sizes["column"], int(data.attrs["bucket_size"])
        return Block(title, _one_below_another(view, parts), axis.size, *sizes)

    def _range(self, axis: TimeAxis) -> Range1d:
        for other, shared in self.linked:
            if axis.fits(other):
                return shared
        start, end = axis.ends
        found = Range1d(start=start, end=end, bounds=(start, end), min_interval=2 * axis.step)
        self.linked.append((axis, found))
        return found


def _one_below_another(view: View, parts: Sequence[LayoutDOM]) -> LayoutDOM:
    """Return the pictures in a column, with one set of tools, and time named below the last."""
    pictures = [part for part in parts if isinstance(part, figure)]
    pictures[-1].xaxis.axis_label = plain(view.axis.title)
    grid = gridplot(
        [[part] for part in parts], sizing_mode="stretch_width", toolbar_options={"logo": None}
    )
    grid.spacing = 6
    # Tools of several pictures are merged into a proxy; what dragging does is said there.
    merged = {type(getattr(tool, "tools", [tool])[0]): tool for tool in grid.toolbar.tools}
    grid.toolbar.active_drag = merged[BoxZoomTool]
    if not view.choosable():
        return grid
    return Column(children=[view.choice, grid], sizing_mode="stretch_width")


def render(
    trace: xr.DataTree, title: str | None, series: Any, marks: Marks | None, row: object
) -> str:
    """Return a report as HTML; parameters and errors are those of `everystate.report`."""
    found = {path: row_of(layer, row) for path, layer in layers(trace).items()}
    first = next(iter(found.values()))
    if series is not None:
        found = {"Input": input_layer(series, first[schema.TIME]), **found}
    pictures = Pictures(columns_for(found.values()), marks_of(marks))
    blocks = [pictures.draw(name, layer) for name, layer in found.items()]
    bar = time_bar([shared for _, shared in pictures.linked])
    script, divs = components([bar, *(block.root for block in blocks)], theme=THEME)
    table = summary(trace)
    html: str = _template().render(
        title=title or f"States of {trace.root.attrs.get('model', 'a model')}",
        facts=_facts(trace, first),
        layers=list(table.index),
        lines=lines_of(table),
        lost={path: int(n) for path, n in table["not_finite"].items() if n},
        marks=pictures.marks,
        colors=palettes,
        bar=Markup(divs[0]),  # noqa: S704  # bokeh's own markup: an empty div with an id
        blocks=list(zip(blocks, map(Markup, divs[1:]), strict=True)),
        script=Markup(script),  # noqa: S704  # bokeh escapes the document inside
        bokeh=Markup(Resources("inline", components=["bokeh", "bokeh-widgets"]).render_js()),  # noqa: S704
    )
    return html


def _facts(trace: xr.DataTree, first: xr.Dataset) -> dict[str, str]:
    attrs = trace.root.attrs
    versions = [
        f"{str(name).removesuffix('_version')} {value}"
        for name, value in attrs.items()
        if str(name).endswith("_version")
    ]
    facts = {"Model": attrs.get("model", ""), "Recorded": attrs.get("created", "")}
    facts["With"] = ", ".join(versions)
    rows = next(iter(layers(trace).values())).sizes.get(schema.BATCH, 1)
    if rows > 1:
        row = first[schema.BATCH].item()
        facts["Row"] = (
            f"The pictures show row {row} of {rows} rows; the table is of all of them. "
            "Another: es.report(trace, row=...)."
        )
    return {name: str(text) for name, text in facts.items() if text}


def _template() -> Any:
    environment = Environment(
        loader=PackageLoader("everystate.views", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("report.html.j2")
