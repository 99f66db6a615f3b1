"""Cells whose states do not follow from outputs: stacked, of one's own, convolved, dropped."""

import numpy as np
import pytest

import mutations
import oracles
from everystate.errors import ReplayMismatchError, UnsupportedModelError
from everystate.testing import importorskip

keras = importorskip("keras")

import everystate as es
import keras_reference as ref

layers = keras.layers
B, T, D, H = 3, 5, 4, 6


class Leaky(layers.Layer):
    """A cell of one's own: two states of different sizes; its output is neither."""

    everystate_states = ("fast", "slow")

    def __init__(self, **options):
        super().__init__(**options)
        self.state_size, self.output_size = [D, 1], D

    def call(self, x, states):
        fast, slow = states
        fast = 0.5 * fast + x
        slow = 0.9 * slow + keras.ops.mean(fast, axis=-1, keepdims=True)
        return fast * 3.0, [fast, slow]


class Noisy(layers.Layer):
    """A cell that draws random numbers, from a generator of Keras' or from nowhere known."""

    def __init__(self, known):
        super().__init__()
        self.state_size, self.known = D, known
        self.seed_generator = keras.random.SeedGenerator(3)
        self.rng = np.random.default_rng(0)

    def call(self, x, states):
        if self.known:
            noise = keras.random.normal((B, D), seed=self.seed_generator)
        else:
            noise = float(self.rng.normal())
        h = 0.5 * states[0] + x + noise
        return h, [h]


def call(layer, x, **given):
    """Return the leaf of one call, and check that the call came out as without recording."""
    before = [ref.numpy(a) for a in keras.tree.flatten(layer(x, **given))]
    with es.recording(layer) as recorder:
        within = layer(x, **given)
    for a, b in zip(before, keras.tree.flatten(within), strict=True):
        np.testing.assert_array_equal(a, ref.numpy(b))
    return recorder.trace


@pytest.mark.parametrize("backwards", [False, True])
def test_a_cell_of_ones_own_by_the_names_it_gives(backwards):
    layer = layers.RNN(Leaky(), return_state=True, go_backwards=backwards, name="leaky")
    x = ref.random(B, T, D, seed=1)
    mask = np.array([[1, 0, 1, 1, 1], [0, 1, 1, 1, 0], [1, 1, 1, 1, 1]], bool)
    leaf = call(layer, x, mask=mask)["rnn"]
    assert set(leaf.data_vars) == {"fast", "slow", "output", "initial_fast", "initial_slow"}
    assert {v.attrs["origin"] for v in leaf.data_vars.values()} == {"observed"}
    fast, slow = np.zeros((B, D)), np.zeros((B, 1))
    for t in range(T)[:: -1 if backwards else 1]:
        on = mask[:, t : t + 1]
        fast = np.where(on, 0.5 * fast + x[:, t], fast)
        slow = np.where(on, 0.9 * slow + fast.mean(-1, keepdims=True), slow)
        past = t >= leaf.length.values[:, None]
        for name, state in (("fast", fast), ("slow", slow)):
            np.testing.assert_allclose(leaf[name][:, t], np.where(past, np.nan, state), rtol=1e-5)


def test_stacked_cells_are_leaves_of_their_own():
    cells = [layers.LSTMCell(H), layers.GRUCell(H + 1), layers.SimpleRNNCell(H)]
    layer = layers.RNN(cells, return_sequences=True)
    layer.build((B, T, D))
    ref.randomise(layer)
    x = y = ref.random(B, T, D, seed=1)
    start = [ref.random(B, n, seed=k) for k, n in enumerate((H, H, H + 1, H))]
    trace = call(layer, x, initial_state=[start[:2], start[2:3], start[3:]])
    firsts = {"h": start[0], "c": start[1]}, {"h": start[2]}, {"h": start[3]}
    for k, (cell, first) in enumerate(zip(cells, firsts, strict=True)):
        expected = ref.layer(cell, y, first)
        ref.assert_leaf(trace[f"rnn/layer_{k}"], expected)
        for fault, wrong in mutations.of_gates(ref.gates(cell)):
            with mutations.must_be_noticed(fault):
                ref.assert_leaf(trace[f"rnn/layer_{k}"], ref.layer(cell, y, first, wrong=wrong))
        y = expected["h"]


@pytest.mark.parametrize("cell", [layers.LSTMCell, layers.GRUCell])
def test_a_stack_of_one_cell(cell):
    layer = layers.RNN([cell(H)])
    layer.build((B, T, D))
    ref.randomise(layer)
    x = ref.random(B, T, D, seed=1)
    (leaf,) = es.record(layer, x).leaves
    ref.assert_leaf(leaf, ref.layer(layer.cell.cells[0], x))
    states = es.unroll(layer, x).states
    np.testing.assert_allclose(ref.numpy(states.h)[:, -1], leaf.h[:, -1], rtol=1e-5)


@pytest.mark.parametrize("kind", ["LSTM", "GRU", "SimpleRNN"])
def test_recurrent_dropout_in_training(kind, monkeypatch):
    layer = getattr(layers, kind)(H, dropout=0.4, recurrent_dropout=0.3)
    layer.build((B, T, D))
    ref.randomise(layer)
    x = ref.random(B, T, D, seed=1)
    count = {"LSTM": 4, "GRU": 3, "SimpleRNN": 1}[kind]
    draw = np.random.default_rng(5)
    masks = {n: [2.0 * (draw.random((B, n)) > 0.5) for _ in range(count)] for n in (D, H)}

    def drawn(step_input, rate):
        found = [keras.ops.convert_to_tensor(m, "float32") for m in masks[step_input.shape[-1]]]
        return found if count > 1 else found[0]

    monkeypatch.setattr(layer.cell, "_create_dropout_mask", drawn, raising=False)
    leaf = call(layer, x, training=True)[kind.lower()]
    names = {"LSTM": "ifgo", "GRU": "zrn", "SimpleRNN": "h"}[kind]
    gates, state = ref.gates(layer.cell), {n: np.zeros((B, H)) for n in ref.STATES[kind]}
    for t in range(T):
        after = []
        for row in range(B):
            own = {
                n: oracles.Gate(
                    gates[n].W * masks[D][k][row],
                    gates[n].R * masks[H][k][row],
                    gates[n].b,
                    gates[n].b_R,
                )
                for k, n in enumerate(names)
            }
            step = {"LSTM": oracles.lstm_step, "GRU": oracles.gru_step}.get(
                kind, oracles.simple_rnn_step
            )
            after.append(step(x[row, t], {n: a[row] for n, a in state.items()}, gates=own))
        now = {n: np.stack([a[n] for a in after]) for n in after[0]}
        oracles.assert_close({n: leaf[n].values[:, t] for n in now}, now, 2e-6)
        state = {n: now[n] for n in state}


def test_dropout_of_the_inputs_is_replayed():
    layer = layers.LSTM(H, dropout=0.5, seed=3)
    layer.build((B, T, D))
    ref.randomise(layer)
    x = ref.random(B, T, D, seed=1)
    with es.recording(layer, select=es.Select(variables=("states", "gates", "inputs"))) as rec:
        layer(x, training=True)
    leaf = rec.trace["lstm"]
    assert leaf.c.attrs["origin"] == "replayed" or keras.backend.backend() == "torch"
    given = leaf.inputs.values
    assert set(np.unique((given / x).round(4))) == {0.0, 2.0}
    ref.assert_leaf(leaf.to_dataset().drop_vars("inputs"), ref.layer(layer.cell, given))


@pytest.mark.parametrize("rank", [1, 2])
def test_convolutions(rank):
    kind = {1: layers.ConvLSTM1D, 2: layers.ConvLSTM2D}[rank]
    layer = kind(2, 3, padding="same", return_sequences=True, bias_initializer="ones")
    shape = (B, T, *(5, 4)[:rank], 3)
    x = ref.random(*shape, seed=1)
    layer.build(shape)
    ref.randomise(layer, scale=0.3)
    leaf = call(layer, x)[kind.__name__.lower()]
    assert leaf.attrs["cell"] == "ConvLSTM"
    assert leaf.attrs["unit_shape"] == {1: "5, 2", 2: "5, 4, 2"}[rank]
    state = keras.ops.zeros((B, *shape[2:-1], 2))
    h, c = state, state
    for t in range(T):  # Keras' own cell, stepped by hand
        h, (h, c) = layer.cell(x[:, t], [h, c])
        for name, a in (("h", h), ("c", c)):
            np.testing.assert_allclose(leaf[name][:, t], ref.numpy(a).reshape(B, -1), atol=2e-6)
        o = ref.numpy(h) / np.tanh(ref.numpy(c))
        np.testing.assert_allclose(leaf.o[:, t], o.reshape(B, -1), atol=1e-4)
    kept = leaf.f * leaf.c.shift(time=1, fill_value=0.0) + leaf.i * leaf.g
    np.testing.assert_allclose(leaf.c, kept, atol=2e-6)
    conv = _convolved(layer.cell, x[:, 0])
    np.testing.assert_allclose(leaf.i[:, 0], oracles.sigmoid(conv["i"]).reshape(B, -1), atol=2e-6)
    np.testing.assert_allclose(leaf.g[:, 0], np.tanh(conv["g"]).reshape(B, -1), atol=2e-6)


def _convolved(cell, x):
    """Convolve the first step's input, "same", in float64."""
    kernel, bias = ref.numpy(cell.kernel), ref.numpy(cell.bias)
    spatial = x.shape[1:-1]
    padded = np.pad(x.astype(float), [(0, 0), *[(1, 1)] * len(spatial), (0, 0)])
    total = np.zeros((*x.shape[:-1], kernel.shape[-1])) + bias
    for place in np.ndindex(*kernel.shape[: len(spatial)]):
        window = tuple(slice(k, k + n) for k, n in zip(place, spatial, strict=True))
        total += padded[(slice(None), *window)] @ kernel[place]
    return dict(zip("ifgo", np.split(total, 4, axis=-1), strict=True))


def test_random_numbers_of_keras_are_drawn_again_and_others_are_noticed():
    layer = layers.RNN(Noisy(known=True), return_sequences=True)
    x = ref.random(B, T, D, seed=1)
    state = layer.cell.seed_generator.state
    start = ref.numpy(state)
    before = ref.numpy(layer(x))
    state.assign(start)
    with es.recording(layer) as recorder:
        within = layer(x)
    np.testing.assert_array_equal(before, ref.numpy(within))
    after = ref.numpy(state)
    np.testing.assert_allclose(recorder.trace["rnn"].state_0, before, atol=1e-6)
    state.assign(start)
    layer(x)
    np.testing.assert_array_equal(after, ref.numpy(state))
    with pytest.raises(ReplayMismatchError, match="random numbers of its own"):
        es.record(layers.RNN(Noisy(known=False)), x)


def test_a_cell_names_all_its_states():
    class Short(Leaky):
        everystate_states = ("fast",)

    with pytest.raises(UnsupportedModelError, match=r"Short: .*names 1 states \(fast\).*it has 2"):
        es.record(layers.RNN(Short()), ref.random(B, T, D, seed=1))


def test_no_state_is_hidden_by_the_output():
    class Hidden(Leaky):
        everystate_states = ("output", "slow")

    with pytest.raises(UnsupportedModelError, match=r"Hidden: .*calls a state 'output'"):
        es.record(layers.RNN(Hidden()), ref.random(B, T, D, seed=1))
