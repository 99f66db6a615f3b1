"""The callback of training: the same probe, epoch after epoch."""

import numpy as np
import pytest

from everystate.errors import SelectionError, TraceWriteError
from everystate.testing import importorskip

keras = importorskip("keras")

import everystate as es
import keras_reference as ref
from everystate.frameworks.keras import RecordStates

T, D, H = 5, 3, 4


class Weights(keras.callbacks.Callback):
    """Note an LSTM's weights after each epoch."""

    def __init__(self, layer):
        super().__init__()
        self.layer, self.found = layer, []

    def on_epoch_end(self, epoch, logs=None):
        self.found.append([ref.numpy(w) for w in self.layer.weights])


def test_each_epoch_is_recorded_with_its_own_weights(tmp_path):
    lstm = keras.layers.LSTM(H, name="lstm", dropout=0.5)
    model = keras.Sequential([keras.Input((T, D)), lstm, keras.layers.Dense(1)])
    ref.randomise(model)
    model.compile(keras.optimizers.SGD(0.5), "mse")
    x, y = ref.random(8, T, D, seed=1), ref.random(8, 1, seed=2)
    weights = Weights(lstm)
    probe = RecordStates(x[:2], tmp_path / "run.zarr", every=2)
    model.fit(x, y, epochs=4, batch_size=4, verbose=0, callbacks=[weights, probe])
    leaf = es.open_trace(tmp_path / "run.zarr")["lstm"]
    assert leaf.c.dims == ("epoch", "batch", "time", "unit")
    assert leaf.epoch.values.tolist() == [0, 2]
    for epoch in (0, 2):
        for variable, value in zip(lstm.weights, weights.found[epoch], strict=True):
            variable.assign(value)
        expected = ref.layer(lstm.cell, x[:2])
        ref.assert_leaf(leaf.sel(epoch=epoch), expected)
    assert np.abs(leaf.c.diff("epoch")).max() > 1e-3  # it trained


def test_every_is_a_number_of_epochs(tmp_path):
    for wrong in (0, -1, 1.5, True, "2"):
        with pytest.raises(SelectionError, match="every="):
            RecordStates(np.zeros((1, 2, 3)), tmp_path, every=wrong)


@pytest.mark.parametrize(
    "options", [{"dropout": 0.5, "recurrent_dropout": 0.3}, {"stateful": True}]
)
def test_the_training_is_that_without_it(tmp_path, options):
    x, y = ref.random(8, T, D, seed=1), ref.random(8, 1, seed=2)

    def trained(*callbacks):
        keras.utils.set_random_seed(3)
        stack = [keras.layers.LSTM(H, **options), keras.layers.Dropout(0.5), keras.layers.Dense(1)]
        model = keras.Sequential([keras.Input(batch_shape=(4, T, D)), *stack])
        model.compile(keras.optimizers.SGD(0.5), "mse")
        model.fit(x, y, epochs=3, batch_size=4, shuffle=False, verbose=0, callbacks=[*callbacks])
        return [ref.numpy(w) for w in model.weights + model.non_trainable_variables]

    probe = RecordStates(x[4:], tmp_path / "run.zarr")
    for with_it, without in zip(trained(probe), trained(), strict=True):
        np.testing.assert_array_equal(with_it, without)


def test_an_older_store_is_kept_unless_it_may_be_replaced(tmp_path):
    x = np.zeros((1, T, D), "f4")
    lstm = keras.layers.LSTM(H)
    lstm.build(x.shape)
    es.save_trace(es.record(lstm, x), tmp_path / "run.zarr")
    with pytest.raises(TraceWriteError, match=r"run\.zarr: the path is taken.*overwrite=True"):
        RecordStates(x, tmp_path / "run.zarr")
    RecordStates(x, tmp_path / "run.zarr", overwrite=True)
