"""Models from files of Keras 3 and 2: right, or refused; no code from them is run."""

import json

import h5py
import numpy as np
import pytest

from everystate.errors import UnsupportedModelError
from everystate.testing import importorskip

keras = importorskip("keras")

import everystate as es
import keras_reference as ref
from everystate.frameworks.keras.loading import opened

layers = keras.layers
B, T, D, H = 2, 5, 3, 4


@pytest.fixture(scope="module")
def old():
    """Keras 2."""
    if keras.backend.backend() != "tensorflow":
        pytest.skip("Keras 2 is TensorFlow's")
    return importorskip("tf_keras")


def saved(old, path, *stack):
    model = old.Sequential([old.Input((None, D)), *stack])
    rng = np.random.default_rng(3)
    model.set_weights([0.5 * rng.normal(size=w.shape) for w in model.get_weights()])
    model.save(path)
    return model


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
def test_a_file_of_keras_3(tmp_path, suffix):
    path = tmp_path / f"model{suffix}"
    lstm = layers.LSTM(H, recurrent_activation="hard_sigmoid", stateful=True, name="lstm")
    model = ref.randomise(keras.Sequential([keras.Input(batch_shape=(B, T, D)), lstm]))
    model.save(path)
    x = ref.random(B, T, D, seed=1)
    for _ in range(2):  # states do not go on from one record to the next
        ref.assert_leaf(es.record(path, x)["lstm"], ref.layer(lstm.cell, x))
    with es.recording(path) as recorder:
        recorder.run(x)
    ref.assert_leaf(recorder.trace["lstm"], ref.layer(lstm.cell, x))
    assert es.record(str(path), x).attrs["model"] == str(path)


@pytest.mark.parametrize("suffix", [".h5", ".keras"])
def test_keras_2_had_another_hard_sigmoid(tmp_path, old, suffix):
    path = tmp_path / f"old{suffix}"
    hard = {"recurrent_activation": "hard_sigmoid", "return_sequences": True}
    model = saved(
        old,
        path,
        old.layers.LSTM(H, name="lstm", **hard),
        old.layers.Bidirectional(old.layers.GRU(H, reset_after=False, **hard), name="both"),
        old.layers.Dense(2, activation="hard_sigmoid"),
    )
    x = ref.random(B, T, D, seed=1)
    trace = es.record(path, x)
    np.testing.assert_allclose(ref.numpy(opened(path)(x)), model(x).numpy(), atol=1e-6)
    kernel, _, bias = model.get_layer("lstm").get_weights()
    i = (x[:, 0] @ kernel + bias)[:, :H]
    gate = np.clip(0.2 * i + 0.5, 0, 1)
    np.testing.assert_allclose(trace["lstm"].i[:, 0], gate, atol=1e-6)
    assert np.abs(gate - np.clip(i / 6 + 0.5, 0, 1)).max() > 0.01  # what Keras 3 would make of it
    assert trace["both/forward"].attrs["recurrent_activation"] == "hard_sigmoid_keras2"


@pytest.mark.parametrize("both", [False, True])
def test_the_first_layer_of_old_files_tells_the_shape_of_the_input(tmp_path, old, both):
    path = tmp_path / "old.h5"
    lstm = old.layers.LSTM(H, name="lstm")
    first = old.layers.Bidirectional(lstm, name="both") if both else lstm
    model = saved(old, path, first, old.layers.Dense(2))
    with h5py.File(path, "r+") as file:  # as Keras 2.2 wrote it
        config = json.loads(file.attrs["model_config"])
        inner = config["config"]["layers"]
        shape = inner.pop(0)["config"]["batch_input_shape"]
        inner[0]["config"]["batch_input_shape"] = shape
        file.attrs["model_config"] = json.dumps(config).encode()
        file.attrs["keras_version"] = b"2.2.4-tf"
    x = ref.random(B, T, D, seed=1)
    leaf = es.record(path, x)["both/forward" if both else "lstm"]
    np.testing.assert_allclose(ref.numpy(opened(path)(x)), model(x).numpy(), atol=1e-6)
    cell = opened(path).layers[0]
    ref.assert_leaf(leaf, ref.layer((cell.forward_layer if both else cell).cell, x))


def test_layers_for_cudnn_have_weights_of_another_layout(tmp_path, old):
    from tf_keras.src.layers.rnn.cudnn_gru import CuDNNGRU
    from tf_keras.src.layers.rnn.cudnn_lstm import CuDNNLSTM

    path = tmp_path / "cudnn.h5"
    both = old.layers.Bidirectional(CuDNNLSTM(H, return_sequences=True), name="both")
    saved(old, path, both, CuDNNGRU(H, name="gru"))
    twin = old.Sequential(
        [
            old.Input((None, D)),
            old.layers.Bidirectional(old.layers.LSTM(H, return_sequences=True), name="both"),
            old.layers.GRU(H, name="gru"),
        ]
    )
    twin.load_weights(path)  # Keras 2 converts them itself
    x = ref.random(B, T, D, seed=1)
    trace = es.record(path, x)
    np.testing.assert_allclose(trace["gru"].h[:, -1], twin(x).numpy(), atol=1e-6)


@pytest.mark.parametrize("suffix", [".h5", ".keras"])
def test_a_layer_that_reads_time_major_is_refused(tmp_path, old, suffix):
    path = tmp_path / f"old{suffix}"
    saved(old, path, old.layers.LSTM(H, time_major=True, name="lstm"))
    with pytest.raises(UnsupportedModelError, match=r"lstm: reads .*time_major"):
        es.record(path, ref.random(B, T, D, seed=1))


def test_code_in_a_file_is_not_run(tmp_path, old):
    for library, path in ((keras, tmp_path / "new.keras"), (old, tmp_path / "old.h5")):
        model = library.Sequential([library.Input((None, D)), library.layers.LSTM(H)])
        model.add(library.layers.Lambda(lambda x: x + 1))
        model.save(path)
        with pytest.raises(UnsupportedModelError, match="code from a file is not run"):
            es.record(path, ref.random(B, T, D, seed=1))


def test_files_that_are_no_models_are_told(tmp_path):
    model = keras.Sequential([keras.Input((None, D)), layers.LSTM(H)])
    model.save_weights(weights := tmp_path / "model.weights.h5")
    x = ref.random(B, T, D, seed=1)
    with pytest.raises(UnsupportedModelError, match=r"model\.load_weights\(file\)"):
        es.record(weights, x)
    for name in ("bad.keras", "bad.h5"):
        (tmp_path / name).write_text("no model")
        with pytest.raises(UnsupportedModelError, match="damaged"):
            es.record(tmp_path / name, x)
    with pytest.raises(FileNotFoundError):
        es.record(tmp_path / "missing.keras", x)


def test_classes_that_are_not_known_are_told(tmp_path):
    class Own(layers.LSTM):
        pass

    path = tmp_path / "own.keras"
    keras.Sequential([keras.Input((None, D)), Own(H)]).save(path)
    with pytest.raises(UnsupportedModelError, match="register_keras_serializable"):
        es.record(path, ref.random(B, T, D, seed=1))


def test_the_command_line_records_a_file(tmp_path):
    from typer.testing import CliRunner

    from everystate.cli.main import app

    lstm = layers.LSTM(H, name="lstm")
    ref.randomise(keras.Sequential([keras.Input((None, D)), lstm])).save(tmp_path / "m.keras")
    x = ref.random(B, T, D, seed=1)
    np.save(tmp_path / "x.npy", x)
    np.savetxt(tmp_path / "row.csv", x[0], delimiter=",", header="a,b,c", comments="")
    expected = ref.layer(lstm.cell, x)
    for data, rows, options in (
        ("x.npy", slice(None), []),
        ("row.csv", slice(1), ["--batch-first"]),
    ):
        store = tmp_path / f"{data}.zarr"
        arguments = ["record", str(tmp_path / "m.keras"), str(tmp_path / data), "-o", str(store)]
        result = CliRunner().invoke(app, [*arguments, *options])
        assert result.exit_code == 0, result.output
        leaf = es.open_trace(store)["lstm"]
        ref.assert_leaf(leaf, {n: a[rows] for n, a in expected.items()})
