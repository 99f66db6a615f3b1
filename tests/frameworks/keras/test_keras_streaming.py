"""Keras models in chunks of time: the state of each layer is carried on."""

from typing import Any

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


@pytest.mark.parametrize("built", [True, False])
def test_what_is_tried_leaves_no_state_behind(x, tmp_path, built):
    """A stateful layer is run whole, from the state that it had before anybody looked."""

    def layer() -> Any:
        keras.utils.set_random_seed(1)
        made = keras.layers.LSTM(4, stateful=True, name="lstm")
        if built:
            made(x[:, ::-1])
        return made

    one, again = layer(), layer()
    first = es.record(one, x)["lstm"]
    got = es.record(again, x, store=tmp_path / "run.zarr")["lstm"]
    np.testing.assert_allclose(got.h, first.h, rtol=0, atol=1e-6)
    np.testing.assert_allclose(got.initial_c, first.initial_c, rtol=0, atol=1e-6)
    assert bool(got.initial_c.any()) == built
    for a, b in zip(again.states, one.states, strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-6)


class Stepper(keras.Model):
    """Calls a cell by hand, whose state begins with zeros whenever the model is called."""

    def __init__(self) -> None:
        super().__init__()
        self.cell = keras.layers.LSTMCell(4, name="lstm_cell")

    def call(self, x):
        state = [keras.ops.zeros((B, 4))] * 2
        for t in range(x.shape[1]):
            output, state = self.cell(x[:, t], state)
        return output


def test_what_cannot_be_cut(x, tmp_path):
    layers = keras.layers
    for model, said in [
        (sequential(layers.Bidirectional(layers.LSTM(4))), "backward reads backwards"),
        (layers.LSTM(4, stateful=True), "is stateful"),
        (Stepper(), "h of /lstm_cell differs"),
        (sequential(layers.Conv1D(3, 2, padding="causal"), layers.LSTM(4)), "what it is given"),
    ]:
        if not model.built and not isinstance(model, Stepper):
            model.build(x.shape)
        with pytest.raises(UncuttableError, match=said):
            es.record(model, x, store=tmp_path / "run.zarr", memory=20_000)
