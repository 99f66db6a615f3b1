"""Running a stack chunk by chunk, its final state handed on."""

from functools import partial
from typing import Any

from everystate.errors import UncuttableError
from everystate.frameworks.numpy.observing import chosen_stack, stacks_of
from everystate.recording.stream import Stream


def stream(model: Any) -> Stream:
    """Return how to run a model chunk by chunk (see `everystate.recording.stream.Stream`)."""
    return Stream(partial(_step, model), partial(_time_axis, model))


def _step(model: Any, x: Any, state: Any) -> tuple[Any, Any]:
    stack = chosen_stack(model, (x,))
    if len(stack.levels[0]) > 1:
        raise UncuttableError(
            f"{stack.name} is bidirectional: it begins at the end of the sequence."
        )
    return stack(x, state)


def _time_axis(model: Any, x: Any) -> int:
    first = next(iter(stacks_of(model).values()))  # those of one file have one layout
    return 1 if len(x.shape) == 3 and first.batch_first else 0
