"""``everystate record model.onnx data``: one input, several by name, and what does not fit."""

import numpy as np
import pytest

from everystate.testing import importorskip

onnx = importorskip("onnx")
importorskip("onnxruntime")

import cases
import everystate as es
import onnx_models as models

ENCODER = models.node("lstm", left_out=["initial_h", "initial_c"], name="/enc/LSTM")
STREAM = models.node("lstm")


@pytest.fixture
def files(folder):
    proto = models.model_of(ENCODER)
    proto.graph.input[0].CopyFrom(models.value("X", ["time", "batch", cases.D]))
    onnx.save(proto, folder / "encoder.onnx")
    onnx.save(models.model_of(STREAM), folder / "stream.onnx")
    np.save(folder / "x.npy", ENCODER.arrays["X"])
    np.save(folder / "one.npy", ENCODER.arrays["X"][:, 0])
    np.savez(folder / "feeds.npz", **models.feeds_of(STREAM))
    return folder


def test_one_array(run, files):
    assert "enc" in run("record", "encoder.onnx", "x.npy", "-o", "run.zarr").out
    models.assert_trace(es.open_trace(files / "run.zarr"), ENCODER.expected("enc"))


def test_one_sequence_without_a_batch(run, files):
    run("record", "encoder.onnx", "one.npy", "--time-first", "-o", "run.zarr")
    trace, row = es.open_trace(files / "run.zarr"), ENCODER.expected("enc")["enc"]
    models.assert_trace(trace, {"enc": {name: a[:1] for name, a in row.items()}})


def test_several_arrays_by_name(run, files):
    said = run("record", "stream.onnx", "feeds.npz", "-o", "run.zarr")
    assert "read feeds.npz: X 7x3x4, initial_h 1x3x5, initial_c 1x3x5" in said.err
    models.assert_trace(es.open_trace(files / "run.zarr"), STREAM.expected())


def test_one_of_several_arrays(run, files):
    run("record", "encoder.onnx", "feeds.npz", "--array", "X", "-o", "run.zarr")
    assert es.open_trace(files / "run.zarr")["enc"].c.shape == (cases.B, cases.T, cases.U)


def test_info_lists_the_layers(run, files):
    assert run("info", "encoder.onnx", "--json").json["layers"] == ["enc"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("encoder.onnx", "one.npy"), "has shape (7, 4), expected (time, batch, 4)"),
        (("encoder.onnx", "feeds.npz"), "has no input initial_h, initial_c; it takes: X"),
        (("stream.onnx", "x.npy"), "the inputs initial_h, initial_c are missing"),
        (("stream.onnx", "x.npy"), "Give an .npz file with an array for each."),
        (("other.onnx", "x.npy"), "other.onnx: there is no such file"),
    ],
)
def test_what_does_not_fit(run, files, arguments, message):
    done = run("record", *arguments, "-o", "run.zarr")
    assert done.code == 1
    assert message in done.err
    assert not (files / "run.zarr").exists()
