"""Cells that a Keras model calls step by step: each call is a step, each sequence a leaf."""

import numpy as np
import pytest

from everystate.testing import importorskip

keras = importorskip("keras")

import everystate as es
import keras_reference as ref
import mutations
from everystate.errors import EverystateWarning

layers, ops = keras.layers, keras.ops
B, T, D, H = 3, 5, 4, 6


class Decoder(keras.Model):
    """Reads with a layer, then calls the layer's own cell on what it wrote itself."""

    def __init__(self, cell, steps=T, edit=lambda state: state):
        super().__init__()
        self.cell, self.steps, self.edit = cell, steps, edit
        self.encoder = layers.RNN(self.cell, return_state=True, name="encoder")
        self.head = layers.Dense(D, name="head")

    def call(self, x, training=False):
        y, *state = self.encoder(x)
        self.fed = []
        for _ in range(self.steps):
            self.fed.append(self.head(y))
            y, state = self.cell(self.fed[-1], states=self.edit(state), training=training)
        return self.head(y)


def randomised(model, x):
    model(x)
    for layer in (model.cell, model.head):
        ref.randomise(layer)
    return model


@pytest.mark.parametrize("kind", [layers.LSTMCell, layers.GRUCell, layers.SimpleRNNCell])
def test_each_call_of_a_cell_by_hand_is_a_step(kind):
    x = ref.random(B, T + 2, D, seed=1)
    model = randomised(Decoder(kind(H, name="cell")), x)
    trace = es.record(model, x)
    assert [leaf.path for leaf in trace.leaves] == ["/encoder", "/cell"]
    read = ref.layer(model.cell, x)
    ref.assert_leaf(trace["encoder"], read)
    first = {name: a[:, -1] for name, a in read.items() if name in ("h", "c")}
    fed = np.stack([ref.numpy(a) for a in model.fed], axis=1)
    ref.assert_leaf(trace["cell"], ref.layer(model.cell, fed, first))
    for fault, wrong in mutations.of_gates(ref.gates(model.cell)):
        with mutations.must_be_noticed(fault):
            ref.assert_leaf(trace["cell"], ref.layer(model.cell, fed, first, wrong=wrong))
    assert "edited_steps" not in trace["cell"].attrs


def test_a_state_that_is_edited_between_the_steps():
    x = ref.random(B, T, D, seed=2)
    edited = Decoder(layers.GRUCell(H, name="cell"), edit=lambda state: [0.5 * state[0]])
    model = randomised(edited, x)
    leaf = es.record(model, x, select=es.Select("cell"))["cell"]
    assert leaf.attrs["edited_steps"] == T - 1
    h = ref.layer(model.cell, x)["h"][:, -1]
    for t, fed in enumerate(model.fed):
        expected = ref.layer(model.cell, ref.numpy(fed)[:, None], {"h": 0.5 * h})
        h = expected["h"][:, 0]
        for name in "hrzn":
            np.testing.assert_allclose(leaf[name][:, t], expected[name][:, 0], atol=1e-5)


def test_sequences_that_take_turns_are_told_apart():
    class Pair(keras.Model):
        def __init__(self):
            super().__init__()
            self.cell = layers.SimpleRNNCell(H, name="cell")

        def call(self, one, other):
            a = b = [ops.zeros((B, H))]
            for t in range(T):
                _, a = self.cell(one[:, t], a)
                _, b = self.cell(other[:, t], b)
            return a[0] + b[0]

    one, other = ref.random(B, T, D, seed=3), ref.random(B, T, D, seed=4)
    model = Pair()
    model(one, other)
    trace = es.record(model, one, other)
    for k, x in enumerate((one, other)):
        ref.assert_leaf(trace[f"cell/call_{k}"], ref.layer(model.cell, x))


def test_calls_outside_of_the_model_are_joined_along_time():
    cell = layers.LSTMCell(H)
    x = ref.random(B, T, D, seed=5)
    state = [ops.zeros((B, H))] * 2
    cell(x[:, 0], state)
    with es.recording(cell, along="time") as recorder:
        for t in range(T):
            _, state = cell(x[:, t], state)
            if t == 1:
                assert recorder.trace["lstmcell"].sizes["time"] == 2
    ref.assert_leaf(recorder.trace["lstmcell"], ref.layer(cell, x))


def test_with_dropout_in_training_states_are_observed():
    x = ref.random(B, T, D, seed=6)
    model = randomised(Decoder(layers.LSTMCell(H, dropout=0.5, name="cell")), x)
    with es.recording(model, select=es.Select("cell", ("h", "c"))) as recorder:
        model(x, training=True)
    leaf = recorder.trace["cell"]
    assert leaf.c.shape == (B, T, H)
    assert leaf.c.attrs["origin"] == leaf.h.attrs["origin"] == "observed"


def test_a_cell_of_ones_own_shows_its_states():
    class Leaky(layers.Layer):
        everystate_states = ("level",)
        state_size = H

        def call(self, inputs, states):
            level = 0.9 * states[0] + ops.sum(inputs, axis=-1, keepdims=True)
            return level[:, :2], [level]

    x = ref.random(B, T, D, seed=7)
    model = randomised(Decoder(Leaky(name="leaky")), x)
    trace = es.record(model, x)
    leaf = trace["leaky"]
    assert set(leaf.data_vars) == {"level", "output", "initial_level"}
    level = trace["encoder"]["level"].values[:, -1]
    for t, fed in enumerate(model.fed):
        level = 0.9 * level + ref.numpy(fed).sum(axis=-1, keepdims=True)
        np.testing.assert_allclose(leaf["level"][:, t], level, rtol=1e-5, atol=1e-5)


class Sized(layers.Layer):
    """A layer that has a state size, and is no cell: it runs over whole sequences."""

    def __init__(self, **options):
        super().__init__(**options)
        self.state_size, self.dense = H, layers.Dense(D)

    def call(self, x, carried=None):
        return self.dense(x)


class Weighing(Sized):
    """One that takes two inputs."""

    def call(self, x, weights):
        return self.dense(x) * weights


def test_a_layer_that_is_no_cell_is_left_alone(recwarn):
    x = ref.random(B, T, D, seed=4)
    given = keras.Input((T, D))
    y = Weighing(name="weighing")(Sized(name="sized")(given), given)
    model = keras.Model(given, layers.GRU(H, return_sequences=True, name="gru")(y))
    trace = es.record(model, x)
    assert [leaf.path for leaf in trace.leaves] == ["/gru"]
    np.testing.assert_array_equal(trace["gru"].h, ref.numpy(model(x)))
    assert not [w for w in recwarn if w.category is EverystateWarning]


def test_a_cell_that_was_not_called_is_told_unless_a_layer_has_it():
    class Unused(Decoder):
        def __init__(self):
            super().__init__(layers.GRUCell(H, name="cell"), steps=0)
            self.other = layers.GRUCell(H, name="other")

    x = ref.random(B, T, D, seed=8)
    model = Unused()
    model(x)
    with pytest.warns(EverystateWarning, match="the trace lacks them: other") as told:
        es.record(model, x)
    assert sum(w.category is EverystateWarning for w in told) == 1
