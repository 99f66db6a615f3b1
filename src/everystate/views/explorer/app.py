"""The page of the explorer: controls beside the pictures, all of them usable by keyboard."""

from collections.abc import Callable
from html import escape
from typing import Any, Final

import holoviews as hv
import panel as pn

from everystate.errors import EverystateError
from everystate.views.controls import MOVES
from everystate.views.explorer import pictures
from everystate.views.explorer.export import FORMATS, file_of
from everystate.views.explorer.ordering import ORDERS
from everystate.views.explorer.session import Session

TICK: Final = 50
"""Milliseconds between two pieces of work while a long record is read."""
WIDTH: Final = 230
"""Of a control."""
BESIDE: Final = {"nothing": "nothing", "the other trace": "other", "the difference": "difference"}


class App:
    """Widgets and pictures of one browser tab.

    Parameters
    ----------
    session : Session
        What is chosen.
    follow_every : float
        Seconds between two looks at a trace that is still growing.
    """

    def __init__(self, session: Session, follow_every: float = 2.0) -> None:
        self.session = session
        self.follow_every = follow_every
        session.boxed = self._boxed
        self.version = hv.streams.Counter()
        self.beside_version = hv.streams.Counter()
        self.said = pn.pane.HTML("", styles={"font-size": "13px"}, min_height=20)
        self.axis_ranges: list[Any] = []
        self.working: Any = None
        self._make_widgets()
        self._make_pictures()
        self._start_work()
        if self.following.value:
            self._start_following()

    # Controls.

    def _make_widgets(self) -> None:
        session = self.session
        self.layer = pn.widgets.Select(name="Layer", options=list(session.layers))
        self.row = pn.widgets.Select(name="Row", options=self._rows())
        self.variable = pn.widgets.Select(
            name="Variable", options=session.variables, value=session.variable
        )
        self.order = pn.widgets.Select(name="Order of the units", options=list(ORDERS))
        self.units = pn.widgets.MultiSelect(name="Picked units", options=self._units(), size=8)
        self.beside = pn.widgets.Select(name="Beside it", options=BESIDE, value="nothing")
        self.stretch = pn.widgets.TextInput(name="Selected stretch", placeholder="120 : 140")
        self.similar = pn.widgets.Button(name="Find similar stretches")
        self.matches = pn.widgets.Select(
            name="Similar stretches", options={"none yet": None}, size=6
        )
        self.zoom = pn.widgets.Button(name="Zoom to selection")
        self.kind = pn.widgets.Select(name="Export the selection as", options=list(FORMATS))
        self.export = pn.widgets.FileDownload(
            callback=self._file, filename="selection.csv", label="Export", button_type="default"
        )
        # A group of one: Panel's single Checkbox has no label, for the mouse and for readers.
        boxes = ["Follow the growing trace"]
        ticked = boxes if session.reopen is not None else []
        self.following = pn.widgets.CheckBoxGroup(options=boxes, value=ticked)
        self._listen()

    def _listen(self) -> None:
        self.layer.param.watch(self._choose_layer, "value")
        for widget, name in ((self.row, "row"), (self.order, "order"), (self.beside, "beside")):
            widget.param.watch(self._setter(name), "value")
        self.variable.param.watch(self._setter("variable"), "value")
        self.units.param.watch(self._setter("picked"), "value")
        self.stretch.param.watch(self._select_text, "value")
        self.matches.param.watch(self._show_match, "value")
        self.kind.param.watch(self._name_file, "value")
        self.following.param.watch(self._follow, "value")
        self.similar.on_click(self._find)
        self.zoom.on_click(self._zoom_to_selection)

    def _rows(self) -> dict[str, object]:
        return {str(label): label for label in self.session.rows} or {"the only one": None}

    def _units(self) -> dict[str, int]:
        return {f"{label}": k for k, label in enumerate(self.session.units)}

    def _setter(self, name: str) -> Callable[[Any], None]:
        def choose(event: Any) -> None:
            setattr(self.session, name, event.new)
            if name in ("variable", "row"):
                self._start_work()
            self.redraw()

        return choose

    def _choose_layer(self, event: Any) -> None:
        self.session.choose_layer(event.new)
        self.stretch.value = self.session.written
        self.variable.param.update(options=self.session.variables, value=self.session.variable)
        self.row.param.update(options=self._rows())
        self.units.param.update(options=self._units(), value=[])
        self._start_work()
        self._show_window()

    # Pictures.

    def _make_pictures(self) -> None:
        draws = [pictures.heat_map, self._beside, pictures.lines]
        if self.session.series:
            draws.insert(0, pictures.scores)
        self.panes = []
        for draw in draws:
            version = self.beside_version if draw == self._beside else self.version
            drawn = hv.DynamicMap(self._of_session(draw), streams=[version])
            hv.streams.RangeX(source=drawn).add_subscriber(self._zoomed)
            self.panes.append(pn.pane.HoloViews(drawn, sizing_mode="stretch_width"))
        self.beside_pane = self.panes[draws.index(self._beside)]
        self.beside_pane.visible = False

    def _of_session(self, draw: Callable[[Session], hv.Overlay]) -> Callable[..., hv.Overlay]:
        return lambda counter: draw(self.session)

    def _beside(self, session: Session) -> hv.Overlay:
        what = session.beside
        return pictures.heat_map(session, "trace" if what == "nothing" else what)

    def redraw(self) -> None:
        """Draw everything anew."""
        try:
            if self.session.beside != "nothing":
                self.session.source(self.session.beside)
            self.beside_pane.visible = self.session.beside != "nothing"
        except EverystateError as error:
            self.say(str(error))
            self.session.beside = "nothing"
        self.version.event(counter=self.version.counter + 1)
        if self.session.beside != "nothing":
            self.beside_version.event(counter=self.beside_version.counter + 1)

    def say(self, text: str) -> None:
        """Say something below the controls."""
        self.said.object = f"<div role='status'>{escape(text)}</div>"

    # What the user does.

    def _zoomed(self, x_range: tuple[float, float] | None) -> None:
        if x_range is not None:
            axis = self.session.axis
            self.session.show(*((float(end) - axis.start) / axis.step for end in x_range))
            self.redraw()

    def _boxed(self, first: float, last: float) -> None:
        axis = self.session.axis
        self.session.select(*((end - axis.start) / axis.step for end in (first, last)))
        self._say_selection()
        self.redraw()

    def _select_text(self, event: Any) -> None:
        if event.new == self.session.written:  # it was written by `_say_selection`
            return
        try:
            self.session.select_labels(event.new)
            self._say_selection()
        except EverystateError as error:  # what was typed stays, to be put right
            self.say(f"{error} Nothing is selected.")
        self.redraw()

    def _say_selection(self) -> None:
        self.stretch.value = self.session.written
        if self.session.selection is None:
            self.say("Nothing is selected.")
            return
        first, stop = self.session.selection
        axis = self.session.axis
        steps = f"{stop - first:,} step{'s' if stop - first > 1 else ''}"
        self.say(f"Selected: {axis.text(first)} to {axis.text(stop - 1)}, {steps}.")

    def _zoom_to_selection(self, event: Any) -> None:
        if self.session.selection is not None:
            first, stop = self.session.selection
            self.session.show(first - 0.5, stop - 0.5)
            self._show_window()

    def move(self, shift: float, factor: float) -> None:
        """Move what is shown, as the buttons do."""
        self.session.move(shift, factor)
        self._show_window()

    def _show_window(self) -> None:
        self.redraw()  # first: Panel links the axes only after they were drawn once
        start, end = (self.session.axis.at(place) for place in self.session.window)
        for x_range in self.session.ranges.values():
            x_range.update(start=start, end=end)

    def _find(self, event: Any) -> None:
        self.say("Searching; of a long record this may take a minute.")
        pn.state.execute(self._search, schedule=True)  # once the page has been told

    def _search(self) -> None:
        try:
            found = self.session.similar()
        except EverystateError as error:
            self.say(str(error))
            return
        options: dict[str, Any] = {"choose one to see it": None}
        for k in range(found.sizes["match"]):
            one = found.isel(match=k)
            label = f"{one.start.values} : {one.stop.values} (distance {float(one.distance):.3g})"
            options[label] = (one.start.values.item(), one.stop.values.item())
        self.matches.param.update(options=options, value=None)
        self.say(f"{len(options) - 1} stretches found, nearest first; the first is the selection.")

    def _show_match(self, event: Any) -> None:
        if event.new is not None:
            axis = self.session.axis
            first, last = ((axis.place_of(end) - axis.start) / axis.step for end in event.new)
            self.session.select(first, last)
            self.session.show(first - (last - first) - 0.5, last + (last - first) + 0.5)
            self._say_selection()
            self._show_window()

    def _file(self) -> Any:
        try:
            return file_of(self.session.selected(), self.kind.value)
        except EverystateError as error:
            self.say(str(error))
            raise

    def _name_file(self, event: Any) -> None:
        self.export.filename = f"selection.{FORMATS[event.new][1]}"

    # What goes on by itself.

    def _start_work(self) -> None:
        self.session.source()
        if self.working is None:
            self.working = pn.state.add_periodic_callback(self._work, period=TICK)

    def _work(self) -> None:
        before = self.session.source().done
        more = self.session.work()
        done = self.session.source().done
        if not more and self.working is not None:
            self.working.stop()
            self.working = None
        if int(done * 20) > int(before * 20):
            self.say("" if done >= 1 else f"{done:.0%} of the record read.")
            self.redraw()

    def _follow(self, event: Any) -> None:
        if event.new:
            self._start_following()
        else:
            self.follower.stop()

    def _start_following(self) -> None:
        period = round(1000 * self.follow_every)
        self.follower = pn.state.add_periodic_callback(self._look, period=period)

    def _look(self) -> None:
        try:
            grown = self.session.follow()
        except EverystateError as error:  # the writer may be at work this very moment
            self.say(str(error))
            return
        if grown:
            self.say(f"{self.session.axis.size:,} steps so far.")
            self._start_work()
            self._show_window()

    # The page.

    def page(self) -> pn.viewable.Viewable:
        """Return all of it."""
        moves = pn.FlexBox()
        for name, shift, factor in MOVES:
            button = pn.widgets.Button(name=name, width=112)
            button.on_click(lambda event, by=(shift, factor): self.move(*by))
            moves.append(button)
        controls = [self.layer, self.row, self.variable, self.order, self.units]
        if self.session.others:
            controls.append(self.beside)
        controls += [self.stretch, self.zoom, self.similar, self.matches, self.kind, self.export]
        if self.session.reopen is not None:
            controls.append(self.following)
        hint = "Drag across a picture to select a stretch; turn the wheel to zoom."
        for control in controls:
            control.width = WIDTH
        side = pn.Column(*controls, width=WIDTH + 20, margin=(0, 12, 0, 0))
        parts = [moves, pn.pane.HTML(hint), self.said, *self.panes]
        main = pn.Column(*parts, sizing_mode="stretch_width", min_width=300)
        main.styles = {"flex": "1 1 320px", "min-width": "0", "overflow-x": "hidden"}
        return pn.FlexBox(side, main, flex_wrap="wrap", sizing_mode="stretch_width")
