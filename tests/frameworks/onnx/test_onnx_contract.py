"""The contract of a framework module, held by ONNX's, for a file and for a model in memory."""

import hashlib
from pathlib import Path

import numpy as np
import pytest

from everystate.testing import FrameworkContract, importorskip

onnx = importorskip("onnx")
importorskip("onnxruntime")

from onnx import helper

import onnx_models as models
from everystate.frameworks import onnx as framework

LENGTHS = np.array([5, 7, 3])


def layers():
    """A bidirectional LSTM, a GRU that reads both its directions, an RNN that reads the GRU."""
    T, B, D, H = 7, 3, 4, 5
    lstm = models.node(
        "lstm",
        direction="bidirectional",
        sizes=(T, B, D, H),
        lengths=LENGTHS,
        name="/encoder/lstm/LSTM",
    )
    runs = lstm.expected()
    both = [np.nan_to_num(runs[f"lstm/{way}"]["h"]) for way in ("forward", "backward")]
    x = np.concatenate(both, -1).swapaxes(0, 1)
    gru = models.node("gru", seed=5, sizes=(T, B, 2 * H, H), name="/encoder/gru/GRU")
    gru = models.replace(gru, parts=tuple(p.with_(x=x) for p in gru.parts))
    x = gru.expected()["gru"]["h"].swapaxes(0, 1)
    rnn = models.node("simple_rnn", seed=9, sizes=(T, B, H, H), direction="reverse")
    return lstm, gru, models.replace(rnn, parts=tuple(p.with_(x=x) for p in rnn.parts))


def whole():
    """The model of these layers; only the sequence is an input."""
    lstm, gru, rnn = layers()
    nodes = [
        lstm.proto("lstm."),
        helper.make_node("Transpose", ["lstm.Y"], ["turned"], perm=[0, 2, 1, 3]),
        helper.make_node("Reshape", ["turned", "shape"], ["gru.X"]),
        gru.proto("gru.", ["gru.Y"]),
        helper.make_node("Squeeze", ["gru.Y", "axis"], ["rnn.X"]),
        rnn.proto("rnn.", ["", "rnn.Y_h"]),
    ]
    tensors = {"shape": np.array([0, 0, -1]), "axis": np.array([1])}
    for prefix, layer in (("lstm.", lstm), ("gru.", gru), ("rnn.", rnn)):
        tensors |= {prefix + role: a for role, a in layer.arrays.items() if role != "X"}
    proto = models.model(
        nodes,
        [models.value("lstm.X", ["time", "batch", 4])],
        [models.value("gru.Y", None), models.value("rnn.Y_h", None)],
        tensors,
    )
    return proto, lstm.arrays["X"]


class OfAllNodes(FrameworkContract):
    framework = framework
    tolerance = 5e-6

    def inputs(self):
        return (whole()[1],)

    def expected(self):
        lstm, gru, rnn = layers()
        return {
            **lstm.expected("encoder/lstm"),
            **gru.expected("encoder/gru"),
            **rnn.expected("rnn"),
        }

    def results(self, model):
        return list(framework.call(model, self.inputs()).values())


class TestFile(OfAllNodes):
    @pytest.fixture(autouse=True)
    def _file(self, tmp_path):
        self.path = tmp_path / "model.onnx"
        onnx.save(whole()[0], self.path)

    def model(self):
        return str(self.path)

    def state(self, model):
        return hashlib.sha256(Path(model).read_bytes()).hexdigest()


class TestInMemory(OfAllNodes):
    def model(self):
        return whole()[0]

    def state(self, model):
        return model.SerializeToString(deterministic=True)


def test_results_are_onnxruntimes_own():
    proto, x = whole()
    theirs = models.plain(proto, {"lstm.X": x})
    ours = framework.call(proto, (x,))
    assert list(ours) == list(theirs) == ["gru.Y", "rnn.Y_h"]
    for name, array in theirs.items():
        np.testing.assert_array_equal(ours[name], array)
