"""``DynamicQuantizeLSTM``: recorded, because a replay that rounds alike is verified, or refused."""

import numpy as np
import pytest

import mutations
from everystate.testing import importorskip

onnx = importorskip("onnx")
importorskip("onnxruntime")
quantization = importorskip("onnxruntime.quantization")

from onnx import helper, numpy_helper

import everystate as es
import onnx_models as models
import oracles
from everystate.errors import ReplayMismatchError

T, D, U = 7, 6, 5
LEVELS = np.float32(255)


def layer(batch, **options):
    return models.node("lstm", sizes=(T, batch, D, U), name="/enc/LSTM", **options)


@pytest.fixture
def quantise(tmp_path):
    def run(node, **options):
        onnx.save(models.model_of(node), tmp_path / "float.onnx")
        quantization.quantize_dynamic(
            tmp_path / "float.onnx",
            tmp_path / "quantised.onnx",
            op_types_to_quantize=["LSTM"],
            **options,
        )
        return onnx.load(tmp_path / "quantised.onnx")

    return run


def rounded(a, low, high):
    """Round to 256 levels, in float32 as the kernel does."""
    scale = np.float32(high - low) / LEVELS or np.float32(1)
    zero = np.round(np.float32(-low) / scale)
    return (np.clip(np.round(a / scale) + zero, 0, LEVELS) - zero) * scale


def by_hand(proto, node, group):
    """Every state and gate of the first direction, stepped from what the file stores."""
    stored = {t.name: numpy_helper.to_array(t) for t in proto.graph.initializer}
    (found,) = (n for n in proto.graph.node if n.op_type == "DynamicQuantizeLSTM")
    names = dict(zip((*models.ROLES, "W_s", "W_z", "R_s", "R_z"), found.input, strict=True))
    W, R = (
        (stored[names[n]][0].astype("f") - stored[names[f"{n}_z"]][0].astype("f"))
        * stored[names[f"{n}_s"]][0]
        for n in "WR"
    )
    b = stored[names["B"]][0].reshape(2, -1).sum(0)
    x = node.arrays["X"]
    x = rounded(x, min(0, x.min()), max(0, x.max()))
    h, c = node.arrays["initial_h"][0], node.arrays["initial_c"][0]
    found = {name: [] for name in "hcifgo"}
    for x_t in x:
        rows = np.split(h, range(group, len(h), group))
        h = np.concatenate([rounded(r, min(0, r.min()), max(0, r.max())) for r in rows])
        i, o, f, g = np.split(x_t @ W + h @ R + b, 4, axis=-1)
        i, o, f, g = oracles.sigmoid(i), oracles.sigmoid(o), oracles.sigmoid(f), np.tanh(g)
        c = f * c + i * g
        h = o * np.tanh(c)
        for name, value in zip("hcifgo", (h, c, i, f, g, o), strict=True):
            found[name].append(value)
    return {name: np.stack(values, axis=1) for name, values in found.items()}


def test_one_row_equals_the_kernel_by_hand(quantise):
    node = layer(1)
    proto = quantise(node)
    trace = es.record(proto, models.feeds_of(node))
    (leaf,) = trace.leaves
    assert leaf.path == "/enc"
    assert leaf.attrs["module"] == "DynamicQuantizeLSTM"
    assert leaf.attrs["cell"] == "LSTM"
    shown = {name: leaf[name].values for name in "hcifgo"}
    oracles.assert_close(shown, by_hand(proto, node, 1), 1e-5)
    exact = layer(1).expected()["lstm"]
    with mutations.must_be_noticed("weights and states that are not rounded"):
        oracles.assert_close(shown, {name: exact[name] for name in "hcifgo"}, 1e-3)


@pytest.mark.parametrize("batch", [2, 3, 5])
@pytest.mark.parametrize("per_channel", [False, True])
def test_several_rows_and_both_ways(quantise, batch, per_channel):
    node = layer(batch, direction="bidirectional")
    proto = quantise(node, per_channel=per_channel)
    feeds = models.feeds_of(node)
    with es.recording(proto) as recorder:
        outputs = recorder.run(feeds)
    for name, array in models.plain(proto, feeds).items():
        np.testing.assert_array_equal(outputs[name], array)
    for leaf in recorder.trace.leaves:
        assert leaf.attrs["max_error_h"] < 1e-5
        assert leaf.attrs["max_error_c"] < 1e-5


def test_lengths(quantise):
    node = layer(3, direction="bidirectional", lengths=np.array([4, 6, 2]))
    trace = es.record(quantise(node), models.feeds_of(node))
    assert max(leaf.attrs["max_error_c"] for leaf in trace.leaves) < 1e-5


def test_a_kernel_that_rounds_otherwise_is_refused_with_the_reason(quantise, monkeypatch):
    from everystate.frameworks.onnx import quantised

    node = layer(2)
    proto = quantise(node)
    monkeypatch.setattr(quantised, "_LEVELS", np.float32(127.0))
    with pytest.raises(ReplayMismatchError, match="its weights are quantised"):
        es.record(proto, models.feeds_of(node))
    trace = es.record(proto, models.feeds_of(node), select=es.Select(variables=("h",)))
    (leaf,) = trace.leaves
    assert leaf.h.attrs["origin"] == "observed"


@pytest.mark.parametrize("batch", [3, 4])
def test_a_first_step_that_begins_with_zeros_does_not_tell_how_rows_are_rounded(quantise, batch):
    node = layer(batch, left_out=["initial_h", "initial_c"])
    proto = quantise(node)
    (leaf,) = es.record(proto, models.feeds_of(node)).leaves
    assert leaf.attrs["max_error_h"] < 1e-5
    assert leaf.attrs["max_error_c"] < 1e-5


def rounded_behind(layer):
    """A model whose output is the layer's Y, (time, batch, units), rounded to 8 bits."""
    nodes = [
        layer.proto(outputs=["Y"]),
        helper.make_node("Transpose", ["Y"], ["S"], perm=[0, 2, 1, 3]),
        helper.make_node("Reshape", ["S", "shape"], ["P"]),
        helper.make_node("QuantizeLinear", ["P", "scale", "zero"], ["Q"]),
        helper.make_node("DequantizeLinear", ["Q", "scale", "zero"], ["D"]),
    ]
    arrays = layer.arrays
    more = {"shape": np.array([0, 0, -1]), "scale": np.float32(1 / 64), "zero": np.int8(0)}
    feeds = models.feeds_of(layer)
    return models.model(
        nodes,
        [models.value(name, a.shape) for name, a in feeds.items()],
        [models.value("D", None)],
        {**{n: arrays[n] for n in arrays if n not in feeds}, **more},
    )


def test_what_is_rounded_behind_a_node_is_not_taken_for_its_output():
    node = layer(3)
    proto, feeds = rounded_behind(node), models.feeds_of(node)
    with es.recording(proto) as recorder:
        outputs = recorder.run(feeds)
    models.assert_trace(recorder.trace, node.expected("enc"))
    np.testing.assert_array_equal(outputs["D"], models.plain(proto, feeds)["D"])
    shown = recorder.trace["enc"].h.values
    with mutations.must_be_noticed("h as it is after it was rounded"):
        oracles.assert_close({"h": shown}, {"h": outputs["D"].swapaxes(0, 1)}, 2e-6)
