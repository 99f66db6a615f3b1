"""`StreamRecorder`: a `Recorder` that keeps nothing, but hands all steps on as they come."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Final, Protocol

import numpy as np
import xarray as xr
from array_api_compat import array_namespace, is_jax_array

from everystate.cells.activations import Array
from everystate.errors import JoinError, ResumeError
from everystate.recording.join import Attribute, breaks, worst
from everystate.recording.observation import Observation
from everystate.recording.recorder import Recorder, odd_variables
from everystate.recording.replay import Recorded, replay
from everystate.recording.selection import Select
from everystate.recording.trace import Labels
from everystate.streaming.worker import Worker

RESETS: Final = 50
"""Places at which a stream began anew that are listed; a stream may have millions."""


class Sink(Protocol):
    """Where recorded steps go."""

    def take(self, recorded: Recorded) -> None:
        """Take further steps of one layer, numbered from the beginning of the stream."""

    def flush(self) -> None:
        """Make everything taken so far readable."""

    def finish(self) -> None:
        """Hear that there are no more."""

    def result(self) -> xr.DataTree:
        """Return what has come of the steps taken so far."""


class StreamRecorder(Recorder):
    """Hands what is recorded on at once: memory does not grow with the number of steps.

    Parameters
    ----------
    model, framework, select
        As of `Recorder`.
    sinks : sequence of Sink
        Where the steps go; the first one's result is the trace.
    labels : tuple of two array-like, optional
        Labels of all steps, and of all rows.
    worker : Worker, optional
        Who replays, verifies and stores, while the model goes on or in turn with it. None: the
        model is called by somebody else.
    """

    def __init__(
        self,
        model: str,
        framework: str,
        select: Select,
        sinks: Sequence[Sink],
        labels: tuple[Labels, Labels] = (None, None),
        worker: Worker | None = None,
    ) -> None:
        super().__init__(model, framework, select, "time", labels, own_call=worker is not None)
        self.sinks, self.worker = sinks, worker
        self.steps: dict[str, int] = {}
        """Steps gone by, for each layer."""
        self.attrs: dict[str, dict[str, Attribute]] = {}
        """Attributes of each layer's leaf that sum up all its steps."""
        self.widths: dict[str, float] = {}
        """Bytes a step takes of each layer, about: what is seen and all that can be recorded."""
        self.beginning: Recorder | None = None
        """Who records the same once more, whatever is selected, as long as anybody does."""
        self._last: dict[str, Recorded] = {}
        self._odd: dict[str, set[str]] = {}
        self._in_this_run: set[str] = set()

    def __repr__(self) -> str:
        """Say how many steps of which layers were recorded so far."""
        layers = ", ".join(f"{path} {steps} steps" for path, steps in self.steps.items())
        return f"<Recorder of {self.model}, a stream: {layers or 'nothing yet'}>"

    def begin_run(self) -> None:
        """Say that a call of the whole model begins."""
        self._in_run = True
        self._in_this_run.clear()

    def observe(self, seen: Observation, *, goes_on: bool = False) -> None:
        """Record further steps of one layer (see `Recorder.observe`).

        Raises
        ------
        JoinError
            If a layer is called several times in one call of the model, or rows end early.
        """
        if not self.wants(seen.path):
            return
        self._check_stream(seen, goes_on)
        if self.beginning is not None:
            self.beginning.observe(seen, goes_on=goes_on)
        if self.worker is None:
            self._record(seen, goes_on)
        else:
            seen = owned(seen) if self.worker.beside else seen
            self.worker.submit(self._record, seen, goes_on)

    def _check_stream(self, seen: Observation, goes_on: bool) -> None:
        if self._in_run and not goes_on and seen.path in self._in_this_run:
            raise JoinError(
                f"{seen.path}: called several times in one call of the model, on sequences of "
                "their own. These cannot be one stream; record it without store= and reduce=, or "
                "leave it out: select=es.Select(layers=...)."
            )
        if seen.lengths is not None and (seen.lengths < seen.steps).any():
            raise JoinError(
                f"{seen.path}: has rows shorter than the {seen.steps} steps of this call, so that "
                "the next call cannot follow them in time. Record without store= and reduce=."
            )
        self._in_this_run.add(seen.path)
        units = sum(seen.units(name) for name in seen.variables)
        arrays = [*seen.observed.values(), *([] if seen.inputs is None else [seen.inputs])]
        bytes_seen = sum(int(np.prod(a.shape[1:])) for a in arrays) + units * seen.batch
        self.widths[seen.path] = (8.0 if seen.precision == "float64" else 4.0) * bytes_seen

    def _record(self, seen: Observation, goes_on: bool) -> None:
        self._check(seen)
        offset = self.steps.get(seen.path, 0)
        plan = self.select.plan(seen, offset)
        self.steps[seen.path] = offset + seen.steps
        if not plan.variables:
            return
        recorded = self._light(replay(seen, plan), seen, goes_on)
        self._sum_up(recorded, offset)
        time = self.labels[0]
        recorded.steps = recorded.steps + offset
        recorded.length = self.steps[seen.path] if time is None else len(time)
        for sink in self.sinks:
            sink.take(recorded)

    def _sum_up(self, recorded: Recorded, offset: int) -> None:
        """Bring a layer's attributes up to date, and give them to the steps at hand."""
        path, last = recorded.path, self._last.get(recorded.path)
        known = self.attrs.get(path)
        digest = recorded.attrs.get("weights_sha256")
        if known and last is None and known.get("weights_sha256") != digest:
            raise ResumeError(
                f"{path}: its weights are not those that the recording began with. Go on with the "
                "same model, or record anew: overwrite=True."
            )
        attrs = worst([known, recorded.attrs]) if known else dict(recorded.attrs)
        if last is not None and breaks(last, recorded):
            listed = str(attrs.get("state_resets", ""))
            if listed.count(",") < RESETS:
                attrs["state_resets"] = f"{listed}, {offset}" if listed else str(offset)
        self.attrs[path] = recorded.attrs = attrs
        self._odd.setdefault(path, set()).update(odd_variables(recorded))
        self._last[path] = replace(recorded, variables={})

    def wait(self) -> None:
        """Wait until everything observed so far is where it stays."""
        for hand_over in self.pending:
            hand_over()
        if self.worker is not None:
            self.worker.wait()

    def flush(self) -> None:
        """Make everything recorded so far readable, by others too."""
        self.wait()
        for sink in self.sinks:
            sink.flush()

    def finish(self) -> None:
        """End the stream: say so to where the steps went, and warn of what is odd."""
        self.wait()
        if not self.attrs:
            raise self._nothing()
        for sink in self.sinks:
            sink.finish()
        for path, attrs in self.attrs.items():
            self._warn(path, attrs, sorted(self._odd.get(path, ())), path)

    @property
    def trace(self) -> xr.DataTree:
        """What was recorded so far: read from the disk when it is used.

        Raises
        ------
        NothingRecordedError
            If no recurrent layer was called.
        """
        self.wait()
        if not self.attrs:
            raise self._nothing()
        return self.sinks[0].result()


def owned(seen: Observation) -> Observation:
    """Return an observation with arrays of its own: the model may go on to write into its."""

    def copied(arrays: Mapping[str, Array]) -> dict[str, Array]:
        return {name: _copy(a) for name, a in arrays.items()}

    return replace(
        seen,
        observed=copied(seen.observed),
        inputs=None if seen.inputs is None else _copy(seen.inputs),
        previous=None if seen.previous is None else copied(seen.previous),
        initial=copied(seen.initial),
        final=copied(seen.final),
    )


def _copy(a: Array) -> Array:
    return a if is_jax_array(a) else array_namespace(a).asarray(a, copy=True)
