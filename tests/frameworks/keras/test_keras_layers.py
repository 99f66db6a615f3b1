"""Every option of Keras' recurrent layers, against the equations in float64."""

import numpy as np
import pytest

import mutations
import oracles
from everystate.testing import importorskip

keras = importorskip("keras")

import everystate as es
import keras_reference as ref

B, T, D, H = 3, 6, 4, 5
KINDS = {
    "lstm": lambda **o: keras.layers.LSTM(H, **o),
    "gru": lambda **o: keras.layers.GRU(H, **o),
    "gru before": lambda **o: keras.layers.GRU(H, reset_after=False, **o),
    "rnn": lambda **o: keras.layers.SimpleRNN(H, **o),
}
MASKS = {
    "none": None,
    "right": np.array([[1, 1, 1, 1, 1, 1], [1, 1, 1, 0, 0, 0], [1, 0, 0, 0, 0, 0]], bool),
    "left": np.array([[0, 0, 1, 1, 1, 1], [1, 1, 1, 1, 1, 1], [0, 1, 1, 1, 1, 1]], bool),
    "gaps": np.array([[1, 0, 1, 1, 0, 1], [0, 1, 0, 1, 0, 0], [0, 0, 0, 0, 0, 0]], bool),
}


def built(kind, seed=1, scale=0.5, **options):
    layer = KINDS[kind](**options)
    layer.build((B, T, D))
    return ref.randomise(layer, seed, scale)


def start(layer):
    names = ref.STATES[ref.family(layer.cell)]
    return {n: ref.random(B, H, seed=7 + k) for k, n in enumerate(names)}


def recorded(layer, x, **given):
    with es.recording(layer) as recorder:
        result = layer(x, **given)
    return recorder.trace[type(layer).__name__.lower()], result


@pytest.mark.parametrize("backwards", [False, True])
@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize("kind", KINDS)
def test_states_and_gates_are_the_oracles(kind, mask, backwards):
    layer = built(kind, go_backwards=backwards)
    x, first, valid = ref.random(B, T, D, seed=2), start(layer), MASKS[mask]
    leaf, _ = recorded(layer, x, initial_state=list(first.values()), mask=valid)
    expected = ref.layer(layer.cell, x, first, mask=valid, backwards=backwards)
    ref.assert_leaf(leaf, expected)
    if kind != "rnn":  # of which nothing is hidden
        assert leaf.attrs["max_error_h"] < 1e-6
    assert leaf.h.attrs["origin"] == "observed"


@pytest.mark.parametrize("kind", KINDS)
def test_each_fault_is_noticed(kind):
    layer = built(kind)
    x, first = ref.random(B, T, D, seed=2), start(layer)
    leaf, _ = recorded(layer, x, initial_state=list(first.values()), mask=MASKS["gaps"])
    for fault, wrong in mutations.of_gates(ref.gates(layer.cell)):
        with mutations.must_be_noticed(fault):
            ref.assert_leaf(leaf, ref.layer(layer.cell, x, first, mask=MASKS["gaps"], wrong=wrong))
    other = {n: a[::-1] for n, a in first.items()}
    with mutations.must_be_noticed("another initial state"):
        ref.assert_leaf(leaf, ref.layer(layer.cell, x, other, mask=MASKS["gaps"]))
    with mutations.must_be_noticed("another mask"):
        ref.assert_leaf(leaf, ref.layer(layer.cell, x, first, mask=MASKS["left"]))


@pytest.mark.parametrize(
    "options",
    [
        {"return_sequences": True},
        {"return_state": True},
        {"return_sequences": True, "return_state": True},
        {"unroll": True},
        {"use_bias": False},
        {"zero_output_for_mask": True, "return_sequences": True},
        {"dtype": "float64"},
    ],
    ids=str,
)
@pytest.mark.parametrize("kind", KINDS)
def test_options_change_no_state_and_no_bit_of_the_result(kind, options):
    layer = built(kind, **options)
    x, valid = ref.random(B, T, D, seed=2), MASKS["gaps"]
    before = layer(x, mask=valid)
    leaf, within = recorded(layer, x, mask=valid)
    ref.assert_leaf(leaf, ref.layer(layer.cell, x, mask=valid))
    for a, b, c in zip(*map(_all, (before, within, layer(x, mask=valid))), strict=True):
        np.testing.assert_array_equal(a, b)
        np.testing.assert_array_equal(a, c)


def _all(result):
    return [ref.numpy(a) for a in keras.tree.flatten(result)]


@pytest.mark.parametrize("activation", ["hard_sigmoid", "relu", "linear", "tanh"])
@pytest.mark.parametrize("kind", ["lstm", "gru"])
def test_activations_that_are_known_are_replayed(kind, activation):
    layer = built(kind, recurrent_activation=activation, activation="relu", scale=0.2)
    x = ref.random(B, T, D, seed=2)
    leaf, _ = recorded(layer, x)
    ref.assert_leaf(leaf, ref.layer(layer.cell, x))
    assert leaf.attrs["recurrent_activation"] == activation


def test_an_activation_of_ones_own_is_observed():
    layer = built("lstm", activation=lambda x: keras.ops.sin(x))
    x = ref.random(B, T, D, seed=2)
    leaf, _ = recorded(layer, x)
    assert leaf.g.attrs["origin"] == "observed"
    gates = ref.gates(layer.cell)
    h, c = np.zeros((B, H)), np.zeros((B, H))
    for t in range(T):
        a = {n: x[:, t] @ g.W.T + h @ g.R.T + g.b for n, g in gates.items()}
        i, f, o = (oracles.sigmoid(a[n]) for n in "ifo")
        c = f * c + i * np.sin(a["g"])
        h = o * np.sin(c)
        now = {"i": i, "f": f, "g": np.sin(a["g"]), "o": o, "c": c, "h": h}
        oracles.assert_close({n: leaf[n].values[:, t] for n in now}, now, 2e-6)


def test_stateful_layers_go_on_and_join_along_time():
    layer = keras.layers.LSTM(H, stateful=True, return_sequences=True)
    layer.build((B, T, D))
    ref.randomise(layer, 4)
    x = ref.random(B, 2 * T, D, seed=5)
    with es.recording(layer, along="time") as recorder:
        first, second = layer(x[:, :T]), layer(x[:, T:])
    leaf = recorder.trace["lstm"]
    ref.assert_leaf(leaf, ref.layer(layer.cell, x))
    assert "state_resets" not in leaf.attrs
    layer.reset_state()
    np.testing.assert_array_equal(_all(layer(x[:, :T]))[0], _all(first)[0])
    np.testing.assert_array_equal(_all(layer(x[:, T:]))[0], _all(second)[0])


def test_calls_join_along_batch():
    layer = built("gru")
    x = ref.random(B, T, D, seed=5)
    with es.recording(layer) as recorder:
        layer(x)
        layer(x[::-1], mask=MASKS["left"])
    leaf = recorder.trace["gru"]
    twice = ref.layer(layer.cell, x), ref.layer(layer.cell, x[::-1], mask=MASKS["left"])
    both = {n: np.concatenate([a[n] for a in twice]) for n in twice[0]}
    ref.assert_leaf(leaf, both)
    assert leaf.attrs["skipped_steps"] == 3


def test_half_precision_is_verified():
    layer = built("lstm", dtype="mixed_bfloat16", return_sequences=True)
    leaf, _ = recorded(layer, ref.random(B, T, D, seed=2))
    assert leaf.attrs["precision"] == "bfloat16"
    assert leaf.attrs["error_over_rounding"] < 4
