"""`Around`: full detail around events only, of a sequence too long to keep all of it."""

import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from types import CodeType
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import xarray as xr

from everystate.errors import SelectionError
from everystate.recording.observation import as_numpy
from everystate.recording.replay import Recorded
from everystate.recording.warning import warn
from everystate.streaming.recorder import Sink

HELD_BACK: Final = 1 << 12
"""Steps of a layer that its observer may hand over later than others, and more than any does."""

EITHER: Final = "Around takes either steps=, the events, or score=, what tells."

Score = Callable[[Any, Any], Any]
"""Takes a chunk of the input and the model's output for it; returns a number for each step."""


@dataclass(frozen=True, eq=False)
class Around:
    """Which steps of a long sequence to keep: those near an event.

    An event is one of the given `steps`, or a step whose score is above `threshold`. With neither,
    events are told while the stream goes on, by ``recorder.event()`` of `everystate.recording`.

    Parameters
    ----------
    before, after : int
        Steps to keep before and after each event, beside its own.
    steps : sequence of int, optional
        The events, as numbers of steps from 0.
    score : callable, optional
        ``score(x, y)``, with a chunk of the input and what the model returned for it, in the
        model's layout; returns one number for each step of the chunk. A NaN is no event.
    threshold : float, optional
        Scores above it are events. It goes with `score`.

    Raises
    ------
    SelectionError
        If both `steps` and `score` are given, `score` has no threshold, or a number is negative.

    Examples
    --------
    >>> import tempfile, numpy as np, torch, everystate as es
    >>> model, x = torch.nn.LSTM(3, 4), torch.zeros(1000, 1, 3)
    >>> folder = tempfile.TemporaryDirectory()
    >>> around = es.Around(before=2, after=1, steps=[500])
    >>> trace = es.record(model, x, store=f"{folder.name}/run.zarr", around=around)
    >>> trace["lstm"].time.values.tolist()
    [498, 499, 500, 501]
    >>> folder.cleanup()
    """

    before: int
    after: int
    steps: Sequence[int] | None = None
    score: Score | None = None
    threshold: float | None = None

    def __post_init__(self) -> None:
        """Refuse what cannot mean anything."""
        if self.steps is not None and self.score is not None:
            raise SelectionError(EITHER)
        if self.score is not None and self.threshold is None:
            raise SelectionError(
                "Around(score=...): from which score on is a step an event? Say threshold=."
            )
        steps = () if self.steps is None else self.steps
        if np.ndim(steps) != 1 or min(self.before, self.after, *steps) < 0:
            raise SelectionError(
                "Around: before and after are whole numbers from 0, and steps a list of such; got "
                f"{self.before!r}, {self.after!r}, {self.steps!r}."
            )

    @property
    def described(self) -> str:
        """What it is, as far as can be seen, in words that are the same in another process."""
        given = [] if self.steps is None else [*map(int, self.steps)]
        steps = f", {len(given)} steps, {zlib.crc32(repr(given).encode()):x}" if given else ""
        threshold = 0.0 if self.threshold is None else self.threshold
        score = "" if self.score is None else f", {_told(self.score)}"
        return f"{self.before} before, {self.after} after, threshold {threshold}{steps}{score}"

    def events(self, x: Any, y: Any, start: int, stop: int) -> npt.NDArray[np.int64]:
        """Return the events among the steps of one chunk.

        Parameters
        ----------
        x, y : array
            The chunk, and what the model returned for it.
        start, stop : int
            Which steps of the sequence it holds.

        Raises
        ------
        SelectionError
            If the score is not one number for each step.
        """
        if self.steps is not None:
            given = np.unique(np.asarray(self.steps, dtype=np.int64))
            return given[(given >= start) & (given < stop)]
        assert self.score is not None
        assert self.threshold is not None
        scores = np.asarray(as_numpy(self.score(x, y)), dtype=float)
        if scores.shape != (stop - start,):
            raise SelectionError(
                f"score= returned an array of shape {scores.shape}; expected one number for each "
                f"of the {stop - start} steps of the chunk. Take the largest of each step's rows."
            )
        return start + np.flatnonzero(scores > self.threshold)


@dataclass(eq=False)
class Windows:
    """Lets the steps near events through to a sink, as soon as it is known which they are.

    Parameters
    ----------
    sink : Sink
        Where they go.
    around : Around
        Which they are.
    """

    sink: Sink
    around: Around
    _held: dict[str, Recorded] = field(default_factory=dict)
    _begun: dict[str, list[npt.NDArray[Any]]] = field(default_factory=dict)
    _events: npt.NDArray[np.int64] = field(default_factory=lambda: np.empty(0, np.int64))
    _stop: int = 0
    """Steps of the sequence so far."""

    def take(self, recorded: Recorded) -> None:
        """Hold further steps of one layer until `decide`."""
        path = recorded.path
        self._stop = max(self._stop, recorded.length)
        if path in self._begun:  # what was held when the recording was stopped
            self._held[path] = _filled(recorded, self._begun.pop(path))
        self._held[path] = _behind(self._held[path], recorded) if path in self._held else recorded

    def decide(self, events: npt.NDArray[np.int64], stop: int | None) -> None:
        """Let through what is near an event, and drop what no event to come can be near.

        Parameters
        ----------
        events : ndarray of int
            Further events.
        stop : int or None
            All events before this step are known now. None: there are no more.
        """
        self._events = np.concatenate([self._events, events])
        for path, held in self._held.items():
            known = (
                len(held.steps)
                if stop is None
                else int(np.searchsorted(held.steps, stop - self.around.before))
            )
            steps = held.steps[:known]
            first = np.searchsorted(self._events, steps - self.around.after)
            near = np.append(self._events, np.iinfo(np.int64).max)[first]
            kept = np.flatnonzero(near <= steps + self.around.before)
            self.sink.take(_rows(held, kept))
            self._held[path] = _rows(held, np.arange(known, len(held.steps)))
        if stop is not None:
            oldest = stop - self.around.before - self.around.after - HELD_BACK
            self._events = self._events[self._events >= oldest]

    def state(self) -> dict[str, Any]:
        """Return what is held, to go on from."""
        held = {path: [held.steps, *held.variables.values()] for path, held in self._held.items()}
        return {"events": self._events, "held": held, "stop": self._stop}

    def restore(self, state: dict[str, Any]) -> None:
        """Hold again what `state` returned."""
        self._events, self._begun, self._stop = state["events"], state["held"], state["stop"]

    def flush(self) -> None:
        """Make what was let through readable."""
        self.sink.flush()

    def finish(self) -> None:
        """Let the last steps through, and end."""
        self.end()
        self.sink.finish()
        given = self.around.steps
        beyond = [] if given is None else [step for step in given if step >= self._stop]
        if beyond:
            warn(
                f"Around(steps=...): the sequence has {self._stop} steps, and {len(beyond)} of the "
                f"events are beyond its end, the first at {min(beyond)}."
            )

    def end(self) -> None:
        """Let the last steps through: there are no more events."""
        self.decide(np.empty(0, np.int64), None)

    def result(self) -> xr.DataTree:
        """Return what has come of what was let through."""
        return self.sink.result()


def _told(score: Score) -> str:
    """Return what tells a score from others: its name, and a checksum of what it computes by.

    What it looks up while it runs, in objects or other functions, is not seen.
    """
    name = getattr(score, "__qualname__", type(score).__qualname__)
    code = getattr(score, "__code__", None)
    return name if code is None else f"{name} {zlib.crc32(_words(code).encode()):x}"


def _words(code: CodeType) -> str:
    """Return instructions, names and constants of a function, without where it stands."""
    return " ".join([code.co_code.hex(), *code.co_names, *map(_word, code.co_consts)])


def _word(constant: object) -> str:
    if isinstance(constant, CodeType):
        return _words(constant)
    if isinstance(constant, frozenset):  # whose order is another in another process
        return str(sorted(map(repr, constant)))
    return repr(constant)


def _rows(recorded: Recorded, rows: npt.NDArray[np.int64]) -> Recorded:
    variables = {name: a[rows] for name, a in recorded.variables.items()}
    return replace(recorded, variables=variables, steps=recorded.steps[rows])


def _behind(held: Recorded, further: Recorded) -> Recorded:
    variables = {n: np.concatenate([held.variables[n], a]) for n, a in further.variables.items()}
    steps = np.concatenate([held.steps, further.steps])
    return replace(further, variables=variables, steps=steps, initial=held.initial)


def _filled(like: Recorded, arrays: list[npt.NDArray[Any]]) -> Recorded:
    variables = dict(zip(like.variables, arrays[1:], strict=True))
    return replace(like, variables=variables, steps=arrays[0])
