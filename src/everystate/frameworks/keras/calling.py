"""Whether a model is Keras', which recurrent layers it has, and calling it once."""

import os
from collections.abc import Sequence
from itertools import zip_longest
from typing import Any, Final

import keras
import numpy as np
from keras.src.models.functional import Functional

from everystate.errors import InputError, InputTypeError
from everystate.frameworks.keras.backend import without_gradients
from everystate.frameworks.keras.finding import leaves, looped_cells, recurrent_layers
from everystate.frameworks.keras.loading import SUFFIXES, opened
from everystate.recording.discovery import no_layer
from everystate.recording.observation import check_numbers

WAYS_OUT: Final = {
    "RaggedTensor": "Pad it, x.to_tensor(), and put a keras.layers.Masking() before the layer, or "
    "call it with mask=.",
    **dict.fromkeys(
        ("BatchDataset", "PrefetchDataset", "MapDataset", "TensorSliceDataset"),
        "Record a batch of it, or in a block all: with es.recording(model) as rec, call model(x) "
        "for each x of it.",
    ),
}
"""What to give in place of some kinds of input."""


def matches(model: object) -> bool:
    """Whether `model` is a Keras layer or model, or the path of one's file."""
    if isinstance(model, str | os.PathLike):
        return str(os.fspath(model)).lower().endswith(SUFFIXES)
    return isinstance(model, keras.Layer)


def layers(model: Any) -> list[str]:
    """Return the leaf path of each recurrent layer and direction.

    Raises
    ------
    UnsupportedModelError
        If there is none, or the model's file cannot be read.
    """
    model = opened(model)
    found = [name for path, layer in recurrent_layers(model) for name in leaves(path, layer)]
    found += [path for path, _ in looped_cells(model)]
    if not found:
        raise no_layer(
            type(model).__name__,
            (type(layer).__name__ for layer in model._flatten_layers()),
            "Known is every keras.layers.RNN: LSTM, GRU, SimpleRNN, ConvLSTM, Bidirectional of "
            "them, RNN with a cell of your own, and cells that the model calls step by step.",
        )
    return found


def call(model: Any, inputs: Sequence[Any]) -> object:
    """Call the model once, without gradients; several inputs of a functional model as a list.

    Raises
    ------
    InputError
        If an input's shape does not fit the model.
    InputTypeError
        If an input holds no numbers.
    """
    model = opened(model)
    functional = isinstance(model, (Functional, keras.Sequential))
    for x, expected in zip_longest(
        inputs, getattr(model, "inputs", None) or [] if functional else []
    ):
        _check(x, expected, every_axis=not isinstance(model, keras.Sequential))
    listed = len(inputs) > 1 and isinstance(model, Functional)
    with without_gradients():
        return model(list(inputs)) if listed else model(*inputs)


def _check(x: Any, expected: Any, *, every_axis: bool) -> None:
    """Check an input's dtype, and its rank and sizes where the model says what it expects."""
    parts = keras.tree.flatten(x) if isinstance(x, list | tuple) else []
    if any(isinstance(part, int | float) for part in parts):
        raise InputTypeError(
            "the input is a list of numbers, expected an array. Try np.asarray(x, 'float32')."
        )
    if isinstance(x, np.ndarray):
        check_numbers(x)
    if (way_out := WAYS_OUT.get(kind := type(x).__name__.lstrip("_"))) is not None:
        raise InputTypeError(f"the input is a {kind}, which Keras 3 layers do not read. {way_out}")
    got, wanted = getattr(x, "shape", None), getattr(expected, "shape", None)
    if got is not None and 0 in got:
        raise InputError(f"the input of shape {tuple(got)} is empty; there is nothing to record.")
    if got is None or wanted is None:
        return
    # A Sequential keeps the shape that it was first called with, and reads any other all the same.
    axes = range(0 if every_axis else len(wanted) - 1, len(wanted))
    if len(got) != len(wanted):
        hint = (
            "Keras reads (batch, time, features): a single sequence needs a batch of one, x[None], "
            "or --batch-first on the command line."
        )
    elif differ := [k for k in axes if wanted[k] not in (None, got[k])]:
        hint = "It has " + ", ".join(
            f"{got[k]} {_axis(k, len(wanted))} where the model takes {wanted[k]}" for k in differ
        )
        hint += ". Keras reads (batch, time, features)."
    else:
        return
    raise InputError(f"got an input of shape {tuple(got)}, expected {tuple(wanted)}. {hint}")


def _axis(k: int, rank: int) -> str:
    return {0: "rows", rank - 1: "features"}.get(k, "steps" if k == 1 else f"along axis {k}")
