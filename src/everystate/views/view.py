"""`View`: one layer on its way to the page."""

from dataclasses import dataclass, field
from typing import Final

import numpy as np
import xarray as xr
from bokeh.models import (
    BoxAnnotation,
    ColumnDataSource,
    GlyphRenderer,
    Label,
    Range1d,
    Select,
    Span,
)
from bokeh.plotting import figure

from everystate import schema
from everystate.views.marks import Mark
from everystate.views.prepare import column_positions
from everystate.views.time_axis import TimeAxis

NOUNS: Final = {schema.FEATURE: "feature", schema.PROJECTED_UNIT: "projected unit"}


@dataclass(eq=False)
class View:
    """What was prepared of one layer, and what its pictures share.

    Names from a trace are drawn as text, but never become part of a template, a script or the
    name of a column: bokeh would read ``@``, ``$`` and ``<`` in them. A column is called by the
    `key` of its variable.

    Parameters
    ----------
    data : xarray.Dataset
        From `everystate.views.prepare.prepare`.
    axis : TimeAxis
        Where its steps lie.
    x_range : bokeh.models.Range1d
        The stretch of time shown, shared by all pictures that are linked.
    cursor : bokeh.models.Span
        The time under the pointer, shared by all pictures of the page.
    marks : list of Mark
        Stretches to shade.
    block : int
        Which block of the page it is, from 1.
    layer : xarray.Dataset, optional
        The layer with all its rows and steps, for what is no picture over time.
    """

    data: xr.Dataset
    axis: TimeAxis
    x_range: Range1d
    cursor: Span
    marks: list[Mark]
    block: int = 1
    layer: xr.Dataset | None = None
    choice: Select = field(init=False)
    """The control that chooses a unit; its value is the unit's position."""
    images: ColumnDataSource = field(init=False)
    """Each variable as an image, (unit, column)."""
    columns: ColumnDataSource = field(init=False)
    """By column: its place ``x`` and its time ``span``; of each variable the chosen unit, and
    mean, low and high over the units."""
    buckets: ColumnDataSource = field(init=False)
    """By bucket: the time of its first step, ``first``, and of all of it, ``span``. Its tags are
    the place of its left end and the width of a bucket."""
    image_glyphs: list[GlyphRenderer] = field(init=False, default_factory=list)
    """What draws the images."""
    heat_maps: list[figure] = field(init=False, default_factory=list)
    """Those whose units can be chosen."""
    frames: list[BoxAnnotation] = field(init=False, default_factory=list)
    """What frames the chosen unit in them."""
    arrows: list[Label] = field(init=False, default_factory=list)
    """What points at it."""

    def __post_init__(self) -> None:
        """Fill the sources that all pictures draw from."""
        self.choice = self._choice()
        images = {self.key(name): [self.data[name].values] for name in self.variables}
        self.images = ColumnDataSource(images)
        each = self.data.sizes["column"] // self.data.sizes["bucket"]
        middles = self.axis.at(column_positions(self.data))
        columns = {"x": middles, "span": np.repeat(self.spans(), each).tolist()}
        for name in self.choosable():
            columns[self.key(name)] = self.data[name].values[int(self.choice.value)]
        for name in self.variables:
            for part in ("mean", "low", "high"):
                values = self.data["over_units"].sel(variable=name, part=part).values
                columns[self.key(name, part)] = np.repeat(values, each)
        self.columns = ColumnDataSource(columns)
        firsts = [self.axis.text(int(first)) for first in self.data["first"].values]
        self.buckets = ColumnDataSource({"first": firsts, "span": self.spans()})
        self.buckets.tags = [self.axis.at(-0.5), self.axis.step * self.bucket_size]

    @property
    def variables(self) -> list[str]:
        """Names of the prepared variables."""
        return [str(name) for name in self.data["variable"].values]

    def having(self, role: str) -> list[str]:
        """Return the names of the variables that are ``state``, ``gate`` or ``input``."""
        roles = self.data["role"].values.tolist()
        return [name for name, own in zip(self.variables, roles, strict=True) if own == role]

    @property
    def bucket_size(self) -> int:
        """How many steps a bucket has."""
        return int(self.data.attrs["bucket_size"])

    def key(self, name: str, part: str = "") -> str:
        """Return what the column of a variable is called."""
        return f"v{self.variables.index(name)}{part}"

    def picture(self, kind: str, name: str) -> str:
        """Return what the picture is called that shows a variable in one of `Plot`'s ways."""
        if kind in ("saturation", "half_life"):
            return f"{kind}-{self.block}"
        if kind == "heat_map" and name in self.having("gate"):
            return f"heat_map-{self.block}-gates"
        if kind == "lines" and name not in self.having("input"):
            kind = "over_units"  # the picture that has the chosen unit as a line
        return f"{kind}-{self.block}-{self.key(name)}"

    def spans(self) -> list[str]:
        """Return the time of each bucket as people write it."""
        return spans_of(self.data, self.axis)

    def width_dim(self, name: str) -> str:
        """Return the dimension of a variable that is not time."""
        return str(self.data[name].dims[0])

    def noun(self, name: str) -> str:
        """Return what a variable has many of: units, as a rule."""
        return NOUNS.get(self.width_dim(name), "unit")

    def labels(self, name: str) -> list[str]:
        """Return the labels of a variable's units or features."""
        return [plain(str(label)) for label in self.data[self.width_dim(name)].values]

    def long_name(self, name: str) -> str:
        """Return what a variable is called: its long name, then its letter."""
        long = str(self.data[name].attrs.get("long_name", name))
        full = long if name in (long, schema.INPUTS) else f"{long} {name}"
        return plain(full[:1].upper() + full[1:])

    def choosable(self) -> list[str]:
        """Return the variables that one choice of a unit is about."""
        names = [*self.having("state"), *self.having("gate")]
        dims = {name: self.width_dim(name) for name in names}
        wanted = schema.UNIT if schema.UNIT in dims.values() else next(iter(dims.values()), None)
        return [name for name, dim in dims.items() if dim == wanted]

    def _choice(self) -> Select:
        """Return the control, set to the unit that moves most; without units it has no option.

        It is the unit whose ``c`` moves most, where there is one: the memory.
        """
        names = self.choosable()
        if not names:
            return Select(title="Unit", name=f"unit-{self.block}")
        values = self.data[schema.C if schema.C in names else names[0]].values
        finite = np.where(np.isfinite(values), values, np.nan)
        travel = np.fmax.reduce(finite, axis=1) - np.fmin.reduce(finite, axis=1)
        first = int(np.argmax(np.nan_to_num(travel, nan=-1.0)))
        options = [(str(k), label) for k, label in enumerate(self.labels(names[0]))]
        choice = Select(title="Unit", value=str(first), options=options, width=110)
        choice.name = f"unit-{self.block}"
        return choice


def spans_of(data: xr.Dataset, axis: TimeAxis, start: int = 0) -> list[str]:
    """Return the time of each prepared bucket as people write it.

    Parameters
    ----------
    data : xarray.Dataset
        From `everystate.views.prepare.prepare`.
    axis : TimeAxis
        Where the steps of the record lie.
    start : int
        Position in the record of the first step that was prepared.
    """
    ends = zip(data["first"].values + start, data["last"].values + start, strict=True)
    texts = [(axis.text(int(first)), axis.text(int(last))) for first, last in ends]
    return [first if first == last else f"{first} to {last}" for first, last in texts]


def plain(text: str) -> str:
    r"""Return text that bokeh does not take for TeX, for which it would fetch a renderer.

    An empty space parts the delimiters ``$$``, ``\(`` and ``\[``.
    """
    for mark in ("$$", "\\(", "\\["):
        text = text.replace(mark, mark[0] + "\u200b" + mark[1])
    return text
