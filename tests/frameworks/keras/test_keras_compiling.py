"""On TensorFlow, a long layer's loop is compiled: the same numbers as of the loop as it is."""

import numpy as np
import pytest

from everystate.testing import importorskip

keras = importorskip("keras")

import everystate as es
import keras_reference as ref
from everystate.frameworks.keras import compiling

layers = keras.layers
pytestmark = pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="only there a loop is compiled"
)
B, T, D, H = 3, compiling.WORTH_IT + 5, 4, 6


@pytest.fixture
def traced(monkeypatch):
    """The number of steps and rows of each loop that was traced, None for any."""
    seen = []
    loop = compiling.CompiledLoop._trace

    def trace(self, given):
        seen.append(tuple(given[0].shape))
        return loop(self, given)

    monkeypatch.setattr(compiling.CompiledLoop, "_trace", trace)
    return seen


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize(
    "make",
    [
        lambda: layers.LSTM(H, name="layer"),
        lambda: layers.GRU(H, reset_after=False, go_backwards=True, name="layer"),
        lambda: layers.SimpleRNN(H, name="layer"),
    ],
    ids=["lstm", "gru", "simple"],
)
def test_the_same_numbers_to_the_last_bit(make, masked, traced):
    front = [layers.Masking(0.0)] if masked else []
    model = keras.Sequential([keras.Input((None, D)), *front, make()])
    ref.randomise(model.layers[-1])
    x = ref.random(B, T, D, seed=1)
    if masked:
        x[0, 50:], x[2, 3:9] = 0, 0
    compiled = es.record(model, x)["layer"]
    assert traced == [(B, T, D)]
    with es.recording(model) as recorder:  # there it is the user who calls the model
        model(x)
    assert len(traced) == 1
    plain = recorder.trace["layer"]
    for name, values in plain.data_vars.items():
        np.testing.assert_array_equal(compiled[name], values, err_msg=name)
    if not masked:
        ref.assert_leaf(
            compiled,
            ref.layer(model.layers[-1].cell, x, backwards=model.layers[-1].go_backwards),
        )


def test_a_loop_is_traced_once_for_all_chunks(traced, tmp_path):
    layer = layers.LSTM(H, name="lstm")
    layer.build((1, 10, D))
    ref.randomise(layer)
    x = ref.random(1, 900, D, seed=2)
    chunks = iter(np.split(x, [100, 250, 700], axis=1))
    trace = es.record(layer, chunks, store=tmp_path / "run.zarr", time_axis=1)
    np.testing.assert_allclose(trace["lstm"].c, ref.layer(layer.cell, x)["c"], atol=1e-5)
    assert 1 <= len(traced) <= 3  # the trials have blocks, and loops, of their own


def test_what_python_runs_step_by_step_is_not_compiled(traced):
    class Own(layers.LSTM):
        def inner_loop(self, *args, **kwargs):
            return super().inner_loop(*args, **kwargs)

    x = ref.random(B, T, D, seed=1)
    for layer in (
        layers.LSTM(H, unroll=True),
        Own(H),
        layers.LSTM(H, activation=lambda x: keras.ops.tanh(x)),
        layers.RNN([layers.LSTMCell(H)]),
    ):
        layer.build(x.shape)
        es.record(layer, x, select=es.Select(variables="h"))
    with es.recording(layer := layers.LSTM(H, recurrent_dropout=0.5), select=es.Select("*")):
        layer(x, training=True)
    assert traced == []


def test_a_stateful_layer_ends_where_it_does_by_itself():
    layer = layers.LSTM(H, stateful=True)
    layer.build((B, T, D))
    x = ref.random(B, T, D, seed=1)
    es.record(layer, x)
    after = [ref.numpy(v) for v in layer.states]
    layer.reset_state()
    layer(x)
    for ours, own in zip(after, layer.states, strict=True):
        np.testing.assert_array_equal(ours, ref.numpy(own))


def test_a_sequential_without_an_input_reads_any_length(tmp_path):
    model = keras.Sequential([layers.LSTM(H, return_sequences=True, name="lstm")])
    x = ref.random(1, 1500, D, seed=3)
    trace = es.record(model, x, store=tmp_path / "run.zarr", memory=200_000)
    assert trace["lstm"].c.shape == (1, 1500, H)
    assert es.record(model, x[:, :70])["lstm"].c.shape == (1, 70, H)
