"""Keras models in chunks of time: the state of each layer is carried on."""

import numpy as np
import pytest

from everystate.testing import importorskip

keras = importorskip("keras")

import everystate as es
import streamed
from everystate.errors import UncuttableError

B, T, D = 2, 150, 3


@pytest.fixture
def x() -> np.ndarray:
    return np.random.default_rng(0).normal(size=(B, T, D)).astype("float32")


def sequential(*layers) -> "keras.Sequential":
    keras.utils.set_random_seed(1)
    model = keras.Sequential([keras.Input((None, D)), *layers])
    rng = np.random.default_rng(2)
    model.set_weights([rng.normal(0, 0.5, w.shape) for w in model.get_weights()])
    return model


def test_cutting_changes_no_value(x, tmp_path):
    layers = keras.layers
    model = sequential(
        layers.LSTM(5, return_sequences=True),
        layers.Dense(4, activation="relu"),
        layers.GRU(3, return_sequences=True),
        layers.SimpleRNN(6),
    )
    streamed.check(model, x, tmp_path)


def test_a_layer_alone(x, tmp_path):
    layer = keras.layers.GRU(4, reset_after=False)
    layer.build(x.shape)
    streamed.check(layer, x, tmp_path)


def test_what_cannot_be_cut(x, tmp_path):
    layers = keras.layers
    for model, said in [
        (sequential(layers.Bidirectional(layers.LSTM(4))), "backward reads backwards"),
        (layers.LSTM(4, stateful=True), "is stateful"),
        (sequential(layers.Conv1D(3, 2, padding="causal"), layers.LSTM(4)), "what it is given"),
    ]:
        if not model.built:
            model.build(x.shape)
        with pytest.raises(UncuttableError, match=said):
            es.record(model, x, store=tmp_path / "run.zarr", memory=20_000)
