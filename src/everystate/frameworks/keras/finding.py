"""Where the recurrent layers of a Keras model are: by the names that its summary shows."""

import inspect
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import keras
from keras import layers

from everystate.frameworks.keras.replacing import replaced
from everystate.recording.custom import distinct

Path = str


def recurrent_layers(model: keras.Layer) -> list[tuple[Path, layers.RNN]]:
    """Return the path and layer of each recurrent layer, each layer once.

    A path is made of the layers' names, ``encoder/lstm``; below `Bidirectional` it goes on with
    ``forward`` or ``backward``. A layer that is itself the model goes by its class.
    """
    root = type(model).__name__.lower() if is_one_layer(model) else ""
    found: dict[int, tuple[Path, layers.RNN]] = {}
    for path, layer in _walk(model, root):
        found.setdefault(id(layer), (path, layer))
    return list(found.values())


def looped_cells(model: keras.Layer) -> list[tuple[Path, Any]]:
    """Return the path and cell of each cell that is a part of the model outside of layers.

    The model may call it in a loop of its own. A cell that is itself the model goes by its class.
    """
    found: dict[int, tuple[Path, Any]] = {}
    for path, cell in _walk_cells(model, type(model).__name__.lower() if is_cell(model) else ""):
        found.setdefault(id(cell), (path, cell))
    return list(found.values())


def is_cell(layer: Any) -> bool:
    """Whether a layer takes one step at a time, as a recurrent layer's cell.

    Other layers may have a ``state_size`` too; only a cell is called with its states.
    """
    many = (layers.RNN, layers.Bidirectional, layers.StackedRNNCells)
    if isinstance(layer, many) or not hasattr(layer, "state_size"):
        return False
    parameters = inspect.signature(layer.call).parameters.values()
    given = [p for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD][1:2]
    return any(p.default is p.empty or p.name == "states" for p in given)


def leaves(path: Path, layer: layers.RNN) -> list[Path]:
    """Return the leaf paths of a recurrent layer: one for each of stacked cells."""
    if isinstance(layer.cell, layers.StackedRNNCells):
        return [f"{path}/layer_{k}" for k in range(len(layer.cell.cells))]
    return [path]


def is_one_layer(layer: object) -> bool:
    """Whether this is one recurrent layer, if in both directions, not a model with some."""
    return isinstance(layer, (layers.RNN, layers.Bidirectional))


def _walk(layer: keras.Layer, path: Path) -> Iterator[tuple[Path, layers.RNN]]:
    if isinstance(layer, layers.RNN):
        yield path, layer
    elif isinstance(layer, layers.Bidirectional):
        backward_first = getattr(layer.forward_layer, "go_backwards", False)
        names = ("backward", "forward") if backward_first else ("forward", "backward")
        for name, inner in zip(names, (layer.forward_layer, layer.backward_layer), strict=True):
            yield from _walk(inner, f"{path}/{name}")
    else:
        parts = _parts(layer)
        apart = distinct(inner.name for inner in parts)  # Keras lets two go by the same name
        for name, inner in zip(apart, parts, strict=True):
            yield from _walk(inner, f"{path}/{name}".lstrip("/"))


def _walk_cells(layer: keras.Layer, path: Path) -> Iterator[tuple[Path, Any]]:
    if is_cell(layer):
        yield path, layer
    elif not is_one_layer(layer):
        parts = _parts(layer)
        for name, inner in zip(distinct(inner.name for inner in parts), parts, strict=True):
            yield from _walk_cells(inner, f"{path}/{name}".lstrip("/"))


def _parts(layer: keras.Layer) -> list[Any]:
    """Return the layers directly inside another, those in its lists and dicts too."""
    return list(layer._flatten_layers(include_self=False, recursive=False))


@contextmanager
def one_kernel_each(model: keras.Layer) -> Iterator[None]:
    """Within the block, `Bidirectional` calls its two layers, as it does without a GPU.

    On a GPU it may run one kernel for both, past the layers' loops.
    """
    with ExitStack() as stack:
        for layer in (model, *model._flatten_layers()):
            for kind in ("lstm", "gru") if isinstance(layer, layers.Bidirectional) else ():
                name = f"_can_attempt_fused_{kind}"
                stack.enter_context(replaced(layer, name, lambda *_: False))
        yield
