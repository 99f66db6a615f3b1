"""How a model is run in chunks: its framework's `Stream`, or one that says that there is none."""

from dataclasses import replace
from typing import Any

from everystate.errors import SelectionError, UncuttableError
from everystate.recording.discovery import Framework
from everystate.recording.stream import Stream


def stream_of(framework: tuple[str, Framework], model: Any, time_axis: int | None = None) -> Stream:
    """Return how to run a model chunk by chunk.

    Parameters
    ----------
    framework : tuple
        Name and module of the framework that knows the model.
    model : model
        It is not run.
    time_axis : int, optional
        Which axis of the input is time. None: the framework module knows, or else the second
        of three, the first of fewer.
    """
    name, module = framework
    hook = getattr(module, "stream", None)
    stream = Stream(_unknown(name), _second_of_three) if hook is None else hook(model)
    if time_axis is None:
        return stream
    if time_axis not in (0, 1, 2):
        raise SelectionError(f"time_axis={time_axis!r}: expected 0, 1 or 2.")
    axis = time_axis
    return replace(stream, time_axis=lambda x: axis)


def _unknown(name: str) -> Any:
    def step(x: Any, state: Any) -> tuple[Any, Any]:
        raise UncuttableError(f"how models of {name} hand on their state is not known here.")

    return step


def _second_of_three(x: Any) -> int:
    return 1 if len(x.shape) > 2 else 0
