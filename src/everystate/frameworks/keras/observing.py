"""Observing: a model's recurrent layers are watched as long as a block lasts."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from functools import wraps
from typing import Any, Final

import keras
from keras import layers

from everystate.frameworks.keras.finding import (
    is_cell,
    leaves,
    looped_cells,
    one_kernel_each,
    recurrent_layers,
)
from everystate.frameworks.keras.loading import opened, reset
from everystate.frameworks.keras.looping import CellWatcher
from everystate.frameworks.keras.replacing import replaced
from everystate.frameworks.keras.stepping import cells_of
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
    cells = [
        CellWatcher(path, cell, recorder, owned=bool(_layers_over(model, cell)))
        for path, cell in looped_cells(model)
        if recorder.wants(path)
    ]
    with ExitStack() as stack:
        everyone: list[Watcher | CellWatcher] = [*watchers, *cells]
        stack.enter_context(alone((w.path, w.layer) for w in everyone))
        stack.enter_context(one_kernel_each(model))
        if not (isinstance(model, layers.RNN) or is_cell(model)):  # else it is its layer's call
            stack.enter_context(replaced(model, "call", _as_run(model.call, recorder, cells)))
        for watcher in watchers:
            stack.enter_context(replaced(watcher.layer, "inner_loop", watcher))
        for cell in cells:
            stack.enter_context(cell.watching())
            for layer in _layers_over(model, cell.layer):
                stack.enter_context(replaced(layer, "call", cell.paused(layer.call)))
        yield
    _warn_of_unseen(model, everyone)


def _layers_over(model: keras.Layer, cell: Any) -> list[layers.RNN]:
    """Return the recurrent layers that loop over a cell themselves."""
    return [
        layer
        for _, layer in recurrent_layers(model)
        if any(inner is cell for inner in cells_of(layer))
    ]


def _as_run(
    call: Callable[..., Any], recorder: Recorder, cells: Iterable[CellWatcher]
) -> Callable[..., Any]:
    """Return a model's `call` that tells the recorder where it begins and ends."""

    @wraps(call)
    def run(*args: Any, **kwargs: Any) -> Any:
        for cell in cells:  # steps that the user took outside of the model's calls
            cell.hand_over()
        recorder.begin_run()
        try:
            result = call(*args, **kwargs)
            for cell in cells:
                cell.hand_over()
            return result
        finally:
            recorder.end_run()

    return run


def _warn_of_unseen(model: keras.Layer, watchers: Iterable[Watcher | CellWatcher]) -> None:
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
