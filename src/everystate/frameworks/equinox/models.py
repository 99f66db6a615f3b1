"""Equinox's modules as models."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any, Final

import equinox as eqx

from everystate.frameworks.equinox.cells import places, watching
from everystate.frameworks.jax.running import WATCHERS, Target, watched_calls
from everystate.frameworks.jax.streaming import stream_of
from everystate.recording.recorder import Recorder
from everystate.recording.stream import Stream

_JITTED: Final[Any] = type(eqx.filter_jit(lambda: None))


def matches(model: object) -> bool:
    """Whether `model` is a module of Equinox."""
    return isinstance(model, eqx.Module)


def layers(model: eqx.Module) -> Sequence[str] | None:
    """Return the path of each cell; None if there is none, as states may be carried without."""
    return [path for path, _ in places(_taken_apart(model)[0])] or None


def observe(model: eqx.Module, recorder: Recorder) -> AbstractContextManager[object]:
    """Return a context in which a call of the model hands over every state."""
    return watched_calls(model, recorder, _target)


def call(model: Any, inputs: Sequence[Any]) -> object:
    """Call the model once."""
    return model(*inputs)


def stream(model: eqx.Module) -> Stream:
    """Return how to run a model chunk by chunk: its scans along time go on."""
    return stream_of(model, _target(model))


def _target(model: Any) -> Target:
    inner, run = _taken_apart(model)
    return Target(run, (inner,), key="equinox")


def _taken_apart(model: Any) -> tuple[Any, Callable[..., Any]]:
    """Return a module, and how to call it: `eqx.filter_jit` has taken it apart, so anew."""
    if type(model) is _JITTED:
        return model.__wrapped__, lambda own, *inputs, **named: eqx.filter_jit(own)(
            *inputs, **named
        )
    return model, _call


def _call(model: Any, *inputs: Any, **named: Any) -> Any:
    return model(*inputs, **named)


WATCHERS.append(watching)
