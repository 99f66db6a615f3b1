"""Functions of JAX as models: under `jax.jit` or not, and their states by scan."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from functools import partial
from types import FunctionType, MethodType
from typing import Any, Final

import jax

from everystate.errors import UnsupportedModelError
from everystate.frameworks.jax.running import Target, block_of, observed
from everystate.frameworks.jax.streaming import stream_of
from everystate.recording.custom import is_cell
from everystate.recording.recorder import Recorder
from everystate.recording.stream import Stream

_JITTED: Final = type(jax.jit(lambda: None))
_FOREIGN: Final = ("keras", "onnxruntime", "tensorflow", "tf_keras", "torch")
"""Whose bound methods are no functions of JAX."""


def matches(model: object) -> bool:
    """Whether `model` is a function, under `jax.jit` or not, or a `functools.partial` of one.

    A function that is one step, and names its states, is not: it is stepped, whatever its arrays.
    """
    if is_cell(model):
        return False
    if _is_pair(model):
        return True  # known, to be refused with what to do
    while isinstance(model, partial):
        model = model.func
    makers = type(getattr(model, "__self__", None)).__mro__
    foreign = any(cls.__module__.partition(".")[0] in _FOREIGN for cls in makers)
    return isinstance(model, (_JITTED, FunctionType, MethodType)) and not foreign


def layers(model: Callable[..., Any]) -> Sequence[str] | None:
    """Return None: which scans a function has is known only once it is called.

    Raises
    ------
    UnsupportedModelError
        If it is a pair of functions, ``init`` and ``apply``, as Haiku's transform returns.
    """
    if _is_pair(model):
        raise UnsupportedModelError(
            f"got {type(model).__name__}, the functions init and apply, expected one function of "
            "the input. Try es.record(functools.partial(model.apply, params, rng), x), without rng "
            "if its apply takes none."
        )
    return None


def _is_pair(model: object) -> bool:
    """Whether it is a named pair ``init`` and ``apply``: a model without its parameters."""
    return isinstance(model, tuple) and getattr(model, "_fields", ()) == ("init", "apply")


def observe(model: Callable[..., Any], recorder: Recorder) -> AbstractContextManager[object]:
    """Return a context in which the recorder's `run` hands over every state."""
    return observed(model, recorder)


def call(model: Callable[..., Any], inputs: Sequence[Any]) -> object:
    """Call the function once; while it is recorded, with its scans tapped."""
    block = block_of(model)
    if block is None:
        return model(*inputs)
    pure = isinstance(model, _JITTED)  # so its user says
    return block.call(Target(model, key=model if pure else None), inputs)


def stream(model: Callable[..., Any]) -> Stream:
    """Return how to run a function chunk by chunk: its scans along time go on."""
    return stream_of(model, Target(model))


def unroll(layer: Any, *inputs: Any, **options: Any) -> object:
    """Refuse: a function is no layer.

    Raises
    ------
    UnsupportedModelError
        Always; `tap_scans` is what there is for functions.
    """
    raise UnsupportedModelError(
        f"unroll takes one recurrent layer or cell, got the function "
        f"{getattr(layer, '__name__', layer)}. Try everystate.frameworks.jax.tap_scans(fn)(x), "
        "whose states can be differentiated."
    )
