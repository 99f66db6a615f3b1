"""`Run`: a model over a sequence, chunk after chunk, from the beginning or from where it stopped.

The model runs in the caller's thread; replay, verification, compression and writing go on in
another, one chunk behind at most, where there are cores for both, and in turn with it where not.
After each chunk the trace's mark says how far it is complete, and holds the state to go on from.
"""

import zlib
from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np

from everystate.errors import ResumeError
from everystate.recording.discovery import Framework, model_name
from everystate.recording.observation import as_numpy
from everystate.recording.recorder import Progress, Recorder
from everystate.recording.selection import Select
from everystate.recording.stream import Stream
from everystate.recording.trace import Labels
from everystate.storage.carried import Carried
from everystate.storage.lossy import Stored
from everystate.storage.mark import Mark
from everystate.storage.place import Place
from everystate.streaming import cutting, state
from everystate.streaming.answer import Answer, answer_of, check_answer
from everystate.streaming.around import Around, Windows
from everystate.streaming.recorder import StreamRecorder
from everystate.streaming.reductions import Reductions
from everystate.streaming.sink import TraceSink
from everystate.streaming.source import Source
from everystate.streaming.stepping import call_of
from everystate.streaming.worker import Worker, cores

AHEAD: Final = 8
"""Pieces that the model may be ahead of what is written."""
PIECES: Final = 8
"""Pieces that a chunk is computed in: the sooner the thread that writes has something to do."""
SHORTEST: Final = 256
"""Steps of a piece, at least."""
KEPT: Final = {"windows": "around=", "reductions": "reduce="}
FIRST: Final = 64
"""Steps of the first chunk of a step function of the user's: it tells what a step takes."""


@dataclass(eq=False)
class Sequence:
    """A sequence, a model, and how the one is run over the other.

    Parameters
    ----------
    model, framework
        The model, and the name and module of the framework that knows it.
    select : Select
        What to record; a window counted from the end is resolved already.
    source : Source
        The sequence.
    stream : Stream
        How a chunk is run.
    chunk : int, optional
        Steps of a chunk. None: the first one will tell.
    memory : int
        Bytes that it may take.
    layers : list of str
        Leaf paths of the model's layers. Empty where nobody knows them before the model is
        called; they are filled in then.
    stored_as : str, optional
        How numbers are kept (see `everystate.storage.lossy`).
    whole : bool
        Whether it cannot be cut, so that the one chunk is all of it.
    reducers : dict of str to str
        What is made of the steps, by name.
    full : bool
        Whether the steps themselves are stored.
    around : Around, optional
        Which of them. None: all.
    others : mapping
        What the model is given with each chunk, by name.
    labels : tuple of two array-like, optional
        Labels of all steps, and of all rows.
    own_step : bool
        Whether the user wrote the step: before a recording begins it is not called, so that what
        it answers is seen as the first steps come.
    answer : mapping, optional
        What the model that began answered to the first steps. None: not known.
    """

    model: Any
    framework: tuple[str, Framework]
    select: Select
    source: Source
    stream: Stream
    chunk: int | None
    memory: int
    layers: list[str] = field(default_factory=list)
    stored_as: Stored | None = None
    whole: bool = False
    reducers: dict[str, str] = field(default_factory=dict)
    full: bool = True
    around: Around | None = None
    others: Mapping[str, Any] = field(default_factory=dict)
    labels: tuple[Labels, Labels] = (None, None)
    own_step: bool = False
    answer: Answer | None = None

    @property
    def facts(self) -> dict[str, Any]:
        """What must be the same to go on with it."""
        given = [self.source.peek(cutting.STEPS), *self.others.values()]
        beginning = b"".join(as_numpy(a).tobytes() for a in given)
        return {
            "model": model_name(self.model),
            "layers": self.layers,
            "select": repr(self.select),
            "steps": self.source.steps,
            "stored_as": self.stored_as,
            "reducers": self.reducers,
            "full": self.full,
            "around": None if self.around is None else self.around.described,
            "labels": [None if labels is None else _crc(labels) for labels in self.labels],
            "beginning": zlib.crc32(beginning),
        }

    def answers(self) -> Answer:
        """Return what the model answers to the first steps; the sequence stays where it is."""
        x, call = self.source.peek(cutting.STEPS), call_of(self.framework, self.model, self.stream)
        run = partial(self.stream.step, x, None) if self.own_step else partial(call, x)
        select = cutting.all_of(self.select)
        with self.stream.undisturbed():
            return answer_of(cutting.recorded(self.framework, self.model, select, run))

    def total(self, path: str) -> int | None:
        """Return how many steps of a layer will be recorded; None if nobody knows."""
        steps = self.source.steps
        return None if steps is None else len(self.select.steps(path, steps, 0))


class Run:
    """One run over a sequence, from its beginning or from where another was stopped."""

    def __init__(
        self,
        sequence: Sequence,
        sinks: list[Any],
        labels: tuple[Labels, Labels],
        progress: Progress | None,
    ) -> None:
        self.sequence, self.progress = sequence, progress
        self.facts = sequence.facts
        self.trace: TraceSink | None = None
        self.windows: Windows | None = None
        self.carried: dict[str, Any] = {}
        self._in_piece = False
        self.worker = Worker(beside=2 * sequence.stream.threads() <= cores())
        name = model_name(sequence.model)
        self.recorder = StreamRecorder(
            name, sequence.framework[0], sequence.select, sinks, labels, self.worker
        )
        self.done, self.state = 0, None

    def stores(
        self, trace: TraceSink, windows: Windows | None, reductions: Reductions | None
    ) -> None:
        """Say where the trace is stored, so that each chunk is made to count there."""
        self.trace, self.windows = trace, windows
        if windows is not None:
            self.carried["windows"] = windows
        if reductions is not None and not reductions.forgetful:
            self.carried["reductions"] = reductions
        if trace.place.resumed is not None:
            self._go_on(trace.place, trace.place.resumed)
        elif self.sequence.own_step:
            everything = cutting.all_of(self.sequence.select)
            self.recorder.beginning = Recorder("", self.sequence.framework[0], everything, "time")
        elif self.sequence.answer is None:
            self.sequence.answer = self.sequence.answers()

    def _go_on(self, place: Place, mark: Mark) -> None:
        """Stand where the run before was stopped."""
        carried, sequence = Carried.load(place.folder, mark), self.sequence
        check_same(place.folder, carried.facts, sequence)
        sequence.layers[:] = carried.facts["layers"]
        self.done, sequence.chunk = carried.step, carried.facts["chunk"]
        self.state = state.load(carried.facts["state"], carried.arrays)
        for name, holder in self.carried.items():
            try:
                holder.restore(state.load(carried.facts[name], carried.arrays))
            except (LookupError, TypeError, ValueError) as error:
                raise ResumeError(
                    f"{place.folder}: what was kept there of {KEPT[name]} cannot be gone on with "
                    f"({type(error).__name__}: {error}): another version wrote it. Open what is "
                    "complete with incomplete='trim', or record anew: overwrite=True."
                ) from error
        self.recorder.steps = dict(carried.facts["layer_steps"])
        self.recorder.attrs = dict(carried.facts["layer_attrs"])
        sequence.source.skip(carried.step)

    def go(self) -> None:
        """Run to the end. Whatever stops it, the chunks that were computed are written."""
        try:
            if not self.sequence.source.ended:  # else it was stopped behind its last step
                with self.sequence.framework[1].observe(self.sequence.model, self.recorder):
                    self._run()
            self.worker.wait()
            if self.trace is not None:
                self.trace.last = self._here(self.trace)()
            self.recorder.finish()
        except BaseException:
            with suppress(Exception):  # the first error goes first
                if not self._in_piece:
                    self._commit()
                self.worker.wait()
            raise
        finally:
            self.worker.close()

    def _run(self) -> None:
        source, pending = self.sequence.source, deque[Future[Any]]()
        while (x := source.take(self._count())) is not None:
            self._in_piece = True  # some layers may have its steps, and others not
            output, self.state = self.sequence.stream.step(x, self.state)
            for hand_over in self.recorder.pending:
                hand_over()
            self._advance(x, output)
            self._hear()
            self._in_piece = False
            if self.sequence.chunk is None:
                widths = sum(self.recorder.widths.values())
                self.sequence.chunk = cutting.chunk_steps(self.sequence.memory, widths)
            # The last chunk counts in the end, when the trace is complete.
            chunk_is_over = self.done % self.sequence.chunk == 0 and self.done != source.steps
            pending.append(self._commit() if chunk_is_over else self.worker.submit(_nothing))
            if len(pending) > AHEAD:
                self.worker.wait(pending.popleft())
            if self.progress is not None:
                self.progress(self.done, source.steps or self.done)

    def _advance(self, x: Any, output: Any) -> None:
        """Count a piece that was computed; let the steps near its events through."""
        source, start = self.sequence.source, self.done
        self.done += x.shape[source.axis]
        if self.windows is not None:
            events = self.windows.around.events(x, output, start, self.done)
            known = None if source.ended else self.done  # at the end nothing need be held
            self.worker.submit(self.windows.decide, events, known)

    def _hear(self) -> None:
        """Note what the model answers to the first steps, where nobody has asked it before."""
        if self.recorder.beginning is None:
            return
        self.sequence.answer = answer_of(self.recorder.beginning)
        if self.done >= cutting.STEPS:
            self.recorder.beginning = None

    def _count(self) -> int:
        """Return how many steps to run: to the end of the piece at hand, or of the chunk."""
        chunk = self.sequence.chunk
        if chunk is None or (self.sequence.own_step and not self.done):
            return min(FIRST, chunk or FIRST)
        if self.sequence.whole:
            return chunk
        piece, begun = max(SHORTEST, chunk // PIECES), self.done % chunk
        return min(piece - begun % piece, chunk - begun)

    def _commit(self) -> Future[Any]:
        """Let the chunk count once all of it is written."""
        if self.trace is None:
            return self.worker.submit(_nothing)
        here, commit = self._here(self.trace), self.trace.commit
        return self.worker.submit(lambda: commit(here()))

    def _here(self, trace: TraceSink) -> Callable[[], Carried]:
        """Return what tells where the recording stands, once all before is written."""
        arrays: state.Arrays = []
        facts = {**self.facts, "chunk": self.sequence.chunk, "answer": self.sequence.answer}
        facts["state"], step = state.dump(self.state, arrays), self.done

        def here() -> Carried:
            facts["layer_steps"] = dict(self.recorder.steps)
            facts["layer_attrs"] = dict(self.recorder.attrs)
            for name, holder in self.carried.items():
                facts[name] = state.dump(holder.state(), arrays)
            return Carried(step, trace.appender.rows(), arrays, facts)

        return here


def _nothing() -> None:
    """Be done when everything before it is done."""


def check_same(path: Path, then: Mapping[str, Any], sequence: Sequence) -> None:
    """Raise `ResumeError` if a recording to go on with differs from the one that began."""
    for name, now in sequence.facts.items():
        if not _same(name, then.get(name, now), now):
            beginning = "the first steps of the input, or another input"
            labels = "the labels of its steps (time=) or rows (batch=)"
            what = {"beginning": beginning, "steps": "the length of the input", "labels": labels}
            hidden = name in ("beginning", "labels")
            told = "" if hidden else f": {then.get(name)} and now {now}"
            raise ResumeError(
                f"{path}: the recording there differs in {what.get(name, name)}{told}. Go on with "
                "what it began with, or record anew: overwrite=True instead of resume=True."
            )
    sequence.answer = then.get("answer")
    if sequence.answer is not None:
        check_answer(path, sequence.answer, sequence.answers())


def _same(name: str, then: Any, now: Any) -> bool:
    """Whether a fact is the same, or not known now."""
    if name == "model":  # a file has many paths; what is in it is asked for its answer
        return Path(then).name == Path(now).name
    return then == now or (name == "layers" and not now)


def _crc(labels: Any) -> int:
    """Return a checksum of labels."""
    a = np.asarray(labels)
    return zlib.crc32("\n".join(map(str, a)).encode() if a.dtype.kind == "O" else a.tobytes())
