"""Calling a model with its scans tapped, and handing what they carry to a recorder."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, Final

from everystate.frameworks.jax.observations import observations
from everystate.frameworks.jax.scans import check_tapped, nothing_in
from everystate.frameworks.jax.tracing import Watching, trace
from everystate.recording.recorder import Recorder


@dataclass(frozen=True, eq=False)
class Target:
    """A model as a function of arrays.

    Parameters
    ----------
    fn : callable
        Takes `args`, then what the model is called with.
    args : tuple
        What the model itself brings: its weights.
    name : callable
        Turns a scan's name scope into a path of the trace.
    finish : callable
        Turns the function's result into the model's.
    """

    fn: Callable[..., Any]
    args: tuple[Any, ...] = ()
    name: Callable[[str], str] = str
    finish: Callable[[Any], Any] = lambda result: result


def recorded_call(target: Target, inputs: Sequence[Any], recorder: Recorder) -> Any:
    """Call a model once, hand every state to the recorder, and return the model's result.

    Raises
    ------
    NothingRecordedError
        If the model has no scan.
    UnsupportedModelError
        If one of its scans cannot be tapped.
    UnknownLayerError
        If a layer pattern of the selection matches none of the layers found.
    """
    traced, arrays = trace(target.fn, (*target.args, *inputs), watching=watch_all)
    result, found = traced.run(arrays)
    check_tapped(target.fn, found)
    seen = observations(found, target.name)
    if not seen:
        raise nothing_in(target.fn, traced)
    recorder.select.check_layers([s.path for s in seen])
    recorder.begin_run()
    for s in seen:
        recorder.observe(s)
    recorder.end_run()
    return target.finish(result)


WATCHERS: Final[list[Watching]] = []
"""What the modules of libraries built on JAX know of their cells; each adds its own when loaded."""


@contextmanager
def watch_all(fn: Callable[..., Any], args: Any) -> Iterator[None]:
    """Let every library loaded tag the values of its cells within the block."""
    with ExitStack() as stack:
        for watcher in WATCHERS:
            stack.enter_context(watcher(fn, args))
        yield


_OPEN: list[tuple[object, Recorder]] = []
"""The models being recorded, the innermost block last."""


@contextmanager
def observed(model: object, recorder: Recorder) -> Iterator[None]:
    """Let `recorder_of` know, within the block, that a model is recorded."""
    entry = (model, recorder)
    _OPEN.append(entry)
    try:
        yield
    finally:
        _OPEN.remove(entry)


def recorder_of(model: object) -> Recorder | None:
    """Return the recorder of the innermost block that records a model; None outside of one."""
    return next((recorder for known, recorder in reversed(_OPEN) if known is model), None)
