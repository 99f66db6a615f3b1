"""Observing: a model's recurrent layers are watched as long as a block lasts."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import wraps
from typing import Any, Final

import keras
from keras import layers

from everystate.frameworks.keras.finding import leaves, one_kernel_each, recurrent_layers
from everystate.frameworks.keras.loading import opened, reset
from everystate.frameworks.keras.replacing import replaced
from everystate.frameworks.keras.watching import Watcher
from everystate.recording.recorder import Recorder, warn

COMPILED: Final = ("predict", "test", "train")


@contextmanager
def observe(model: Any, recorder: Recorder) -> Iterator[None]:
    """Hand every call of a recurrent layer of `model` to `recorder` (see `Framework.observe`)."""
    if model is not (model := opened(model)):  # one from a file, which nobody else runs
        reset(model)
    watchers = [
        Watcher(path, layer, recorder)
        for path, layer in recurrent_layers(model)
        if any(recorder.wants(name) for name in leaves(path, layer))
    ]
    with ExitStack() as stack:
        stack.enter_context(one_kernel_each(model))
        if not isinstance(model, layers.RNN):  # else a call of the model is one of its layer
            stack.enter_context(replaced(model, "call", _as_run(model.call, recorder)))
        for watcher in watchers:
            stack.enter_context(replaced(watcher.layer, "inner_loop", watcher))
        yield
    _warn_never_called(model, [w.path for w in watchers if not w.called])


def _as_run(call: Callable[..., Any], recorder: Recorder) -> Callable[..., Any]:
    """Return a model's `call` that tells the recorder where it begins and ends."""

    @wraps(call)
    def run(*args: Any, **kwargs: Any) -> Any:
        recorder.begin_run()
        try:
            return call(*args, **kwargs)
        finally:
            recorder.end_run()

    return run


def _warn_never_called(model: keras.Layer, paths: list[str]) -> None:
    if not paths:
        return
    compiled = [name for name in COMPILED if getattr(model, f"{name}_function", None) is not None]
    cause = (
        f"Its {', '.join(compiled)} function is compiled, and a compiled model's layers are not "
        "seen: call model(x) instead, or compile the model with run_eagerly=True."
        if compiled
        else "They are unused, or the model was compiled by tf.function or jax.jit before."
    )
    warn(
        f"these layers were never called while recording, so the trace lacks them: "
        f"{', '.join(paths)}. {cause}"
    )
