"""What is chosen in an explorer, and what follows from it; nothing is drawn here."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import xarray as xr

from everystate import schema
from everystate.analysis.layer import one_epoch, recorded
from everystate.analysis.search import similar_stretches
from everystate.errors import InputError, SelectionError
from everystate.views.explorer.ordering import ORDERS
from everystate.views.explorer.source import Source, Stretch, difference, reader
from everystate.views.marks import Mark, Marks, check_marks, marks_of
from everystate.views.prepare import input_layer, row_of
from everystate.views.time_axis import TimeAxis

COLUMNS: Final = 1000
"""Most columns of a picture."""
LEAST: Final = 2
"""Steps that are shown at least."""
SEARCHED: Final = 1 << 27
"""Values that a search may compare: 1 GB in double precision."""
Reopen = Callable[[], xr.DataTree]


@dataclass(eq=False)
class Session:
    """One view of a trace, and perhaps of another one beside it.

    Parameters
    ----------
    trace : xarray.DataTree
        What is explored.
    compare : xarray.DataTree, optional
        Another trace of the same layers, to be shown beside it.
    scores : mapping of str to array-like or xarray.DataArray, optional
        Series over time, such as anomaly scores, by name.
    labels : mapping of str to (first, last), or to several of them, optional
        Stretches of time by name, as for `everystate.report`.
    reopen : callable, optional
        Opens the trace again, to follow one that is still growing.
    """

    trace: xr.DataTree
    compare: xr.DataTree | None = None
    scores: Mapping[str, Any] = field(default_factory=dict)
    labels: Marks | None = None
    reopen: Reopen | None = None
    layer: str = field(init=False, default="")
    variable: str = field(init=False, default="")
    row: object = field(init=False, default=None)
    order: str = field(init=False, default="as recorded")
    beside: str = field(init=False, default="nothing")
    picked: list[int] = field(init=False, default_factory=list)
    """Positions of the units that are drawn as lines."""
    window: tuple[float, float] = field(init=False, default=(0.0, 1.0))
    """Positions of the steps shown: from the first up to the last, half a step beyond each."""
    selection: tuple[int, int] | None = field(init=False, default=None)
    """Positions of the first step selected, and of the one after the last."""
    boxed: Callable[[float, float], None] = field(init=False, default=lambda first, last: None)
    """Called with two places on the time axis, when a box was drawn between them."""
    ranges: dict[str, Any] = field(init=False, default_factory=dict)
    """The time range of each kind of picture that was drawn, for whoever moves it."""
    _sources: dict[tuple[object, ...], Source] = field(init=False, default_factory=dict)
    _shown: dict[tuple[object, ...], Stretch] = field(init=False, default_factory=dict)
    _axis: TimeAxis | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        """Begin with the whole record of the first layer."""
        self.layers = one_epoch(self.trace)
        self.others = {} if self.compare is None else one_epoch(self.compare)
        self.marks: list[Mark] = marks_of(self.labels)
        self.choose_layer(next(iter(self.layers)))
        self.series = {
            str(name): input_layer(values, self.data[schema.TIME])
            for name, values in self.scores.items()
        }
        check_marks(self.marks, [TimeAxis.of(one[schema.TIME]) for one in self.layers.values()])

    # What is chosen.

    def choose_layer(self, path: str) -> None:
        """Show another layer, from its beginning to its end."""
        self.layer = path
        found = recorded(self.layers[path])
        if self.variable not in found:
            self.variable = schema.C if schema.C in found else found[0]
        self.picked, self.selection = [], None
        self._sources, self._shown, self._axis = {}, {}, None
        self.show(-0.5, self.axis.size - 0.5)

    @property
    def data(self) -> xr.Dataset:
        """The row of the layer that is shown."""
        return row_of(self.layers[self.layer], self.row)

    @property
    def axis(self) -> TimeAxis:
        """Where its steps lie."""
        if self._axis is None:
            self._axis = TimeAxis.of(self.data[schema.TIME])
        return self._axis

    @property
    def variables(self) -> list[str]:
        """What was recorded of the layer."""
        return recorded(self.layers[self.layer])

    @property
    def rows(self) -> list[object]:
        """The labels of the rows."""
        layer = self.layers[self.layer]
        return list(layer[schema.BATCH].values.tolist()) if schema.BATCH in layer.dims else []

    @property
    def units(self) -> npt.NDArray[np.generic]:
        """The labels of the units of the variable."""
        values = self.data[self.variable]
        dim = next(dim for dim in values.dims if dim != schema.TIME)
        return np.asarray(values[dim].values)

    # What is shown of it.

    def show(self, first: float, last: float) -> None:
        """Show the steps between two positions, as far as there are any."""
        size = float(self.axis.size)
        width = min(max(last - first, LEAST), size)
        start = min(max(first, -0.5), size - 0.5 - width)
        self.window = (start, start + width)

    def move(self, shift: float, factor: float) -> None:
        """Shift what is shown by so many widths, and change its width by a factor."""
        first, last = self.window
        middle, width = (first + last) / 2 + shift * (last - first), (last - first) * factor
        self.show(middle - width / 2, middle + width / 2)

    def select(self, first: float, last: float) -> None:
        """Select the steps that lie between two positions."""
        start, stop = int(np.ceil(first)), int(np.floor(last)) + 1
        start, stop = max(0, start), min(self.axis.size, stop)
        self.selection = (start, stop) if stop > start else None

    def select_labels(self, text: str) -> None:
        """Select the stretch that is written as ``first : last``, both included; clear if empty.

        Raises
        ------
        InputError
            If it is not written so, or no step lies in it; nothing is selected then.
        """
        self.selection = None
        text = text.strip()
        if not text:
            return
        # Times have colons of their own: between them there are spaces.
        first, found, last = text.partition(":" if text.count(":") == 1 else " : ")
        if not found:
            raise InputError(f"{text!r}: expected 'first : last', such as 120 : 140.")
        first, last = first.strip(), last.strip()
        ends = [self._place(label) for label in (first, last)]
        positions = [(end - self.axis.start) / self.axis.step for end in ends]
        if positions[1] < positions[0]:
            raise InputError(f"{text!r}: {last} comes before {first}. Swap them.")
        self.select(*positions)
        if self.selection is None:
            raise InputError(f"{text!r}: no step lies there. {self._extent()}")

    @property
    def written(self) -> str:
        """The selection as `select_labels` reads it; empty if nothing is selected."""
        if self.selection is None:
            return ""
        first, stop = self.selection
        return f"{self.axis.text(first)} : {self.axis.text(stop - 1)}"

    def _extent(self) -> str:
        axis = self.axis
        return f"The record goes from {axis.text(0)} to {axis.text(axis.size - 1)}."

    def _place(self, label: str) -> float:
        numeric = np.issubdtype(self.axis.labels.dtype, np.number)
        try:
            return self.axis.place_of(float(label) if numeric else label)
        except ValueError:
            raise InputError(f"{label!r} is no step of the record. {self._extent()}") from None

    def source(self, what: str = "trace") -> Source:
        """Return where the values are read: of the ``trace``, the ``other``, or the ``difference``.

        Raises
        ------
        InputError
            If the other trace lacks the variable, or has other steps or units.
        """
        key = (what, self.variable, self.row)
        if key not in self._sources:
            if len(self._sources) > 3:
                self._sources.pop(next(iter(self._sources)))
                self._shown = {}  # its keys are identities
            self._sources[key] = self._source(what)
        return self._sources[key]

    def _source(self, what: str) -> Source:
        steps, width = self.axis.size, len(self.units)
        own = reader(self.data, self.variable)
        if what == "trace":
            return Source(own, steps, width)
        other = self.others.get(self.layer)
        if other is None or self.variable not in other:
            raise InputError(f"the other trace has no {self.variable} in layer {self.layer!r}.")
        row = row_of(other, self.row)
        shape = row[self.variable].transpose(schema.TIME, ...).shape
        if shape != (steps, width):
            raise InputError(
                f"the other trace has {shape[0]} steps of {shape[1]} units in {self.layer!r}, "
                f"this one {steps} of {width}: they cannot be shown beside each other."
            )
        theirs = reader(row, self.variable)
        return Source(theirs if what == "other" else difference(own, theirs), steps, width)

    def stretch(self, what: str = "trace") -> Stretch:
        """Return what is shown, decimated; the same object until something else is."""
        source = self.source(what)
        key = (id(source), self.window, source.steps, source.done)
        if key not in self._shown:
            first, last = (end + 0.5 for end in self.window)
            found = source.stretch(int(np.floor(first)), int(np.ceil(last)), COLUMNS)
            self._shown = dict([*self._shown.items(), (key, found)][-3:])
        return self._shown[key]

    def ordered(self, shown: Stretch) -> npt.NDArray[np.intp]:
        """Return the units in their order from the bottom, by what is shown of them."""
        return ORDERS[self.order](shown.values.extremes)

    def work(self) -> bool:
        """Read a little more of the record; return whether there is more to read."""
        left = [source.work() for source in self._sources.values()]
        return any(left)

    # What one does with a selection.

    def selected(self) -> xr.Dataset:
        """Return the selected steps of the layer, of the units picked if some are.

        Raises
        ------
        SelectionError
            If nothing is selected.
        """
        if self.selection is None:
            raise SelectionError("select a stretch of time first: drag across a picture.")
        found = self.data.isel({schema.TIME: slice(*self.selection)})
        return self._picked(found)

    def _picked(self, data: xr.Dataset) -> xr.Dataset:
        if not self.picked or schema.UNIT not in data.dims:
            return data
        return data.isel({schema.UNIT: sorted(self.picked)})

    def similar(self, count: int = 10) -> xr.Dataset:
        """Return the stretches that resemble the selection, as `similar_stretches` does.

        Raises
        ------
        SelectionError
            If nothing is selected, or there is too much to compare.
        """
        query, data = self.selected(), self._picked(self.data)
        if data[self.variable].size > SEARCHED:
            raise SelectionError(
                f"{data[self.variable].size:,} values are too many to search; pick at most "
                f"{max(1, SEARCHED // self.axis.size):,} units."
            )
        return similar_stretches(data, query, [self.variable], count=count)

    def follow(self) -> bool:
        """Open the trace again; return whether it has grown. A view of its end moves along."""
        if self.reopen is None:
            return False
        before, (first, last) = self.axis.size, self.window
        self.trace = self.reopen()
        self.layers, self._axis, self._shown = one_epoch(self.trace), None, {}
        self._sources = {key: one for key, one in self._sources.items() if key[0] == "trace"}
        for (_, name, row), source in self._sources.items():
            data = row_of(self.layers[self.layer], row)
            source.read, source.steps = reader(data, str(name)), data.sizes[schema.TIME]
        grown = self.axis.size - before
        if grown and last >= before - 0.5:
            self.show(first if first <= -0.5 else first + grown, self.axis.size - 0.5)
        return grown > 0
