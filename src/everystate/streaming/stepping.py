"""How a model is run in chunks: its framework's `Stream`, or one that says that there is none."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from everystate.errors import InputError, SelectionError, UncuttableError
from everystate.recording.discovery import Framework
from everystate.recording.stream import Stream
from everystate.streaming.feeding import Given


def stream_of(
    framework: tuple[str, Framework], model: Any, given: Given, time_axis: int | None = None
) -> Stream:
    """Return how to run a model chunk by chunk.

    Parameters
    ----------
    framework : tuple
        Name and module of the framework that knows the model.
    model : model
        It is not run.
    given : Given
        What it is given: the sequence, and perhaps other inputs by name.
    time_axis : int, optional
        Which axis of the input is time. None: the framework module knows, or else the second
        of three, the first of fewer.

    Raises
    ------
    InputError
        If inputs are given by name, and the model's have none.
    """
    name, module = framework
    hook = getattr(module, "stream", None)
    stream = Stream(_unknown(name), _second_of_three) if hook is None else hook(model)
    if given.name:
        if stream.named is None:
            raise InputError(
                f"inputs by name, {given.name} and {len(given.others)} others: with store= and "
                f"reduce= models of {name} take one input, the sequence. Wrap the model in one "
                "that supplies the rest."
            )
        stream = stream.named(given.name, given.others)
    if time_axis is None:
        return stream
    if time_axis not in (0, 1, 2):
        raise SelectionError(f"time_axis={time_axis!r}: expected 0, 1 or 2.")
    axis = time_axis
    return replace(stream, time_axis=lambda x: axis)


def call_of(
    framework: tuple[str, Framework], model: Any, stream: Stream
) -> Callable[[Any], object]:
    """Return what runs a model once, on all of a sequence."""
    return stream.call or (lambda x: framework[1].call(model, (x,)))


def _unknown(name: str) -> Any:
    def step(x: Any, state: Any) -> tuple[Any, Any]:
        raise UncuttableError(f"how models of {name} hand on their state is not known here.")

    return step


def _second_of_three(x: Any) -> int:
    return 1 if len(x.shape) > 2 else 0
