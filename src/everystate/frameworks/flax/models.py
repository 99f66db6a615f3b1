"""Which models are Flax's, and calling them: Linen and NNX alike."""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from functools import partial
from typing import Any, Final

import flax.linen as nn
from flax import nnx

from everystate.frameworks.flax import graphs, linen
from everystate.frameworks.jax.running import WATCHERS, Target, block_of, observed, watched_calls
from everystate.frameworks.jax.streaming import stream_of
from everystate.recording.recorder import Recorder
from everystate.recording.stream import Stream

_JITTED: Final = type(nnx.jit(lambda: None))


def matches(model: object) -> bool:
    """Whether `model` is a module of NNX or Linen, or a function under `nnx.jit`."""
    return isinstance(model, nnx.Module | nn.Module | _JITTED)


def layers(model: Any) -> Sequence[str] | None:
    """Return the leaf path of each recurrent layer and direction.

    None for functions; for Linen, whose modules are made when they are called; and where there is
    none: a model may well scan by itself.
    """
    return (graphs.layers(model) or None) if isinstance(model, nnx.Module) else None


def observe(model: Any, recorder: Recorder) -> AbstractContextManager[object]:
    """Return a context in which a call of an NNX model hands over every state.

    Of a Linen model, a call by the recorder's `run`.
    """
    if isinstance(model, nnx.Module):
        return watched_calls(model, recorder, graphs.target)
    _target(model)
    return observed(model, recorder)


def call(model: Any, inputs: Sequence[Any]) -> object:
    """Call the model once; while it is recorded, with its scans tapped."""
    block = None if isinstance(model, nnx.Module) else block_of(model)
    return model(*inputs) if block is None else block.call(_target(model), inputs)


def stream(model: Any) -> Stream:
    """Return how to run a model chunk by chunk; a module is left as it was."""
    if not isinstance(model, nnx.Module):
        return stream_of(model, _target(model))
    target = replace(graphs.target(model), finish=lambda result: result[0])
    stream = stream_of(model, target, sees_calls=True)
    return replace(stream, sure=partial(graphs.sure, model))


def _target(model: Any) -> Target:
    return Target(model) if isinstance(model, _JITTED) else linen.target(model)


WATCHERS.extend([linen.watching, graphs.watching_arguments])
