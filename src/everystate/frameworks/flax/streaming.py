"""Running one recurrent layer of NNX chunk by chunk, its carry handed on."""

from functools import partial
from typing import Any

from flax import nnx

from everystate.errors import UncuttableError
from everystate.recording.stream import Stream


def stream(model: Any) -> Stream:
    """Return how to run a model chunk by chunk (see `everystate.recording.stream.Stream`)."""
    return Stream(partial(_step, model), partial(_time_axis, model))


def _step(model: Any, x: Any, carry: Any) -> tuple[Any, Any]:
    if not isinstance(model, nnx.RNN):
        raise UncuttableError(
            f"where a {type(model).__name__} hands on the state of its layers is not known here; "
            "an nnx.RNN is given its carry, other modules by a step of yours."
        )
    if model.reverse:
        raise UncuttableError("it reads backwards: it begins at the end of the sequence.")
    after, outputs = model(x, initial_carry=carry, return_carry=True)
    return outputs, after


def _time_axis(model: Any, x: Any) -> int:
    if isinstance(model, nnx.RNN) and model.time_major:
        return 0
    return len(x.shape) - 2 if isinstance(model, nnx.RNN) else min(1, len(x.shape) - 1)
