"""`unroll` and `StatesOf`: all states as tensors, differentiable, trainable, saved."""

import numpy as np
import pytest

import mutations
import oracles
from everystate.errors import InputError, UnknownLayerError, UnsupportedModelError
from everystate.testing import importorskip

keras = importorskip("keras")

import everystate as es
import keras_reference as ref
from everystate.frameworks.keras import StatesOf

layers, ops = keras.layers, keras.ops
B, T, D, H = 3, 5, 4, 6
KINDS = {
    "LSTM": {},
    "GRU": {},
    "GRU before": {"reset_after": False},
    "SimpleRNN": {"activation": "relu"},
}
MASK = np.array([[1, 0, 1, 1, 0], [0, 1, 1, 1, 1], [1, 1, 1, 1, 1]], bool)


def built(kind, **options):
    layer = getattr(layers, kind.split()[0])(H, **KINDS[kind], **options)
    layer.build((B, T, D))
    return ref.randomise(layer)


def shown(states):
    return {name: ref.numpy(a) for name, a in states.items()}


def expected(layer, x, mask=None, **options):
    """Return the oracle's states as tensors hold them: no NaN, gates 0 where masked."""
    found = ref.layer(layer.cell, x, mask=mask, backwards=layer.go_backwards, **options)
    names = ref.STATES[ref.family(layer.cell)]
    for t in range(1, T):  # states past the end are carried over
        for name in names:
            past = np.isnan(found[name][:, t])
            found[name][:, t] = np.where(past, found[name][:, t - 1], found[name][:, t])
    return {name: np.nan_to_num(a) for name, a in found.items()}


@pytest.mark.parametrize("mask", [None, MASK], ids=["whole", "masked"])
@pytest.mark.parametrize("kind", KINDS)
def test_states_and_gates_are_the_oracles(kind, mask):
    layer = built(kind, return_sequences=True)
    x = ref.random(B, T, D, seed=1)
    out = es.unroll(layer, x, None, mask)
    oracles.assert_close(shown(out.states[kind.split()[0].lower()]), expected(layer, x, mask), 2e-6)
    np.testing.assert_allclose(ref.numpy(out.outputs), ref.numpy(layer(x, mask=mask)), atol=1e-6)
    for fault, wrong in mutations.of_gates(ref.gates(layer.cell)):
        with mutations.must_be_noticed(fault):
            oracles.assert_close(
                shown(out.states[kind.split()[0].lower()]),
                expected(layer, x, mask, wrong=wrong),
                2e-6,
            )


def test_outputs_and_final_state_are_the_layers_own():
    layer = built("LSTM", return_state=True, go_backwards=True)
    x, start = ref.random(B, T, D, seed=1), [ref.random(B, H, seed=k) for k in (2, 3)]
    out, (h, *final) = es.unroll(layer, x, start), layer(x, initial_state=start)
    np.testing.assert_allclose(ref.numpy(out.outputs), ref.numpy(h), atol=1e-6)
    for a, b in zip(out.final_state, final, strict=True):
        np.testing.assert_allclose(ref.numpy(a), ref.numpy(b), atol=1e-6)
    np.testing.assert_allclose(ref.numpy(out.states.c)[:, 0], ref.numpy(final[1]), atol=1e-6)
    np.testing.assert_array_equal(ref.numpy(out.states.initial_c), start[1])


def test_both_directions_and_stacked_cells_by_name():
    both = layers.Bidirectional(layers.GRU(H, return_state=True), merge_mode=None)
    x = ref.random(B, T, D, seed=1)
    out = es.unroll(both, x)
    assert list(out.states) == ["forward", "backward"]
    assert len(out.outputs) == len(out.final_state) == 2
    want = ref.layer(both.backward_layer.cell, x, backwards=True)
    oracles.assert_close(shown(out.states["backward"]), want, 2e-6)
    stack = layers.RNN([layers.LSTMCell(H), layers.GRUCell(D)])
    assert list(es.unroll(stack, x).states) == ["layer_0", "layer_1"]
    with pytest.raises(UnknownLayerError, match="layer_0"):
        es.unroll(stack, x).states["forward"]


def test_a_cell_is_looped():
    cell = layers.LSTMCell(H)
    cell.build((B, D))
    ref.randomise(cell)
    x = ref.random(B, T, D, seed=1)
    out = es.unroll(cell, x)
    oracles.assert_close(shown(out.states["rnn"]), ref.layer(cell, x), 2e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_are_those_of_a_cell_stepped_by_hand(kind):
    layer = built(kind)
    x = ref.random(B, T, D, seed=1)
    state = {"LSTM": "c"}.get(kind, "h")

    def ours(a):
        states = es.unroll(layer, a).states
        gate = states.f if kind == "LSTM" else states.h
        return ops.sum(ops.square(states[_only(states)][state][:, 2])) + ops.sum(gate[:, 3])

    def by_hand(a):
        found = [ops.zeros((B, H)) for _ in ref.STATES[kind.split()[0]]]
        total = 0.0
        for t in range(4):
            h_before = found[0]
            h, found = layer.cell(a[:, t], found)
            if t == 2:
                total += ops.sum(ops.square(found[-1]))
        if kind != "LSTM":
            return total + ops.sum(h)
        kernels = layer.cell.kernel, layer.cell.recurrent_kernel, layer.cell.bias
        w, r, b = (ops.convert_to_tensor(v)[..., H : 2 * H] for v in kernels)
        return total + ops.sum(ops.sigmoid(a[:, 3] @ w + h_before @ r + b))

    np.testing.assert_allclose(ref.gradient(ours, x), ref.gradient(by_hand, x), atol=2e-6)


def _only(states):
    return next(iter(states))


def test_whole_models_and_inputs_that_do_not_fit_are_told():
    model = keras.Sequential([keras.Input((T, D)), layers.LSTM(H)])
    with pytest.raises(UnsupportedModelError, match=r"es\.record\(model, x\)"):
        es.unroll(model, np.zeros((B, T, D)))
    with pytest.raises(InputError, match="ndim"):
        es.unroll(built("LSTM"), np.zeros((T, D), "f4"))
    with pytest.raises(UnsupportedModelError, match=r"StatesOf\(keras"):
        StatesOf(layers.Dense(3))


def test_states_of_is_trained_by_the_gradient_of_a_state():
    lstm = layers.LSTM(H, name="inner")
    x = keras.Input((None, D))
    _, states = StatesOf(lstm)(x)
    model = ref.randomise(keras.Model(x, states["c"]))
    model.compile(keras.optimizers.SGD(1.0), "mse")
    data, before = ref.random(B, T, D, seed=1), ref.gates(lstm.cell)

    def loss(gates):
        return np.square(ref.layer(lstm.cell, data, wrong=gates)["c"]).mean()

    kernel = ref.numpy(lstm.cell.kernel)
    model.fit(data, np.zeros((B, T, H)), batch_size=B, epochs=1, verbose=0)
    trained = kernel - ref.numpy(lstm.cell.kernel)
    for k, name in enumerate("ifgo"):
        for place in ((0, 0), (H - 1, D - 1)):
            step = np.zeros((H, D))
            step[place] = 1e-6
            moved = [
                loss({**before, name: oracles.Gate(g.W + s * step, g.R, g.b, g.b_R)})
                for g, s in ((before[name], 1), (before[name], -1))
            ]
            slope = (moved[0] - moved[1]) / 2e-6
            assert trained[place[1], k * H + place[0]] == pytest.approx(slope, abs=2e-5)
            assert abs(slope) > 1e-5 or name == "o"


def test_states_of_in_a_model_that_is_saved_and_loaded(tmp_path):
    x = keras.Input((None, D))
    masked = layers.Masking()(x)
    both = layers.Bidirectional(layers.LSTM(H, return_sequences=True), name="both")
    outputs, states = StatesOf(both, name="states")(masked)
    model = keras.Model(x, [outputs, states["forward"]["c"], states["backward"]["f"]])
    ref.randomise(model)
    data = ref.random(B, T, D, seed=1)
    data[~MASK] = 0.0
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    y, c, f = (ref.numpy(a) for a in loaded.predict(data, verbose=0))
    inner = loaded.get_layer("states").layer
    forward = expected(inner.forward_layer, data, MASK)
    backward = expected(inner.backward_layer, data, MASK)
    oracles.assert_close({"c": c, "f": f}, {"c": forward["c"], "f": backward["f"]}, 2e-6)
    h = np.concatenate([forward["h"], backward["h"]], -1)
    np.testing.assert_allclose(y[MASK], h[MASK], atol=2e-6)
    trace = es.record(loaded, data)
    assert sorted(leaf.path for leaf in trace.leaves) == [
        "/states/both/backward",
        "/states/both/forward",
    ]


@pytest.mark.filterwarnings("error::everystate.errors.EverystateWarning")
@pytest.mark.parametrize("recurrent_dropout", [0.0, 0.5])
def test_a_layer_inside_states_of_is_recorded_as_any_other(recurrent_dropout):
    first = layers.LSTM(H, name="first", return_sequences=True)
    inner = layers.GRU(H, name="inner", recurrent_dropout=recurrent_dropout, seed=1)
    x = keras.Input((None, D))
    outputs, states = StatesOf(inner, name="states_of")(first(x))
    model = ref.randomise(keras.Model(x, [outputs, states["z"]]))
    data = ref.random(B, T, D, seed=1)
    expected = ref.layer(first.cell, data)
    below = ref.layer(inner.cell, expected["h"])
    trace = es.record(model, data)
    ref.assert_leaf(trace["first"], expected)
    ref.assert_leaf(trace["states_of/inner"], below)
    with es.recording(model) as recorder:
        y, z = model(data, training=True)
    leaf = recorder.trace["states_of/inner"]
    np.testing.assert_allclose(leaf.h[:, -1], ref.numpy(y), atol=1e-6)
    np.testing.assert_allclose(leaf.z, ref.numpy(z), atol=1e-6)
    assert (np.abs(leaf.z.values - below["z"]).max() > 1e-3) == bool(recurrent_dropout)


def test_states_of_as_the_model_itself_is_recorded():
    both = layers.Bidirectional(layers.LSTM(H), name="both")
    model = StatesOf(both)
    data = ref.random(B, T, D, seed=1)
    model(data)
    ref.randomise(model)
    leaf = es.record(model, data)["both/backward"]
    ref.assert_leaf(leaf, ref.layer(both.backward_layer.cell, data, backwards=True))
