"""Where layers are in a model, how often they are called, and what is not seen."""

import numpy as np
import pytest

import mutations
import oracles
from everystate.errors import (
    EverystateWarning,
    InputError,
    InputTypeError,
    NothingRecordedError,
    ReplayMismatchError,
    UnknownLayerError,
    UnsupportedModelError,
)
from everystate.testing import importorskip

keras = importorskip("keras")

import everystate as es
import keras_reference as ref
from everystate.frameworks import keras as framework
from everystate.recording.discovery import framework_of

layers = keras.layers
B, T, D, H = 3, 5, 4, 6


class Block(layers.Layer):
    """A layer of one's own that holds recurrent ones in a list."""

    def __init__(self, **options):
        super().__init__(**options)
        self.stack = [layers.GRU(H, return_sequences=True, name="a"), layers.GRU(H, name="b")]

    def call(self, x):
        for layer in self.stack:
            x = layer(x)
        return x


class Sub(keras.Model):
    """A subclassed model around a nested, a listed and a time-distributed one."""

    def __init__(self):
        super().__init__()
        inner = [layers.LSTM(H, return_sequences=True, name="lstm"), layers.Dense(D)]
        self.encoder = keras.Sequential(inner, name="encoder")
        self.block = Block(name="block")

    def call(self, x):
        return self.block(self.encoder(x))


def test_leaves_are_named_by_the_layers_names():
    model = Sub()
    x = ref.random(B, T, D, seed=1)
    model(x)
    ref.randomise(model)
    trace = es.record(model, x)
    assert sorted(framework.layers(model)) == ["block/a", "block/b", "encoder/lstm"]
    lstm, a, b = (next(r for r in ref.recurrent(model) if r.name == n) for n in ("lstm", "a", "b"))
    ref.assert_leaf(trace["encoder/lstm"], ref.layer(lstm.cell, x))
    dense = model.encoder.layers[1]
    y = ref.layer(lstm.cell, x)["h"] @ ref.numpy(dense.kernel) + ref.numpy(dense.bias)
    ref.assert_leaf(trace["block/a"], ref.layer(a.cell, y))
    ref.assert_leaf(trace["block/b"], ref.layer(b.cell, ref.layer(a.cell, y)["h"]), 1e-5)


def test_a_shared_layer_has_one_leaf_a_call():
    shared = layers.LSTM(H, name="shared")
    a, b = keras.Input((T, D)), keras.Input((None, D))
    model = ref.randomise(keras.Model([a, b], layers.add([shared(a), shared(b)])))
    x, y = ref.random(B, T, D, seed=1), ref.random(B, T + 2, D, seed=2)
    trace = es.record(model, x, y)
    ref.assert_leaf(trace["shared/call_0"], ref.layer(shared.cell, x))
    ref.assert_leaf(trace["shared/call_1"], ref.layer(shared.cell, y))


def test_time_distributed_calls_its_layer_for_each_step():
    inner = layers.GRU(H, name="gru")
    model = keras.Sequential([keras.Input((2, T, D)), layers.TimeDistributed(inner, name="each")])
    ref.randomise(model)
    x = ref.random(B, 2, T, D, seed=1)
    trace = es.record(model, x)
    for k in range(2):
        ref.assert_leaf(trace[f"each/gru/call_{k}"], ref.layer(inner.cell, x[:, k]))


def test_an_embedding_masks_by_zero():
    model = keras.Sequential(
        [keras.Input((None,)), layers.Embedding(9, D, mask_zero=True), layers.LSTM(H, name="lstm")]
    )
    ref.randomise(model)
    words = np.array([[0, 0, 3, 1, 2], [4, 5, 0, 6, 0], [7, 8, 1, 2, 3]])
    trace = es.record(model, words)
    embedded = ref.numpy(model.layers[0](words))
    lstm = model.get_layer("lstm")
    expected = ref.layer(lstm.cell, embedded, mask=words > 0)
    ref.assert_leaf(trace["lstm"], expected)
    assert trace["lstm"].length.values.tolist() == [5, 4, 5]
    with mutations.must_be_noticed("the mask left out"):
        ref.assert_leaf(trace["lstm"], ref.layer(lstm.cell, embedded))


def test_bidirectional_of_a_backward_layer_first():
    both = layers.Bidirectional(
        layers.LSTM(H, go_backwards=True), backward_layer=layers.LSTM(H), name="both"
    )
    model = ref.randomise(keras.Sequential([keras.Input((T, D)), both]))
    x = ref.random(B, T, D, seed=1)
    trace = es.record(model, x)
    first, second = both.forward_layer.cell, both.backward_layer.cell
    ref.assert_leaf(trace["both/backward"], ref.layer(first, x, backwards=True))
    ref.assert_leaf(trace["both/forward"], ref.layer(second, x))


def test_a_keras_model_goes_to_keras_whatever_its_back_end():
    model = keras.Sequential([keras.Input((T, D)), layers.LSTM(H)])
    assert framework_of(model)[0] == "keras"
    assert framework_of(Sub())[0] == "keras"


def test_what_is_compiled_is_told():
    model = keras.Sequential([keras.Input((T, D)), layers.LSTM(H, name="lstm")])
    x = ref.random(B, T, D, seed=1)
    if keras.backend.backend() != "torch":  # which runs predict as it is
        for _ in range(2):  # while it is compiled, and when it is
            told = pytest.warns(
                EverystateWarning, match=r"lstm\. The model was compiled.*model\(x\)"
            )
            with told, es.recording(model) as recorder:
                y = model.predict(x, verbose=0)
            np.testing.assert_allclose(y, ref.numpy(model(x)), atol=1e-6)
        with pytest.raises(NothingRecordedError):
            _ = recorder.trace
    model.compile(run_eagerly=True)
    with es.recording(model) as recorder:
        model.predict(x, verbose=0, batch_size=2)
    ref.assert_leaf(recorder.trace["lstm"], ref.layer(model.layers[0].cell, x))


def test_a_model_built_inside_the_block_is_no_call():
    lstm = layers.LSTM(H, name="lstm")
    lstm.build((B, T, D))
    x = ref.random(B, T, D, seed=1)
    with es.recording(lstm) as recorder:
        model = keras.Model(a := keras.Input((T, D)), lstm(a))
        model(x)
    ref.assert_leaf(recorder.trace["lstm"], ref.layer(lstm.cell, x))


def test_a_changed_loop_is_noticed():
    class Scaled(layers.LSTM):
        def inner_loop(self, *args, **kwargs):
            last, outputs, states = super().inner_loop(*args, **kwargs)
            return last * 1.01, outputs * 1.01, states

    layer = Scaled(H)
    layer.build((B, T, D))
    x = ref.random(B, T, D, seed=1)
    with pytest.raises(ReplayMismatchError, match="scaled: the replayed h differs"):
        es.record(layer, x)


@pytest.mark.parametrize(
    ("x", "error", "text"),
    [
        (np.zeros((T, D)), InputError, "batch of one"),
        (
            np.zeros((B, T, D + 1)),
            InputError,
            r"expected \(None, None, 4\)\. It has 5 features where the model takes 4\.",
        ),
        (np.array([["a"]]), InputTypeError, "expected real numbers"),
        (np.zeros((B, T, D)).tolist(), InputTypeError, "a list of numbers, expected an array"),
        (np.zeros((B, 0, D), "f4"), InputError, "nothing to record"),
    ],
)
def test_bad_inputs_are_told(x, error, text):
    model = keras.Sequential([keras.Input((None, D)), layers.LSTM(H, name="lstm")])
    with pytest.raises(error, match=text):
        es.record(model, x)


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="they are TensorFlow's")
def test_ragged_tensors_and_data_sets_are_told():
    tf = importorskip("tensorflow")
    model = keras.Sequential([keras.Input((None, D)), layers.LSTM(H)])
    ragged = tf.RaggedTensor.from_row_lengths(np.zeros((5, D), "f4"), [3, 2])
    with pytest.raises(InputTypeError, match=r"RaggedTensor, .*to_tensor\(\), and put a .*Masking"):
        es.record(model, ragged)
    batches = tf.data.Dataset.from_tensor_slices(np.zeros((B, T, D), "f4")).batch(2)
    with pytest.raises(InputTypeError, match=r"BatchDataset, .*with es\.recording\(model\)"):
        es.record(model, batches)


def test_features_that_do_not_fit_a_layer_are_told_with_its_path():
    layer = layers.GRU(H)
    layer.build((B, T, D))
    with pytest.raises(InputError, match=f"gru: got {D + 1} features"):
        es.record(layer, np.zeros((B, T, D + 1), "f4"))


def test_models_without_recurrent_layers_and_wrong_names_are_told():
    with pytest.raises(UnsupportedModelError, match=r"no recurrent layer .*; it is made of Dense"):
        es.record(keras.Sequential([keras.Input((D,)), layers.Dense(2)]), np.zeros((B, D)))
    model = keras.Sequential([keras.Input((T, D)), layers.LSTM(H, name="lstm")])
    with pytest.raises(UnknownLayerError, match="the model has: lstm"):
        es.record(model, np.zeros((B, T, D)), select=es.Select("gru"))


def test_a_layer_that_is_not_called_is_told():
    class Half(keras.Model):
        def __init__(self):
            super().__init__()
            self.used, self.unused = layers.GRU(H, name="used"), layers.GRU(H, name="unused")

        def call(self, x):
            return self.used(x)

    with pytest.warns(EverystateWarning, match="unused"):
        trace = es.record(Half(), ref.random(B, T, D, seed=1))
    assert [leaf.path for leaf in trace.leaves] == ["/used"]


def test_oracle_and_summary_read_the_same_trace():
    model = ref.randomise(keras.Sequential([keras.Input((T, D)), layers.LSTM(H, name="lstm")]))
    trace = es.record(model, ref.random(B, T, D, seed=1))
    leaf = trace["lstm"]
    oracles.assert_close({"h": leaf.h}, {"h": (leaf.o * np.tanh(leaf.c)).values}, 1e-6)
    assert "lstm" in str(es.summary(trace))
