"""Files: external data, functions, names of exporters, and whatever can be wrong with one."""

import contextlib
import warnings

import numpy as np
import pytest

from everystate.testing import importorskip

onnx = importorskip("onnx")
importorskip("onnxruntime")

from onnx import helper, numpy_helper

import cases
import everystate as es
import onnx_models as models
from everystate.errors import (
    EverystateWarning,
    InputError,
    InputTypeError,
    NothingRecordedError,
    UnknownLayerError,
    UnsupportedModelError,
    WeightsError,
)
from everystate.frameworks import onnx as framework

LAYER = models.node("lstm", left_out=["initial_h", "initial_c"], name="/enc/LSTM")


@pytest.fixture
def path(tmp_path):
    """A file with one LSTM, whose batch and time are open and whose weights lie beside it."""
    proto = models.model_of(LAYER)
    proto.graph.input[0].CopyFrom(models.value("X", ["time", "batch", cases.D]))
    onnx.save(
        proto,
        tmp_path / "model.onnx",
        save_as_external_data=True,
        location="weights.bin",
        size_threshold=0,
    )
    return tmp_path / "model.onnx"


def test_external_data_are_found_beside_the_file(path, tmp_path, monkeypatch):
    assert (tmp_path / "weights.bin").stat().st_size > 800
    monkeypatch.chdir("/")
    models.assert_trace(es.record(path, LAYER.arrays["X"]), LAYER.expected("enc"))


def test_external_data_that_are_missing_or_cut_off(path, tmp_path):
    data = tmp_path / "weights.bin"
    data.write_bytes(data.read_bytes()[:100])
    with pytest.raises((WeightsError, UnsupportedModelError), match=r"model\.onnx"):
        es.record(path, LAYER.arrays["X"])
    data.unlink()
    with pytest.raises((WeightsError, UnsupportedModelError), match=r"model\.onnx"):
        es.record(path, LAYER.arrays["X"])


def test_external_data_outside_of_the_folder_are_not_read(path, tmp_path):
    secret = tmp_path.parent / "weights.bin"
    secret.write_bytes((tmp_path / "weights.bin").read_bytes())
    proto = onnx.load(path, load_external_data=False)
    for tensor in proto.graph.initializer:
        for entry in tensor.external_data:
            if entry.key == "location":
                entry.value = "../weights.bin"
    path.write_bytes(proto.SerializeToString())
    with pytest.raises((WeightsError, UnsupportedModelError)):
        es.record(path, LAYER.arrays["X"])


def test_weights_may_be_inputs_constants_or_computed():
    arrays = LAYER.arrays
    constant = helper.make_node(
        "Constant", [], ["R"], value=numpy_helper.from_array(arrays["R"], "R")
    )
    halves = np.split(arrays["B"], 2, axis=1)
    concat = helper.make_node("Concat", ["b_0", "b_1"], ["B"], axis=1)
    proto = models.model(
        [constant, concat, LAYER.proto()],
        [models.value("X", arrays["X"].shape), models.value("W", arrays["W"].shape)],
        [models.value("Y", None)],
        {"b_0": halves[0], "b_1": halves[1]},
    )
    feeds = {"X": arrays["X"], "W": arrays["W"]}
    models.assert_trace(es.record(proto, feeds), LAYER.expected("enc"))


def test_weights_stored_in_eight_bits_and_scaled_back_are_ordinary_weights():
    arrays = dict(LAYER.arrays)
    scale = np.float32(0.03125)
    whole = {n: np.clip(np.round(arrays[n] / scale), -127, 127).astype("i1") for n in ("W", "R")}
    nodes = [helper.make_node("DequantizeLinear", [f"{n}_q", "scale"], [n]) for n in whole]
    proto = models.model(
        [*nodes, LAYER.proto()],
        [models.value("X", arrays["X"].shape)],
        [models.value("Y", None)],
        {**{f"{n}_q": a for n, a in whole.items()}, "scale": scale, "B": arrays["B"]},
    )
    trace = es.record(proto, arrays["X"])
    part = LAYER.parts[0]
    gates = {}
    for k, name in enumerate("iofg"):
        rows = slice(k * cases.U, (k + 1) * cases.U)
        W, R = (whole[n][0, rows].astype(float) * scale for n in ("W", "R"))
        gates[name] = models.replace(part.gates[name], W=W, R=R)
    quantised = models.replace(LAYER, parts=(part.with_(gates=gates),))
    models.assert_trace(trace, quantised.expected("enc"))


def test_functions_of_the_model_are_looked_into():
    function = helper.make_function(
        "own",
        "Encoder",
        ["X", "W", "R", "B"],
        ["Y"],
        [LAYER.proto(outputs=["Y"])],
        [helper.make_opsetid("", models.OPSET)],
    )
    arrays = LAYER.arrays
    proto = models.model(
        [helper.make_node("Encoder", ["x", "W", "R", "B"], ["y"], domain="own")],
        [models.value("x", arrays["X"].shape)],
        [models.value("y", None)],
        {n: arrays[n] for n in ("W", "R", "B")},
        functions=[function],
        opset_imports=[helper.make_opsetid("", models.OPSET), helper.make_opsetid("own", 1)],
    )
    models.assert_trace(es.record(proto, arrays["X"]), LAYER.expected("enc"))


def test_an_exported_model_of_pytorch_has_the_same_paths_and_states(tmp_path):
    torch = importorskip("torch")

    class Encoder(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.lstm = torch.nn.LSTM(4, 5, num_layers=2, bidirectional=True, batch_first=True)

        def forward(self, x):
            return self.lstm(x)[0]

    class Model(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.encoder, self.gru = Encoder(), torch.nn.GRU(10, 3, batch_first=True)

        def forward(self, x):
            return self.gru(self.encoder(x))[0]

    torch.manual_seed(0)
    model, x = Model().eval(), torch.randn(3, 7, 4)
    exporter = importorskip("torch.onnx")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter's own, of which there are many
        exporter.export(model, (x,), str(tmp_path / "model.onnx"), dynamo=False)
    ours, theirs = es.record(tmp_path / "model.onnx", x), es.record(model, x)
    assert [leaf.path for leaf in ours.leaves] == [leaf.path for leaf in theirs.leaves]
    for leaf in theirs.leaves:
        for name, variable in leaf.data_vars.items():
            np.testing.assert_allclose(ours[leaf.path][name], variable, atol=2e-6)


def two_nodes(first, second, shared=False):
    a = models.node("gru", name=first, left_out=["initial_h"])
    b = models.replace(a, name=second)
    tensors = {f"{p}{r}": v for p in ("a.", "b.") for r, v in a.arrays.items() if r != "X"}
    nodes = [a.proto("a.", ["", "a.Y_h"]), b.proto("b.", ["", "b.Y_h"])]
    for node in nodes:
        node.input[0] = "X"
    if shared:
        nodes[1].input[1:] = nodes[0].input[1:]
    return models.model(
        nodes,
        [models.value("X", a.arrays["X"].shape)],
        [models.value("a.Y_h", None), models.value("b.Y_h", None)],
        tensors,
    )


@pytest.mark.parametrize(
    ("names", "shared", "layers"),
    [
        (("/enc/gru/GRU", "/enc/gru/GRU_1"), False, ["enc/gru/layer_0", "enc/gru/layer_1"]),
        (("/enc/gru/GRU", "/enc/gru/GRU_1"), True, ["enc/gru"]),
        (("", ""), False, ["gru", "gru_1"]),
        (("GRU__7", "GRU__12"), False, ["gru", "gru_1"]),
        (("/GRU", "/GRU_1"), False, ["gru/layer_0", "gru/layer_1"]),  # the model is the layer
        (("a.b", "a/b"), False, ["a/b/layer_0", "a/b/layer_1"]),
        (("a<b>: c", "../x"), False, ["a_b_c", "x"]),
    ],
)
def test_names_are_made_readable_and_unique(names, shared, layers):
    proto = two_nodes(*names, shared=shared)
    assert framework.layers(proto) == layers
    trace = es.record(proto, np.ones((cases.T, cases.B, cases.D)))
    found = [leaf.path.strip("/") for leaf in trace.leaves]
    assert found == ([f"{layers[0]}/call_0", f"{layers[0]}/call_1"] if shared else layers)


@pytest.mark.parametrize(
    ("scopes", "layers"),
    [
        ("['', 'encoder', 'encoder.gru', 'gru']", ["encoder/gru/layer_0", "encoder/gru/layer_1"]),
        ("['', 'gru']", ["gru/layer_0", "gru/layer_1"]),
        ("nonsense", ["gru", "gru_1"]),
    ],
)
def test_modules_that_pytorchs_newer_exporter_notes(scopes, layers):
    proto = two_nodes("node_GRU_3", "node_GRU_7")
    for node in proto.graph.node:
        entry = node.metadata_props.add()
        entry.key, entry.value = "pkg.torch.onnx.name_scopes", scopes
    assert framework.layers(proto) == layers


def test_a_stream_is_one_sequence():
    layer = models.node("lstm")
    proto = models.model_of(layer)
    proto.graph.input[0].CopyFrom(models.value("X", [None, cases.B, cases.D]))
    x, states = layer.arrays["X"], [layer.arrays[f"initial_{s}"] for s in "hc"]
    with es.recording(proto, along="time") as recorder:
        for chunk in np.split(x, [2, 3]):
            _, *states = recorder.run(chunk, *states).values()
    models.assert_trace(recorder.trace, layer.expected())
    with pytest.raises(NothingRecordedError, match="the block is over"):
        recorder.run(x, *states)


def test_a_stream_whose_state_is_dropped_is_told():
    layer = models.node("lstm")
    feeds = models.feeds_of(layer)
    with es.recording(models.model_of(layer), along="time") as recorder:
        recorder.run(feeds)
        recorder.run(feeds)
    with pytest.warns(EverystateWarning, match="do not start from the state"):
        assert recorder.trace["lstm"].attrs["state_resets"] == "7"


def test_an_exception_in_the_block_keeps_what_was_recorded():
    layer = models.node("gru")
    proto = models.model_of(layer)
    with contextlib.suppress(KeyboardInterrupt), es.recording(proto) as recorder:
        recorder.run(models.feeds_of(layer))
        raise KeyboardInterrupt
    models.assert_trace(recorder.trace, layer.expected())


class TestBadFiles:
    @pytest.mark.parametrize("content", [b"", b"no model at all", b"\x08\x0a", b"\x00" * 64])
    def test_something_else(self, tmp_path, content):
        (tmp_path / "model.onnx").write_bytes(content)
        with pytest.raises(WeightsError, match=r"model\.onnx"):
            es.record(tmp_path / "model.onnx", np.ones(3))

    def test_a_file_that_is_cut_off(self, tmp_path):
        data = models.model_of(LAYER).SerializeToString()
        for size in range(20, len(data), 97):
            (tmp_path / "model.onnx").write_bytes(data[:size])
            with pytest.raises((WeightsError, UnsupportedModelError)):
                es.record(tmp_path / "model.onnx", LAYER.arrays["X"])

    def test_no_file(self, tmp_path):
        with pytest.raises(InputError, match="there is no such file"):
            es.record(tmp_path / "model.onnx", np.ones(3))
        (tmp_path / "model.onnx").mkdir()
        with pytest.raises(InputError, match="a folder, expected a file"):
            es.record(tmp_path / "model.onnx", np.ones(3))

    def test_an_operator_of_another_domain_goes_by_its_full_name(self):
        proto = models.model_of(LAYER)
        proto.graph.node[0].domain = "elsewhere"
        with pytest.raises(UnsupportedModelError, match=r"it is made of elsewhere\.LSTM"):
            es.record(proto, LAYER.arrays["X"])

    def test_nothing_recurrent(self):
        node = helper.make_node("Relu", ["x"], ["y"])
        proto = models.model([node], [models.value("x", [2])], [models.value("y", [2])])
        with pytest.raises(UnsupportedModelError, match="no recurrent node; it is made of Relu"):
            es.record(proto, np.ones(2))

    def test_what_onnxruntime_does_not_take(self):
        proto = models.model_of(LAYER)
        proto.graph.node.append(helper.make_node("Unheard", ["Y"], ["z"], domain="elsewhere"))
        proto.opset_import.append(helper.make_opsetid("elsewhere", 1))
        with pytest.raises(UnsupportedModelError, match=r"does not take this model: .*elsewhere"):
            es.record(proto, LAYER.arrays["X"])

    @pytest.mark.parametrize(
        ("attributes", "message"),
        [
            ({"direction": "sideways"}, "direction='sideways', expected one of forward"),
            ({"activations": ["Sigmoid", "Tanh", "Swish"]}, "the activation 'Swish'"),
            ({"activations": ["Sigmoid"]}, "1 activations .* expected 3"),
        ],
    )
    def test_attributes_that_onnx_does_not_have(self, attributes, message):
        proto = models.model_of(LAYER)
        for name, value in attributes.items():
            kept = [a for a in proto.graph.node[0].attribute if a.name != name]
            del proto.graph.node[0].attribute[:]
            proto.graph.node[0].attribute.extend([*kept, helper.make_attribute(name, value)])
        with pytest.raises(UnsupportedModelError, match=f"enc: .*{message}|enc: {message}"):
            es.record(proto, LAYER.arrays["X"])


class TestBadInputs:
    def test_missing_unknown_and_too_many(self):
        layer = models.node("lstm")
        proto, feeds = models.model_of(layer), models.feeds_of(layer)
        with pytest.raises(
            InputError, match="the inputs initial_h, initial_c are missing; it takes: X"
        ):
            es.record(proto, feeds["X"])
        with pytest.raises(InputError, match="has no input Z; it takes: X"):
            es.record(proto, {**feeds, "Z": feeds["X"]})
        with pytest.raises(InputError, match="got 4 inputs, the model takes: X"):
            es.record(proto, *feeds.values(), feeds["X"])

    def test_shape(self, path):
        with pytest.raises(InputError, match=r"has shape \(7, 4\), expected \(time, batch, 4\)"):
            es.record(path, np.ones((7, 4)))
        with pytest.raises(InputError, match=r"has shape \(7, 3, 5\), expected"):
            es.record(path, np.ones((7, 3, 5)))
        with pytest.raises(InputError, match="it is empty"):
            es.record(path, np.ones((0, 3, 4)))

    def test_dtype(self, path):
        with pytest.raises(InputTypeError, match="has dtype complex128, expected float32"):
            es.record(path, np.ones((7, 3, 4), complex))
        with pytest.raises(InputTypeError, match="the input X"):
            es.record(path, np.full((7, 3, 4), "text"))
        with pytest.raises(InputTypeError, match="the input X"):
            es.record(path, [[1.0], [2.0, 3.0]])

    def test_what_is_no_array(self, path):
        with pytest.raises(InputTypeError, match=r"X is 'x.npy', expected an array.*numpy.load"):
            es.record(path, "x.npy")
        with pytest.raises(InputTypeError, match="X is None, expected an array"):
            es.record(path, None)

    def test_floats_where_whole_numbers_are_due(self):
        layer = models.node("gru", lengths=np.array([4, 7, 2]))
        feeds = models.feeds_of(layer) | {"sequence_lens": np.array([4.0, 7.0, 2.5])}
        with pytest.raises(InputTypeError, match="sequence_lens has dtype float64, expected int32"):
            es.record(models.model_of(layer), feeds)

    def test_lengths_beyond_the_sequence_are_onnxruntimes_to_refuse(self):
        layer = models.node("gru", lengths=np.array([4, 8, 2]))
        with pytest.raises(InputError, match="onnxruntime failed"):
            es.record(models.model_of(layer), models.feeds_of(layer))

    def test_numbers_of_another_precision_are_cast(self, path):
        x = LAYER.arrays["X"]
        models.assert_trace(es.record(path, x.astype(np.float64)), LAYER.expected("enc"))

    def test_unknown_layer(self, path):
        with pytest.raises(UnknownLayerError, match="enc"):
            es.record(path, LAYER.arrays["X"], select=es.Select("dec"))

    def test_unroll(self):
        with pytest.raises(UnsupportedModelError, match=r"es\.record\(model, inputs\)"):
            es.unroll(models.model_of(LAYER), LAYER.arrays["X"])


def test_nan_in_the_input_is_recorded_and_told():
    x = LAYER.arrays["X"].copy()
    x[3, 1, 0] = np.nan
    told = "enc: NaN or infinite values in its input"
    with pytest.warns(EverystateWarning, match=told) as caught:
        trace = es.record(models.model_of(LAYER), x)
    [message] = [str(warning.message) for warning in caught]
    unverified = trace["enc"].attrs["unverified_values"]
    assert unverified > 0
    assert np.isfinite(trace["enc"].h).all()  # the kernel swallowed the NaN
    assert f"{unverified} of the kernel's own values could not be verified" in message
    assert "recorded as they are" not in message
    c = trace["enc"].c.values
    assert np.isnan(c).any(axis=-1).tolist() == [[False] * 7, [False] * 3 + [True] * 4, [False] * 7]


def test_half_precision_is_verified_by_its_rounding():
    proto = models.model_of(LAYER)
    for k, tensor in enumerate(proto.graph.initializer):
        half = numpy_helper.to_array(tensor).astype(np.float16)
        proto.graph.initializer[k].CopyFrom(numpy_helper.from_array(half, tensor.name))
    for described in (*proto.graph.input, *proto.graph.output):
        described.type.tensor_type.elem_type = onnx.TensorProto.FLOAT16
    trace = es.record(proto, LAYER.arrays["X"])
    assert trace["enc"].attrs["precision"] == "float16"
    for name, array in LAYER.expected("enc")["enc"].items():
        np.testing.assert_allclose(trace["enc"][name].values, array, atol=0.01)


def test_models_of_the_days_when_every_tensor_was_an_input():
    proto = models.model_of(LAYER)
    proto.ir_version = 3
    proto.opset_import[0].version = 7
    stored = {t.name: numpy_helper.to_array(t) for t in proto.graph.initializer}
    proto.graph.input.extend(models.value(name, a.shape) for name, a in stored.items())
    models.assert_trace(es.record(proto, LAYER.arrays["X"]), LAYER.expected("enc"))
