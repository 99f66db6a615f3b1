"""`record_long`: one long sequence, to a trace on disk or to reductions, in bounded memory."""

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import xarray as xr

from everystate import schema
from everystate.errors import InputError, SelectionError
from everystate.recording.discovery import framework_of, model_name
from everystate.recording.recorder import Progress
from everystate.recording.selection import Select
from everystate.recording.trace import Labels
from everystate.storage import open_reductions, open_trace
from everystate.storage.carried import Carried
from everystate.storage.identify import root_attrs
from everystate.storage.lossy import check_stored
from everystate.storage.mark import Mark
from everystate.storage.place import stopped
from everystate.storage.writing import writing
from everystate.streaming import cutting
from everystate.streaming.answer import answer_in
from everystate.streaming.around import EITHER, Windows
from everystate.streaming.feeding import given
from everystate.streaming.options import MEMORY, Streaming, bytes_of
from everystate.streaming.recorder import Sink
from everystate.streaming.reductions import Reductions
from everystate.streaming.running import FIRST, Run, Sequence, check_same
from everystate.streaming.sink import Outline, TraceSink
from everystate.streaming.source import Source
from everystate.streaming.stepping import call_of, stream_of


def record_long(
    model: Any,
    inputs: tuple[Any, ...],
    select: Select,
    labels: tuple[Labels, Labels],
    progress: Progress | None,
    options: Streaming,
) -> xr.DataTree:
    """Record one long sequence; arguments as of `everystate.record`.

    Returns
    -------
    xarray.DataTree
        The reductions if ``reduce=`` was given, else the trace in the store, not yet read.
    """
    sequence = _planned(model, inputs, select, options)
    _check_time(sequence, labels[0])
    sequence.labels, sequence.own_step = labels, bool(options.get("step"))
    check_stored(options.get("stored_as"))
    sequence.stored_as, sequence.full = options.get("stored_as"), options.get("full", True)
    sequence.around, store = options.get("around"), options.get("store")
    around = sequence.around
    if around is not None and around.steps is None and around.score is None:
        raise SelectionError(EITHER)
    outline = Outline(
        model_name(model),
        sequence.framework[0],
        sequence.layers,
        labels,
        (lambda path: None) if around is not None else sequence.total,
        stored_as=sequence.stored_as,
        full=sequence.full,
    )
    reductions = _reductions(sequence, outline, options)
    if store is None:
        assert reductions is not None
        _settle(sequence)
        Run(sequence, [reductions], labels, progress).go()
        return reductions.result()
    path = Path(store)
    if options.get("resume") and _is_complete(path, sequence):
        Carried.forget(path)  # whoever completed it may have been killed before it did so
        return open_trace(path) if reductions is None else open_reductions(path)
    flags = {name: bool(options.get(name)) for name in ("overwrite", "resume")}
    with writing(path, **flags) as place:
        if place.resumed is None:
            _settle(sequence)
        outline = replace(outline, block=sequence.chunk)
        sink = TraceSink(place, outline, reductions=reductions)
        windows = None if around is None else Windows(sink, around)
        sinks: list[Sink] = [windows or sink]
        sinks += [] if reductions is None else [reductions]
        run = Run(sequence, sinks, labels, progress)
        run.stores(sink, windows, reductions)
        run.go()
    return open_trace(path) if reductions is None else reductions.result()


def _reductions(sequence: Sequence, outline: Outline, options: Streaming) -> Reductions | None:
    """Return what is made of the steps, if anything is."""
    reduce = options.get("reduce")
    if reduce is None:
        return None
    reductions = Reductions(reduce, outline, int(sequence.select.every))
    sequence.reducers = reductions.described
    if options.get("resume") and reductions.forgetful:
        raise SelectionError(
            f"resume= cannot go on with reduce={reductions.forgetful[0]!r}: it has no state(), "
            "which returns what it holds as arrays, and no restore(state)."
        )
    return reductions


def _planned(model: Any, inputs: tuple[Any, ...], select: Select, options: Streaming) -> Sequence:
    """Find out how the sequence can be run."""
    framework = framework_of(model)
    layers = framework[1].layers(model)
    if layers is not None:  # else its first call checks the selection
        select.check_layers(layers)
    what = given(inputs)
    own, stream = options.get("step"), stream_of(framework, model, what, options.get("time_axis"))
    source = Source(what.x, stream.time_axis)
    if source.steps == 0:
        raise InputError("the sequence has no steps; there is nothing to record.")
    memory, chunk = bytes_of(options.get("memory", MEMORY)), options.get("chunk")
    select = _resolved(select, source.steps)
    stream = stream if own is None else replace(stream, step=stream.by(own))
    run = framework, select, source, stream, chunk, memory, list(layers or ())
    return Sequence(model, *run, others=what.others)


def _settle(sequence: Sequence) -> None:
    """Settle the length of a chunk; where there is no cutting, run all at once if that fits."""
    if sequence.own_step:  # whoever writes one knows that it can be cut; its first chunk tells more
        sequence.layers[:] = sequence.layers or _layers_called(sequence)
        return
    source, model, stream = sequence.source, sequence.model, sequence.stream
    step_bytes = stream.sure(source.peek(1)) if sequence.layers else None
    trial = cutting.Trial(step_bytes) if step_bytes else _tried(sequence)
    sequence.layers[:] = sequence.layers or trial.layers
    chunk = sequence.chunk or cutting.chunk_steps(sequence.memory, trial.step_bytes)
    sequence.chunk = chunk
    if trial.beginning is not None:
        sequence.answer = answer_in(trial.beginning)
    if trial.reason is None:
        return
    if source.steps is None or source.steps > chunk:
        cutting.check_whole(model_name(model), trial.reason, trial, source.steps, sequence.memory)
    call = call_of(sequence.framework, model, stream)
    sequence.chunk, sequence.whole = source.steps, True
    sequence.stream = replace(stream, step=lambda x, _: (call(x), None))


def _tried(sequence: Sequence) -> cutting.Trial:
    source, stream = sequence.source, sequence.stream
    run = sequence.model, sequence.select, source, stream, sequence.memory
    with stream.undisturbed():
        return cutting.tried(sequence.framework, *run)


def _layers_called(sequence: Sequence) -> list[str]:
    """Return which layers a step of the user's calls, where nobody knows before."""
    run = partial(sequence.stream.step, sequence.source.peek(FIRST), None)
    with sequence.stream.undisturbed():
        return cutting.recorded(sequence.framework, sequence.model, sequence.select, run).called


def _resolved(select: Select, steps: int | None) -> Select:
    """Return a selection whose window is counted from the beginning."""
    if steps is None:
        return select
    if select.counts_from_end:
        there = select.steps("the sequence", steps)
        select = replace(select, window=(there.start, there.stop))
    if not select.steps("the sequence", steps):
        raise SelectionError(f"window={select.window!r} holds none of the {steps} steps.")
    return select


def _check_time(sequence: Sequence, time: Labels) -> None:
    steps = sequence.source.steps
    if time is not None and steps is not None and len(time) != steps:
        raise InputError(f"time= has {len(time)} labels, but there are {steps} steps to label.")


def _is_complete(path: Path, sequence: Sequence) -> bool:
    """Whether the recording was finished before, so that nothing is left to be done."""
    mark = None if stopped(path) else Mark.load(path)
    if mark is None or not mark.carried or "step" in mark.carried:
        return False
    check_same(path, mark.carried["facts"], sequence)
    return bool(root_attrs(path)[schema.COMPLETE_ATTR])
