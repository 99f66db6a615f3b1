import numpy as np
import pytest

import gate_orders
from everystate.testing import importorskip

keras = importorskip("keras")
if keras.__version__.startswith("2."):
    pytest.skip(
        "Keras 2 comes with TensorFlow 2.15; the table is of Keras 3", allow_module_level=True
    )


def run(layer, given):
    """Give a layer of Keras weights as they are, and run it."""
    layer.build((gate_orders.B, gate_orders.T, gate_orders.D))
    bias = given.b if given.b_R is None else np.stack([given.b, given.b_R])
    layer.set_weights([given.W, given.R, bias])
    x = given.x.swapaxes(0, 1).astype("float32")
    state = [keras.ops.convert_to_tensor(s.astype("float32")) for s in given.initial]
    h, *final = layer(keras.ops.convert_to_tensor(x), initial_state=state)
    numpy = keras.ops.convert_to_numpy
    return numpy(h).swapaxes(0, 1), tuple(numpy(s) for s in final)


OPTIONS = {"return_sequences": True, "return_state": True}


@pytest.mark.parametrize(
    ("name", "kind", "options"),
    [
        ("LSTM", "LSTM", {}),
        ("GRU(reset_after=True)", "GRU", {"reset_after": True}),
        ("GRU(reset_after=False)", "GRU", {"reset_after": False}),
        ("SimpleRNN", "SimpleRNN", {}),
    ],
)
def test_layer(name, kind, options):
    layer = getattr(keras.layers, kind)(gate_orders.H, **OPTIONS, **options)
    gate_orders.check("Keras 3", name, lambda given: run(layer, given))


def test_hard_sigmoid_is_that_of_keras_3():
    layer = keras.layers.LSTM(gate_orders.H, recurrent_activation="hard_sigmoid", **OPTIONS)
    gate_orders.check(
        "Keras 3", "LSTM", lambda given: run(layer, given), recurrent_activation="hard_sigmoid"
    )
