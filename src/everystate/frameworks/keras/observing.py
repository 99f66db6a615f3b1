"""Observing: a model's recurrent layers are watched as long as a block lasts."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from functools import wraps
from typing import Any, Final

import keras
from keras import layers

from everystate.frameworks.keras.finding import leaves, one_kernel_each, recurrent_layers
from everystate.frameworks.keras.loading import opened, reset
from everystate.frameworks.keras.replacing import replaced
from everystate.frameworks.keras.watching import Watcher
from everystate.recording.alone import alone
from everystate.recording.recorder import Recorder
from everystate.recording.warning import warn

COMPILED: Final = ("predict_function", "test_function", "train_function")


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
        stack.enter_context(alone((w.path, w.layer) for w in watchers))
        stack.enter_context(one_kernel_each(model))
        if not isinstance(model, layers.RNN):  # else a call of the model is one of its layer
            stack.enter_context(replaced(model, "call", _as_run(model.call, recorder)))
        for watcher in watchers:
            stack.enter_context(replaced(watcher.layer, "inner_loop", watcher))
        yield
    _warn_of_unseen(model, watchers)


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


def _warn_of_unseen(model: keras.Layer, watchers: Iterable[Watcher]) -> None:
    """Warn of layers that were not called, or in a compiled function, where they are not seen."""
    unseen = [w for w in watchers if w.compiled or not w.called]
    if not unseen:
        return
    compiled = any(getattr(model, name, None) is not None for name in COMPILED)
    cause = (
        "The model was compiled, as predict, evaluate, fit, tf.function and jax.jit do it, and "
        "what is compiled cannot be observed: call model(x) inside the block, or first "
        "model.compile(..., run_eagerly=True)."
        if compiled or any(w.compiled for w in unseen)
        else "They are unused, or a function that was compiled before called them."
    )
    paths = ", ".join(w.path for w in unseen)
    warn(f"calls of these layers were not seen, so the trace lacks them: {paths}. {cause}")
