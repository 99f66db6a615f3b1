"""The page of a report: sections drawn, linked, and rendered as one HTML file."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import xarray as xr
from bokeh.embed import components
from bokeh.layouts import gridplot
from bokeh.models import BoxZoomTool, Column, Div, LayoutDOM, Range1d, Row, Span
from bokeh.plotting import figure
from bokeh.resources import Resources
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from everystate import schema
from everystate.analysis.diagnose import diagnose
from everystate.analysis.finding import Finding
from everystate.analysis.layer import layers, one_epoch
from everystate.views import palettes
from everystate.views.controls import connect_units, time_bar
from everystate.views.detail import (
    Budget,
    connect_detail,
    encoded,
    prepare_detail,
    said_of,
    source_of,
)
from everystate.views.findings import coded, shown_open, told
from everystate.views.marks import Mark, Marks, check_marks, marks_of
from everystate.views.prepare import columns_for, input_layer, row_of, series_of
from everystate.views.sections import gates, states, units
from everystate.views.sections import inputs as inputs_section
from everystate.views.summary import summary
from everystate.views.table import lines_of
from everystate.views.theme import THEME
from everystate.views.time_axis import TimeAxis
from everystate.views.view import View, plain

Section = Callable[[View], list[LayoutDOM]]

SECTIONS: Final[tuple[Section, ...]] = (
    inputs_section.draw,
    states.draw,
    gates.draw,
    units.draw,
)
"""What is shown of each layer, in this order."""
PLACES: Final = 4
"""Around how many steps of a layer every step is kept."""
NOTE: Final = {"font-size": "13px", "color": palettes.QUIET}


@dataclass(frozen=True)
class Block:
    """One layer, or a series, as the template needs it.

    Parameters
    ----------
    title : str
        The layer's path.
    view : View
        What was drawn of it.
    root : bokeh.models.LayoutDOM
        Its pictures.
    detail : mapping of str to str
        Finer columns as text, by the id of their element.
    finest : int
        Steps of the smallest bucket that there is of the whole record.
    """

    title: str
    view: View
    root: LayoutDOM
    detail: Mapping[str, str]
    finest: int

    @property
    def steps(self) -> int:
        """Recorded steps."""
        return self.view.axis.size


class Pictures:
    """Draws layers with linked time axes and one cursor.

    Parameters
    ----------
    budget : Budget
        How many columns there may be.
    marks : sequence of Mark
        Stretches to shade.
    findings : sequence of Finding
        Whose steps are kept one by one.
    """

    def __init__(self, budget: Budget, marks: Sequence[Mark], findings: Sequence[Finding]) -> None:
        self.budget = budget
        self.marks = list(marks)
        self.findings = findings
        self.cursor = Span(dimension="height", line_color=palettes.QUIET, line_dash="dotted")
        self.linked: list[tuple[TimeAxis, Range1d]] = []
        self.blocks: list[Block] = []

    def draw(self, title: str, row: xr.Dataset, layer: xr.Dataset | None = None) -> None:
        """Draw one row of a layer; `layer` is all of it, for what is no picture over time."""
        axis = TimeAxis.of(row[schema.TIME])
        data, levels = prepare_detail(row, self.budget, self._places(title, axis))
        block = len(self.blocks) + 1
        view = View(data, axis, self._range(axis), self.cursor, self.marks, block, layer)
        parts = [part for draw in SECTIONS for part in draw(view)]
        connect_units(view)
        said = Div(text=said_of(view.bucket_size), styles=NOTE)
        connect_detail(view, levels, said)
        root = _one_below_another(view, parts, said)
        finest = min(
            (level.size for level in levels if level.steps == axis.size), default=view.bucket_size
        )
        self.blocks.append(Block(title, view, root, encoded(view, levels), finest))

    def _places(self, title: str, axis: TimeAxis) -> list[int]:
        """Return the positions of the steps that a reader will look at, at most `PLACES`."""
        windows = [f.plot.window for f in self.findings if f.layer == title and f.plot]
        found = [axis.place_of(window[0]) for window in windows if window is not None]
        found += [left for mark in self.marks for left, _ in mark.places(axis)]
        positions = [round((place - axis.start) / axis.step) for place in [*found, axis.start]]
        return list(dict.fromkeys(positions))[:PLACES]

    def _range(self, axis: TimeAxis) -> Range1d:
        for other, shared in self.linked:
            if axis.fits(other):
                return shared
        start, end = axis.ends
        found = Range1d(start=start, end=end, bounds=(start, end), min_interval=2 * axis.step)
        found.name = f"time-{len(self.linked)}"
        self.linked.append((axis, found))
        return found


def _one_below_another(view: View, parts: Sequence[LayoutDOM], said: Div) -> LayoutDOM:
    """Return the pictures in a column, with one set of tools, and time named below the last."""
    pictures = [part for part in parts if isinstance(part, figure)]
    pictures[-1].xaxis.axis_label = plain(view.axis.title)
    over_time = [part for part in parts if not isinstance(part, Row)]
    grid = gridplot(
        [[part] for part in over_time], sizing_mode="stretch_width", toolbar_options={"logo": None}
    )
    grid.spacing = 6
    # Tools of several pictures are merged into a proxy; what dragging does is said there.
    merged = {type(getattr(tool, "tools", [tool])[0]): tool for tool in grid.toolbar.tools}
    grid.toolbar.active_drag = merged[BoxZoomTool]
    rest = [part for part in parts if isinstance(part, Row)]
    choice = [view.choice] if view.choosable() else []
    return Column(children=[said, *choice, grid, *rest], sizing_mode="stretch_width")


def render(
    trace: xr.DataTree,
    title: str | None,
    series: Any,
    marks: Marks | None,
    row: object,
    findings: Sequence[Finding] | None,
) -> str:
    """Return a report as HTML; parameters and errors are those of `everystate.report`."""
    whole = one_epoch(trace)
    rows = {path: row_of(layer, row) for path, layer in whole.items()}
    first = next(iter(rows.values()))
    given = series if isinstance(series, Mapping) else {} if series is None else {"Input": series}
    inputs = {str(name): input_layer(one, first[schema.TIME]) for name, one in given.items()}
    drawn = [*rows.values(), *inputs.values()]
    shaded = marks_of(marks)
    check_marks(shaded, [TimeAxis.of(one[schema.TIME]) for one in drawn])
    if findings is None:
        findings = diagnose(trace)
    budget = Budget.of(columns_for(drawn), series_of(drawn), PLACES)
    pictures = Pictures(budget, shaded, findings)
    for name, one in inputs.items():
        pictures.draw(name, one)
    for path, one in rows.items():
        pictures.draw(path, one, whole[path])
    return _fill(trace, title, pictures, first)


def _fill(trace: xr.DataTree, title: str | None, pictures: Pictures, first: xr.Dataset) -> str:
    bar = time_bar([shared for _, shared in pictures.linked])
    script, divs = components([bar, *(block.root for block in pictures.blocks)], theme=THEME)
    table = summary(trace)
    views = {block.title: block.view for block in pictures.blocks if block.view.layer is not None}
    row = first[schema.BATCH].item() if schema.BATCH in first.coords else None
    html: str = _template().render(
        title=title or f"States of {trace.root.attrs.get('model', 'a model')}",
        facts=_facts(trace, first),
        findings=[told(finding, views, row) for finding in pictures.findings],
        open=shown_open(pictures.findings),
        left_out=getattr(pictures.findings, "left_out", ()),
        layers=list(table.index),
        lines=lines_of(table),
        lost={path: int(n) for path, n in table["not_finite"].items() if n},
        marks=pictures.marks,
        colors=palettes,
        bar=Markup(divs[0]),  # noqa: S704  # bokeh's own markup: an empty div with an id
        blocks=list(zip(pictures.blocks, map(Markup, divs[1:]), strict=True)),
        script=Markup(script),  # noqa: S704  # bokeh escapes the document inside
        show=Markup(source_of("show.js")),  # noqa: S704  # a file of the package
        bokeh=[Markup(source) for source in _bokeh()],  # noqa: S704  # files of bokeh
    )
    return html


def _bokeh() -> list[str]:
    """Return bokeh's own scripts; `render_js` would add those of whatever else was imported."""
    sources: list[str] = Resources("inline", components=["bokeh", "bokeh-widgets"]).js_raw
    return sources


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
    environment.filters["coded"] = coded
    return environment.get_template("report.html.j2")
