"""Whether a model can be cut in time, tried on a short beginning; and how much memory it takes.

No look at a model proves that its recurrent layers read nothing of the future and forget
nothing between two calls. So the first steps are run twice, whole and in pieces with the state
carried on, and every state and input of every layer is compared (see `all_of`): attention,
convolution or normalisation over time, positions counted from the beginning of a call, dropout and
states kept inside the model all show. What it cannot see is what depends only on steps further back
than the trial is long, or on less than the tolerance of a replay.

Rounding differs between a whole and its pieces, and in a chaotic network it grows until the two
have nothing in common, both of them right. It grows step by step, though, whereas what lacks
steps before a piece parts at once: that is how they are told apart. What sees steps ahead, a little
more the nearer they are, would pass for rounding. So the first steps are also run with others in
their second half: in the first one nothing may change, not even by rounding that grew.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, Final

import numpy as np
import xarray as xr
from array_api_compat import array_namespace, is_array_api_obj

from everystate import schema
from everystate.errors import InputError, UncuttableError
from everystate.recording.discovery import Framework
from everystate.recording.observation import as_numpy
from everystate.recording.recorder import Recorder
from everystate.recording.selection import Select
from everystate.recording.stream import Step, Stream
from everystate.recording.verify import TOLERANCE
from everystate.recording.warning import quietly
from everystate.streaming.source import Source
from everystate.streaming.stepping import call_of

STEPS: Final = 48
"""Steps of the beginning that are tried at least; they tell what a step takes."""
LONGEST: Final = 512
"""Steps that are tried at most, where the sequence is long and there is memory for them."""
SHARE: Final = 20
"""The trial is at most this part of the sequence, beyond the first steps."""
GROWTH: Final = 100.0
"""How much rounding may grow from one step to the next; what grows more is not rounding."""
COPIES: Final = 8
"""How often a chunk is in memory: computed, waiting, replayed, gathered, compressed."""
LARGEST: Final = 1 << 26
"""Bytes of a chunk from which on a longer one saves nothing."""
SHORTEST: Final = 16
WHOLE_COPIES: Final = 2
"""How often a sequence that is run whole is in memory: in the model, and recorded."""


@dataclass(frozen=True)
class Trial:
    """What came of it.

    Parameters
    ----------
    step_bytes : float
        Bytes that a step takes of all layers: what they are given, states and gates.
    layers : list of str
        Leaf paths of the layers that were called.
    beginning : DataTree, optional
        What they did at the first steps, run whole.
    reason : str, optional
        Why the model cannot be cut. None: it can.
    """

    step_bytes: float
    layers: list[str] = field(default_factory=list)
    beginning: xr.DataTree | None = None
    reason: str | None = None


def all_of(select: Select) -> Select:
    """Return a selection of the same layers, with all that they show or hide at each step.

    Only with what they show, if no more is recorded: a replay may be what somebody does without.
    """
    states = ("h",) if select.only_output else ("states", "gates")
    return Select(layers=select.layers, variables=(*states, "inputs"))


def recorded(
    framework: tuple[str, Framework], model: Any, select: Select, run: Callable[[], object]
) -> Recorder:
    """Return what recorded a selection while `run` ran the model.

    Parameters
    ----------
    framework : tuple
        Name and module of the framework that knows the model.
    model : model
        It is observed.
    select : Select
        What is looked at.
    run : callable
        Runs the model, once or several times, along time.
    """
    recorder = Recorder("", framework[0], select, "time")
    with quietly(), framework[1].observe(model, recorder):
        run()
    return recorder


def trace_of(recorder: Recorder) -> xr.DataTree:
    """Return what was recorded; what is odd in it is said of the recording that follows."""
    with quietly():
        return recorder.trace


def tried(
    framework: tuple[str, Framework],
    model: Any,
    select: Select,
    source: Source,
    stream: Stream,
    memory: int,
) -> Trial:
    """Run the beginning of a sequence whole and in pieces.

    Parameters
    ----------
    framework : tuple
        Name and module of the framework that knows the model.
    model : model
        It runs a few times.
    select : Select
        Whose layers are looked at.
    source : Source
        The sequence; it stays where it is.
    stream : Stream
        How it is run; where it cannot be cut, its step raises `UncuttableError`.
    memory : int
        Bytes that the recording may take.
    """
    x, call = source.peek(STEPS), call_of(framework, model, stream)
    select = all_of(select)
    first = recorded(framework, model, select, lambda: call(x))
    short = whole = trace_of(first)
    half = x.shape[source.axis] // 2
    other = _with_another_end(x, source.axis, half)
    step_bytes = sum(leaf.dataset.nbytes for leaf in whole.leaves) / x.shape[source.axis]
    trial = Trial(step_bytes, first.called, short)
    longer = _steps(source.steps, memory, step_bytes)
    if longer > STEPS:
        x = source.peek(longer)
        whole = trace_of(recorded(framework, model, select, lambda: call(x)))
    try:
        cut = recorded(framework, model, select, lambda: _in_pieces(stream.step, x, source.axis))
    except UncuttableError as error:
        return replace(trial, reason=str(error))
    except InputError as error:
        return replace(trial, reason=f"a piece of a sequence is no input for it ({error})")
    difference = _difference(whole, trace_of(cut))
    if difference is None and half:
        ahead = trace_of(recorded(framework, model, select, lambda: call(other)))
        one, two = (t.isel(time=slice(half), missing_dims="ignore") for t in (short, ahead))
        difference = _difference(one, two, said="given other steps later on", growth=0.0)
    return replace(trial, reason=difference)


def chunk_steps(memory: int, step_bytes: float) -> int:
    """Return how many steps to run at once, a power of two."""
    most = min(memory / COPIES, LARGEST) / max(step_bytes, 1.0)
    return max(SHORTEST, 1 << (max(int(most), 1).bit_length() - 1))


def check_whole(model: str, reason: str, trial: Trial, steps: int | None, memory: int) -> None:
    """Check that there is room for a sequence that cannot be cut.

    Raises
    ------
    UncuttableError
        If there is not; it names the reason and the memory.
    """
    way_out = (
        "If you know how to run it in chunks, give step=, a function (chunk, state) -> (output, "
        "state); or record shorter sequences"
    )
    if steps is None:
        raise UncuttableError(
            f"{model} cannot be run in chunks of time: {reason} Without an end in sight nobody can "
            f"say what it would take to run it whole. {way_out}."
        )
    needed = WHOLE_COPIES * trial.step_bytes * steps
    if needed > memory:
        raise UncuttableError(
            f"{model} cannot be run in chunks of time: {reason} Run whole, {steps:,} steps would "
            f"take at least {amount(needed)}, more than memory={amount(memory)}. {way_out}, or "
            f"allow it: memory='{amount(needed * 1.1)}'."
        )


def amount(size: float) -> str:
    """Return a number of bytes as text: ``'1.5 GB'``."""
    for unit, bytes_ in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6)):
        if size >= bytes_:
            return f"{size / bytes_:.1f} {unit}"
    return f"{size / 1e3:.0f} kB"


def _steps(steps: int | None, memory: int, step_bytes: float) -> int:
    """Return how many steps to try: what is little beside the sequence and the memory."""
    of_sequence = LONGEST if steps is None else steps // SHARE
    return int(min(LONGEST, of_sequence, memory / COPIES / max(step_bytes, 1.0)))


def _in_pieces(step: Step, x: Any, axis: int) -> None:
    """Run a sequence in pieces of unlike lengths, more than one if it has two steps.

    A long one begins with as many steps as were run before: some frameworks compile the model for
    each length.
    """
    steps, start, state = x.shape[axis], 0, None
    short = min(17, max(1, steps // 2))
    for count in (short, 1, steps) if steps <= STEPS else (STEPS, 1, 17, steps):
        part = (slice(None),) * axis + (slice(start, start + count),)
        if start < steps:
            _, state = step(x[part], state)
        start += count


def _with_another_end(x: Any, axis: int, start: int) -> Any:
    """Return a sequence whose steps from `start` on are those from its beginning."""
    x = x if is_array_api_obj(x) else as_numpy(x)
    before = (slice(None),) * axis
    parts = [x[(*before, slice(start))], x[(*before, slice(x.shape[axis] - start))]]
    return array_namespace(x).concat(parts, axis=axis)


def _difference(
    whole: xr.DataTree,
    cut: xr.DataTree,
    said: str = "run in pieces",
    growth: float | None = None,
) -> str | None:
    """Say where two recordings part beyond rounding, which may grow so; None if they do not."""
    growth = GROWTH if growth is None else growth
    if whole.groups != cut.groups:
        return f"in pieces it calls other layers ({cut.groups} and not {whole.groups})."
    for leaf in whole.leaves:
        other = cut[leaf.path]
        assert isinstance(other, xr.DataTree)
        tolerance = TOLERANCE[str(leaf.attrs.get("precision", "float32"))]
        names = sorted(map(str, leaf.data_vars), key=lambda name: name != schema.INPUTS)
        for name, a in ((name, leaf.dataset[name]) for name in names):  # what it is given first
            b = other.dataset[name]
            if a.shape != b.shape:
                return f"{leaf.path} runs other steps in pieces, {b.shape} and not {a.shape}."
            if _part(a, b, tolerance, growth):
                where = "what it is given" if name == schema.INPUTS else f"{name}"
                return (
                    f"{said}, {where} of {leaf.path} differs by up to "
                    f"{float(abs(a - b).max()):.2g}: it sees other steps than those before, or "
                    "the pieces do not go on where the last one stopped."
                )
    return None


def _part(a: xr.DataArray, b: xr.DataArray, tolerance: float, growth: float) -> bool:
    """Whether two recordings of a variable part, by more than rounding grows in a step."""
    with np.errstate(invalid="ignore"):
        error = np.abs(a.values - b.values) / (1.0 + np.abs(b.values))
    error[(a.values == b.values) | (np.isnan(a.values) & np.isnan(b.values))] = 0.0
    error = np.where(np.isnan(error), np.inf, error)
    axes = tuple(k for k, dim in enumerate(a.dims) if dim != schema.TIME)
    by_step = np.atleast_1d(error.max(axis=axes))
    before = np.append(0.0, by_step[:-1])
    return bool((by_step > np.maximum(tolerance, growth * before)).any())
