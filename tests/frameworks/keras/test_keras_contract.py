"""The contract of a framework module, held by Keras'."""

import numpy as np

from everystate.testing import FrameworkContract, importorskip

keras = importorskip("keras")

import keras_reference as ref
from everystate.frameworks import keras as framework

T, B, D, H = 7, 3, 4, 5


class TestKeras(FrameworkContract):
    framework = framework

    def model(self):
        """Every family; both ways; a mask with a gap; stacked cells."""
        layers = keras.layers
        x = keras.Input((None, D), name="x")
        y = layers.Masking(name="masking")(x)
        lstm = layers.LSTM(H, return_sequences=True, name="lstm")
        y = layers.Bidirectional(lstm, name="both")(y)
        y = layers.GRU(H + 1, return_sequences=True, name="gru")(y)
        cells = [layers.LSTMCell(H), layers.GRUCell(H + 2, reset_after=False)]
        y = layers.RNN(cells, return_sequences=True, name="stack")(y)
        y = layers.SimpleRNN(H, name="rnn")(y)
        model = ref.randomise(keras.Model(x, layers.Dense(2, name="head")(y)), seed=3)
        model(*self.inputs())  # the first call gives cells attributes of Keras' own
        return model

    def mask(self):
        mask = np.ones((B, T), bool)
        mask[0, [0, 3]] = mask[1, 5:] = False
        return mask

    def inputs(self):
        x = ref.random(B, T, D, seed=2)
        x[~self.mask()] = 0.0
        return (x,)

    def expected(self):
        model, mask, x = self.model(), self.mask(), self.inputs()[0]
        both, gru, stack, rnn = (model.get_layer(n) for n in ("both", "gru", "stack", "rnn"))
        found = {
            "both/forward": ref.layer(both.forward_layer.cell, x, mask=mask),
            "both/backward": ref.layer(both.backward_layer.cell, x, mask=mask, backwards=True),
        }
        y = np.concatenate([np.nan_to_num(a["h"]) for a in found.values()], -1)
        found["gru"] = ref.layer(gru.cell, y, mask=mask)
        for k, cell in enumerate(stack.cell.cells):
            y = np.nan_to_num(found[f"stack/layer_{k - 1}" if k else "gru"]["h"])
            found[f"stack/layer_{k}"] = ref.layer(cell, y, mask=mask)
        y = np.nan_to_num(found["stack/layer_1"]["h"])
        found["rnn"] = ref.layer(rnn.cell, y, mask=mask)
        return found

    def results(self, model):
        return [ref.numpy(model(*self.inputs()))]

    def state(self, model):
        own = [(a.name, sorted(vars(a)), a.get_config()) for a in model.layers]
        inner = [(sorted(vars(a)), sorted(vars(a.cell))) for a in ref.recurrent(model)]
        return own, inner
