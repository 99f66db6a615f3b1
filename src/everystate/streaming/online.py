"""`recording_online`: a stream that somebody else drives, written while it goes on."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import numpy as np
import xarray as xr

from everystate.errors import SelectionError
from everystate.recording.discovery import framework_of, model_name
from everystate.recording.observation import Observation
from everystate.recording.selection import Select
from everystate.recording.trace import Labels
from everystate.storage.lossy import check_stored
from everystate.storage.writing import writing
from everystate.streaming.around import Windows
from everystate.streaming.options import Streaming
from everystate.streaming.recorder import Sink, StreamRecorder
from everystate.streaming.reductions import Reductions
from everystate.streaming.sink import Outline, TraceSink


class OnlineRecorder(StreamRecorder):
    """Records the calls that its user makes; hears from them what the events are.

    Attributes
    ----------
    windows : Windows or None
        What keeps the steps near events alone. None: all steps are kept.
    layers : list of str or None
        Where to put the leaf paths of all layers once the first call is over, if anywhere.
    """

    windows: Windows | None = None
    layers: list[str] | None = None
    _first: tuple[tuple[Observation, bool], ...] = ()
    _told: tuple[int, ...] = ()
    _known = 0
    """Events before this step are decided on."""

    def observe(self, seen: Observation, *, goes_on: bool = False) -> None:
        """Record further steps of one layer; hold those of a first call that tells the layers."""
        if self.layers is not None and self._in_run:
            self._first += ((seen, goes_on),)
        else:
            super().observe(seen, goes_on=goes_on)

    def end_run(self) -> None:
        """Say that the call of the whole model is over."""
        if self.layers is not None:
            self.layers[:] = dict.fromkeys(s.path for s, _ in self._first if self.wants(s.path))
            self.layers = None
        for seen, goes_on in self._first:
            super().observe(seen, goes_on=goes_on)
        self._first = ()
        super().end_run()

    def event(self, *steps: int) -> None:
        """Tell that there was an event: the steps around it are kept.

        Parameters
        ----------
        *steps : int
            Numbers of steps from 0, of the calls since the last one but one; none: the last step
            so far. It is told before the model is called again.

        Raises
        ------
        SelectionError
            If nobody asked for events, or the step is not there yet, or not any more.
        """
        around = self._around("event()")
        if around.steps is not None:
            raise SelectionError("event(): the events were given already, Around(steps=...).")
        self.wait()
        so_far = self._so_far
        for step in steps or (so_far - 1,):
            if not self._known <= step < so_far:
                raise SelectionError(
                    f"event({step}): expected one of the steps {self._known} to {so_far - 1}. "
                    "Those before are decided on, once the model is called again: tell at once."
                )
            self._told += (int(step),)

    def score(self, x: Any, y: Any) -> None:
        """Have ``score=`` of `Around` tell the events of the call that was made just now.

        Parameters
        ----------
        x, y : array
            What the model was called with, and what it returned.

        Raises
        ------
        SelectionError
            If there is no score, or it is not one number for each step since the last one.
        """
        around = self._around("score()")
        if around.score is None:
            raise SelectionError("score(): say how, around=es.Around(..., score=...).")
        self.wait()
        self._told += tuple(around.events(x, y, self._known, self._so_far).tolist())

    @property
    def reductions(self) -> xr.DataTree:
        """What ``reduce=`` has made of the steps so far.

        Raises
        ------
        SelectionError
            If there is no ``reduce=``.
        """
        self.wait()
        for sink in self.sinks:
            if isinstance(sink, Reductions):
                return sink.result()
        raise SelectionError("reductions: say what to make of the steps, reduce=.")

    def flush(self) -> None:
        """Make everything recorded so far readable, by others too; decide on its events."""
        self.wait()
        self._decide(self._so_far)
        super().flush()

    def give_up(self) -> None:
        """Make everything recorded so far readable, and no further steps are expected."""
        self.wait()
        self._decide(self._so_far)
        if self.windows is not None:
            self.windows.end()
        super().flush()

    def finish(self) -> None:
        """End the stream."""
        self.wait()
        self._decide(self._so_far)
        super().finish()

    def _record(self, seen: Observation, goes_on: bool) -> None:
        self._decide(self.steps.get(seen.path, 0))  # of these steps events were told
        super()._record(seen, goes_on)

    @property
    def _so_far(self) -> int:
        return max(self.steps.values(), default=0)

    def _decide(self, stop: int) -> None:
        """Let go what is before a step, but for what is near an event."""
        if self.windows is None or stop <= self._known:
            return
        events, around = np.unique(np.asarray(self._told, dtype=np.int64)), self.windows.around
        if around.steps is not None:
            events = around.events(None, None, self._known, stop)
        self.windows.decide(events, stop)
        self._told, self._known = (), stop

    def _around(self, what: str) -> Any:
        if self.windows is None:
            raise SelectionError(
                f"{what}: all steps are kept; to keep some, around=es.Around(...)."
            )
        return self.windows.around


@contextmanager
def recording_online(
    model: Any,
    select: Select,
    along: str,
    labels: tuple[Labels, Labels],
    options: Streaming,
) -> Iterator[OnlineRecorder]:
    """Record every call inside a block as one stream; arguments as of `everystate.recording`.

    Where the block raises, the trace keeps what was recorded until then, and stays incomplete.
    """
    _check(along, options)
    name, framework = framework_of(model)
    known = framework.layers(model)
    layers = list(known or ())
    if known is not None:
        select.check_layers(layers)
    check_stored(options.get("stored_as"))
    outline = Outline(
        model_name(model),
        name,
        layers,
        labels,
        stored_as=options.get("stored_as"),
        full=options.get("full", True),
    )
    with ExitStack() as stack:
        reduce, around, windows = options.get("reduce"), options.get("around"), None
        reductions = None if reduce is None else Reductions(reduce, outline, int(select.every))
        sinks: list[Sink] = [] if reductions is None else [reductions]
        if (store := options.get("store")) is not None:
            place = stack.enter_context(writing(store, overwrite=bool(options.get("overwrite"))))
            sink = TraceSink(place, outline, commits_itself=True, reductions=reductions)
            windows = None if around is None else Windows(sink, around)
            sinks.insert(0 if outline.full else 1, windows or sink)
        recorder = OnlineRecorder(model_name(model), name, select, sinks, labels)
        recorder.windows, recorder.layers = windows, layers if known is None else None
        try:
            call = partial(framework.call, model)
            with framework.observe(model, recorder), recorder.calling(call):
                yield recorder
        except BaseException:
            recorder.give_up()
            raise
        recorder.finish()


def _check(along: str, options: Streaming) -> None:
    if along != "time":
        raise SelectionError(
            f"along={along!r}: store= and reduce= record one stream. Say along='time', or record "
            "without them and save the trace: es.save_trace(rec.trace, path)."
        )
    for name in ("resume", "step", "memory", "chunk", "time_axis"):
        if options.get(name):
            raise SelectionError(
                f"{name}= is for es.record, which runs the model itself; here you call it."
            )
