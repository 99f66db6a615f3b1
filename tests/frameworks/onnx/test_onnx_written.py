"""Cells that an exporter wrote out as single operators: unrolled, or one step in a loop's body."""

import contextlib
import io
import warnings

import numpy as np
import pytest

import mutations
from everystate.testing import importorskip

onnx = importorskip("onnx")
importorskip("onnxruntime")

from onnx import helper

import cases
import everystate as es
import onnx_models as models
from everystate.errors import EverystateWarning, UncuttableError, UnsupportedModelError
from everystate.frameworks import onnx as framework
from everystate.frameworks.onnx import stream
from onnx_models import recorded as run

T, B, D, U = cases.T, cases.B, cases.D, cases.U
CELLS = {"lstm": "LSTM", "apart": "LSTM", "gru": "GRU", "rnn": "SimpleRNN"}


class Writer:
    """Writes steps of a cell as exporters do; values are called after the nodes."""

    def __init__(self, prefix=""):
        self.prefix, self.nodes, self.tensors = prefix, [], {}

    def __call__(self, op, *inputs, outputs=1, **attributes):
        name = f"{self.prefix}/{op}_{len(self.nodes)}"
        made = [f"{name}:{k}" for k in range(outputs)]
        self.nodes.append(helper.make_node(op, inputs, made, name=name, **attributes))
        return made[0] if outputs == 1 else made

    def number(self, value):
        name = f"number {value}"
        self.tensors[name] = np.array([value]) if isinstance(value, int) else np.float32(value)
        return name

    def lstm(self, x, h, c, W="W", R="R", *, sliced=False):
        """One step as PyTorch's exporters write ``LSTMCell``; gates in ONNX's order, i o f g."""
        a = self("Gemm", h, R, f"b{R}", transB=1)
        a = self("Add", a, self("Gemm", x, W, f"b{W}", transB=1))
        if sliced:
            ends = [self.number(k * U) for k in range(5)]
            parts = [self("Slice", a, ends[k], ends[k + 1], self.number(1)) for k in range(4)]
        else:
            parts = self("Split", a, outputs=4, axis=1, num_outputs=4)
        return self.exposed(*parts, c)

    def apart(self, x, h, c):
        """One step with matrices of their own for each gate."""
        parts = []
        for k in range(4):
            a = self("Add", self("MatMul", x, f"W{k}"), self("MatMul", h, f"R{k}"))
            parts.append(self("Add", a, f"b{k}"))
        return self.exposed(*parts, c)

    def exposed(self, i, o, f, g, c):
        """The states after a step, from what goes into its activations."""
        i, o, f = (self("Sigmoid", gate) for gate in (i, o, f))
        g = self("Tanh", g)
        c = self("Add", self("Mul", f, c), self("Mul", i, g))
        return self("Mul", o, self("Tanh", c)), c

    def gru(self, x, h, W="W", R="R", *, blended=True, product=""):
        """One step, reset after; z r n. PyTorch's ``z * (h - n) + n``, or as in the paper."""
        x = self("Split", self("Gemm", x, W, f"b{W}", transB=1), outputs=3, axis=1, num_outputs=3)
        product = product or self("Gemm", h, R, f"b{R}", transB=1)
        a = self("Split", product, outputs=3, axis=1, num_outputs=3)
        z, r = (self("Sigmoid", self("Add", a[k], x[k])) for k in (0, 1))
        n = self("Tanh", self("Add", x[2], self("Mul", a[2], r)))
        if blended:
            return self("Add", self("Mul", self("Sub", h, n), z), n)
        rest = self("Sub", self.number(1.0), z)
        return self("Add", self("Mul", z, h), self("Mul", rest, n))

    def rnn(self, x, h, W="W", R="R"):
        """One step of a simple RNN, by products of matrices that are turned already."""
        a = self("Add", self("MatMul", h, R), self("MatMul", x, W))
        return self("Tanh", self("Add", a, f"b{W}"))


def stored(layer, prefix="", turned=False):
    """The weights of a layer by the names that `Writer` uses."""
    arrays = layer.arrays
    W, R, (b_W, b_R) = arrays["W"][0], arrays["R"][0], np.split(arrays["B"][0], 2)
    found = {"W": W, "R": R, "bW": b_W, "bR": b_R}
    if turned:
        found = {"W": W.T, "R": R.T, "bW": b_W + b_R}
    return {f"{name[:-1]}{prefix}{name[-1]}": np.ascontiguousarray(a) for name, a in found.items()}


def stored_apart(layer):
    """The weights of an LSTM, each gate's by themselves."""
    arrays, found = layer.arrays, {}
    for k in range(4):
        rows = slice(k * U, (k + 1) * U)
        found |= {f"{n}{k}": np.ascontiguousarray(arrays[n][0, rows].T) for n in ("W", "R")}
        found[f"b{k}"] = sum(b[rows] for b in np.split(arrays["B"][0], 2))
    return found


def unrolled(family, layer, *, order=range(T), **options):
    """A model of all steps, one after the other; the initial states are inputs."""
    write = Writer("/model/cell")
    is_lstm = family in ("lstm", "apart")
    states = [f"{s}_0" for s in ("h", "c")[: 2 if is_lstm else 1]]
    inputs = [models.value("x", [T, B, D]), *(models.value(s, [B, U]) for s in states)]
    for t in order:
        x = write("Gather", "x", write.number(t), axis=0)
        x = write("Squeeze", x, write.number(0))
        found = getattr(write, family)(x, *states, **options)
        states = list(found) if is_lstm else [found]
    weights = stored_apart(layer) if family == "apart" else stored(layer, turned=family == "rnn")
    tensors = {**weights, **write.tensors}
    proto = models.model(write.nodes, inputs, [models.value(states[0], None)], tensors)
    arrays = layer.arrays
    feeds = {"x": arrays["X"], "h_0": arrays["initial_h"][0]}
    return proto, feeds | ({"c_0": arrays["initial_c"][0]} if is_lstm else {})


@pytest.mark.parametrize(
    ("family", "layer", "options"),
    [
        ("lstm", models.node("lstm"), {}),
        ("lstm", models.node("lstm"), {"sliced": True}),
        ("apart", models.node("lstm"), {}),
        ("gru", models.node("gru", reset="after", attributes={"linear_before_reset": 1}), {}),
        ("gru", models.node("gru", reset="after"), {"blended": False}),
        ("rnn", models.node("simple_rnn"), {}),
    ],
)
def test_steps_written_out_are_a_layer(family, layer, options):
    proto, feeds = unrolled(family, layer, **options)
    assert framework.layers(proto) == ["model/cell"]
    trace = run(proto, feeds)
    expected = layer.expected("model/cell")
    models.assert_trace(trace, expected)
    leaf = trace["model/cell"]
    assert leaf.attrs["cell"] == CELLS[family]
    assert all(leaf[name].attrs["origin"] == "observed" for name in leaf.data_vars)
    arrays = {n: a.swapaxes(0, 1) for n, a in expected["model/cell"].items() if a.ndim == 3}
    for fault, values in mutations.of_values(arrays):
        wrong = {n: a.swapaxes(0, 1) for n, a in values.items()}
        with mutations.must_be_noticed(fault):
            models.assert_trace(trace, {"model/cell": {**expected["model/cell"], **wrong}}, 1e-4)


def test_steps_that_read_from_the_end_are_a_layer_backwards():
    layer = models.node("lstm", direction="reverse")
    proto, feeds = unrolled("lstm", layer, order=range(T)[::-1])
    trace = run(proto, feeds)
    models.assert_trace(trace, layer.expected("model/cell"))
    assert trace["model/cell"].attrs["direction"] == "backward"


def folded():
    """A simple RNN that begins with zeros, whose first product with them was left out."""
    layer = models.node("simple_rnn", left_out=["initial_h"])
    write, h = Writer("/rnn"), ""
    for t in range(T):
        x = write("Squeeze", write("Gather", "x", write.number(t), axis=0), write.number(0))
        h = write.rnn(x, h) if t else write("Tanh", write("Add", write("MatMul", x, "W"), "bW"))
    tensors = {**stored(layer, turned=True), **write.tensors}
    inputs = [models.value("x", [T, B, D])]
    proto = models.model(write.nodes, inputs, [models.value(h, None)], tensors)
    return layer, proto, {"x": layer.arrays["X"]}


def test_a_first_step_whose_product_with_zeros_was_folded():
    layer, proto, feeds = folded()
    (expected,) = layer.expected().values()
    models.assert_trace(run(proto, feeds), {"rnn": {"h": expected["h"]}})


def test_a_gru_whose_first_products_with_zeros_were_folded():
    layer = models.node("gru", reset="after", left_out=["initial_h"])
    proto, feeds = unrolled_from_zeros(layer)
    models.assert_trace(run(proto, feeds), layer.expected("model/cell"))


def unrolled_from_zeros(layer):
    """A GRU whose first step has its bias in place of the product with a state of zeros."""
    write, h = Writer("/model/cell"), "zeros"
    for t in range(T):
        x = write("Squeeze", write("Gather", "x", write.number(t), axis=0), write.number(0))
        h = write.gru(x, h, blended=False, product="" if t else "folded")
    tensors = {**stored(layer), **write.tensors, "zeros": np.zeros((B, U), "f")}
    tensors["folded"] = np.tile(tensors["bR"], (B, 1))
    inputs = [models.value("x", [T, B, D])]
    proto = models.model(write.nodes, inputs, [models.value(h, None)], tensors)
    return proto, {"x": layer.arrays["X"]}


def test_steps_without_their_first_are_no_layer():
    """One that has no ``f * c``, because c is zero, is not recognised; times would be wrong."""
    layer = models.node("lstm")
    write = Writer("/cell")
    x = [
        write("Squeeze", write("Gather", "x", write.number(t), axis=0), write.number(0))
        for t in range(T)
    ]
    i, o, _, g = write(
        "Split", write("Gemm", x[0], "W", "bW", transB=1), outputs=4, axis=1, num_outputs=4
    )
    c = write("Mul", write("Sigmoid", i), write("Tanh", g))
    h = write("Mul", write("Sigmoid", o), write("Tanh", c))
    for x_t in x[1:]:
        h, c = write.lstm(x_t, h, c)
    proto = models.model(
        write.nodes,
        [models.value("x", [T, B, D])],
        [models.value(h, None)],
        {**stored(layer), **write.tensors},
    )
    with pytest.raises(UnsupportedModelError, match="no recurrent node"):
        framework.layers(proto)


def test_quantised_products_are_products(tmp_path):
    quantization = importorskip("onnxruntime.quantization")
    _, proto, feeds = folded()
    onnx.save(proto, tmp_path / "float.onnx")
    quantization.quantize_dynamic(tmp_path / "float.onnx", tmp_path / "model.onnx")
    quantised = onnx.load(tmp_path / "model.onnx")
    assert "MatMulInteger" in {node.op_type for node in quantised.graph.node}
    (leaf,) = run(quantised, feeds).leaves
    (last,) = models.plain(quantised, feeds).values()
    assert leaf.sizes["time"] == T
    np.testing.assert_array_equal(leaf.h.isel(time=-1), last)


def test_two_layers_of_one_module_each_read_the_one_below():
    first = models.node("lstm")
    second = models.node("lstm", seed=5, sizes=(T, B, U, U))
    write = Writer("/enc")
    state, other = ("h_0", "c_0"), ("h_1", "c_1")
    for t in range(T):
        x = write("Squeeze", write("Gather", "x", write.number(t), axis=0), write.number(0))
        state = write.lstm(x, *state)
        other = write.lstm(state[0], *other, W="2W", R="2R")
    proto = models.model(
        write.nodes,
        [
            models.value("x", [T, B, D]),
            *(models.value(f"{s}_{k}", [B, U]) for k in (0, 1) for s in "hc"),
        ],
        [models.value(other[0], None)],
        {**stored(first), **stored(second, "2"), **write.tensors},
    )
    feeds = {"x": first.arrays["X"]}
    for k, layer in enumerate((first, second)):
        feeds |= {f"{s}_{k}": layer.arrays[f"initial_{s}"][0] for s in "hc"}
    below = first.expected("enc/layer_0")
    x = below["enc/layer_0"]["h"].swapaxes(0, 1)
    above = models.replace(second, parts=(second.parts[0].with_(x=x),))
    models.assert_trace(run(proto, feeds), {**below, **above.expected("enc/layer_1")})


def test_a_decoder_that_begins_with_the_encoders_state_is_another_layer():
    encoder, decoder = models.node("gru", reset="after"), models.node("gru", seed=3, reset="after")
    write = Writer()
    h = "h_0"
    x = [
        write("Squeeze", write("Gather", "x", write.number(t), axis=0), write.number(0))
        for t in range(T)
    ]
    for t in range(T):
        h = write.gru(x[t], h)
    for t in range(T):
        h = write.gru(x[t], h, W="2W", R="2R")
    proto = models.model(
        write.nodes,
        [models.value("x", [T, B, D]), models.value("h_0", [B, U])],
        [models.value(h, None)],
        {**stored(encoder), **stored(decoder, "2"), **write.tensors},
    )
    first = encoder.expected("gru")
    begun = {"h": first["gru"]["h"][:, -1]}
    part = decoder.parts[0].with_(x=encoder.parts[0].x, initial=begun)
    second = models.replace(decoder, parts=(part,)).expected("gru_1")
    feeds = {"x": encoder.arrays["X"], "h_0": encoder.arrays["initial_h"][0]}
    models.assert_trace(run(proto, feeds), {**first, **second})


def stepped():
    """A model of one step of an LSTM, whose state comes in and goes out as one array."""
    layer = models.node("lstm")
    write = Writer("/decoder/rnn")
    h, c = (
        write("Squeeze", write("Gather", "state", write.number(k), axis=0), write.number(0))
        for k in (0, 1)
    )
    after = [write("Unsqueeze", v, write.number(0)) for v in write.lstm("x", h, c)]
    write.nodes.append(helper.make_node("Concat", after, ["state_n"], axis=0))
    proto = models.model(
        write.nodes,
        [models.value("x", [B, D]), models.value("state", [2, B, U])],
        [models.value("state_n", None)],
        {**stored(layer), **write.tensors},
    )
    return layer, proto


def test_single_steps_of_a_stream_are_one_sequence():
    layer, proto = stepped()
    arrays = layer.arrays
    state = np.concatenate([arrays["initial_h"], arrays["initial_c"]])
    with es.recording(proto, along="time") as recorder:
        for x in arrays["X"]:
            state = recorder.run({"x": x, "state": state})["state_n"]
    models.assert_trace(recorder.trace, layer.expected("decoder/rnn"))
    assert "state_resets" not in recorder.trace["decoder/rnn"].attrs


def test_steps_written_out_are_not_cut_in_time():
    proto, feeds = unrolled("lstm", models.node("lstm"))
    with pytest.raises(UncuttableError, match=r"model/cell is written out, step by step"):
        stream(proto).step(feeds["x"], None)


def chosen(write, new, old, how):
    """The new state where the mask says so; ``sum`` as TensorFlow's converter writes it."""
    way, _, turned = how.partition(" ")
    kept = write("Not", write("Reshape", "m", "rows"))
    taken = write("Not", kept) if turned else "m"
    if way == "where":
        return write("Where", kept, old, new) if turned else write("Where", "m", new, old)
    taken, kept = (write("Cast", c, to=onnx.TensorProto.FLOAT) for c in (taken, kept))
    return write("Add", write("Mul", old, kept), write("Mul", taken, new))


def gru_in_loop(layer, *, more=False, mask=None, how=""):
    """A Loop over the steps of a GRU, its state carried; beside a sum, or its last output."""
    write = Writer("model/gru/while/gru_cell")
    state = "model_gru_while_placeholder_2:0"
    x = write("Gather", "x", "i", axis=0)
    h = new = write.gru(x, state, blended=False)
    carried = {}
    if mask is not None:
        write.nodes.append(helper.make_node("Gather", ["mask", "i"], ["m"], axis=0))
        h, carried["out"] = chosen(write, new, state, how), chosen(write, new, "out", how)
    if more:
        carried["sum"] = write("Add", "sum", h)
    carried[state] = h
    nodes = [*write.nodes, helper.make_node("Identity", ["go"], ["go_on"])]
    body = helper.make_graph(
        nodes,
        "body",
        [
            models.value("i", [], "l"),
            models.value("go", [], "?"),
            *(models.value(name, [B, U]) for name in carried),
        ],
        [models.value("go_on", [], "?"), *(models.value(v, [B, U]) for v in carried.values())],
    )
    loop = helper.make_node(
        "Loop",
        ["trips", "", *["h_0"] * len(carried)],
        [f"{name}_n" for name in carried],
        body=body,
        name="model/gru/while_loop",
    )
    tensors = {**stored(layer), **write.tensors, "trips": np.array(T)}
    if mask is not None:
        tensors |= {"mask": mask[..., None], "rows": np.array([-1, 1])}
    inputs = [models.value("x", [T, B, D]), models.value("h_0", [B, U])]
    proto = models.model([loop], inputs, [models.value(f"{state}_n", None)], tensors)
    return proto, {"x": layer.arrays["X"], "h_0": layer.arrays["initial_h"][0]}


@pytest.mark.parametrize("how", ["where", "sum", "where turned", "sum turned"])
def test_a_mask_skips_steps_of_a_row(how):
    layer = models.node("gru", reset="after")
    mask = np.random.default_rng(2).random((T, B)) < 0.6
    proto, feeds = gru_in_loop(layer, mask=mask, how=how)
    trace = run(proto, feeds)
    h = layer.arrays["initial_h"][0].astype(float)
    expected = {name: np.full((B, T, U), np.nan) for name in "hrzn"}
    for row in range(B):
        taken = np.flatnonzero(mask[:, row])
        part = layer.parts[0].with_(x=layer.parts[0].x[taken])
        steps = models.replace(layer, parts=(part,)).expected("gru")["gru"]
        for name in "hrzn":
            expected[name][row, taken] = steps[name][row]
        for t in np.flatnonzero(~mask[:, row]):
            expected["h"][row, t] = expected["h"][row, t - 1] if t else h[row]
    models.assert_trace(trace, {"model/gru": {**expected, "initial_h": h}})
    assert trace["model/gru"].attrs["skipped_steps"] == int((~mask).sum())
    wrong = {**expected, "h": np.where(mask.T[..., None], expected["h"], np.nan)}
    with mutations.must_be_noticed("states of skipped steps that are not carried over"):
        models.assert_trace(trace, {"model/gru": {**wrong, "initial_h": h}})


def test_a_cell_in_a_loop_shows_its_gates_in_place_of_what_is_carried():
    layer = models.node("gru", reset="after")
    proto, feeds = gru_in_loop(layer)
    models.assert_trace(run(proto, feeds), layer.expected("model/gru"))


@pytest.mark.parametrize("features", [D, 4 * U])
def test_a_simple_rnn_in_a_loop_whatever_its_sizes(features):
    """Four times as many columns as rows has the state's matrix of an LSTM alone."""
    layer = models.node("simple_rnn", sizes=(T, B, features, U))
    write = Writer("model/rnn/while/cell")
    h = write.rnn(write("Gather", "x", "i", axis=0), "h_in")
    body = helper.make_graph(
        [*write.nodes, helper.make_node("Identity", ["go"], ["go_on"])],
        "body",
        [models.value("i", [], "l"), models.value("go", [], "?"), models.value("h_in", [B, U])],
        [models.value("go_on", [], "?"), models.value(h, [B, U])],
    )
    name = "model/rnn/while_loop"
    loop = helper.make_node("Loop", ["trips", "", "h_0"], ["h_n"], body=body, name=name)
    tensors = {**stored(layer, turned=True), **write.tensors, "trips": np.array(T)}
    inputs = [models.value("x", [T, B, features]), models.value("h_0", [B, U])]
    proto = models.model([loop], inputs, [models.value("h_n", None)], tensors)
    feeds = {"x": layer.arrays["X"], "h_0": layer.arrays["initial_h"][0]}
    models.assert_trace(run(proto, feeds), layer.expected("model/rnn"))


def test_a_state_that_becomes_nan_is_gone_on_with():
    layer = models.node("gru", reset="after")
    proto, feeds = gru_in_loop(layer)
    (path,) = expected = layer.expected("model/gru")
    feeds["x"] = feeds["x"].copy()
    feeds["x"][2, 1] = np.nan
    for name in "hrzn":
        expected[path][name][1, 2:] = np.nan
    with pytest.warns(EverystateWarning, match="NaN or infinite values in h, r, z, n"):
        models.assert_trace(run(proto, feeds), expected)


def test_a_list_that_a_loop_appends_to_is_no_state():
    """PyTorch's older exporter: what a scripted loop returns of each step is put into a list."""
    layer = models.node("gru", reset="after")
    proto, feeds = gru_in_loop(layer)
    (loop,) = proto.graph.node
    body = next(a.g for a in loop.attribute if a.name == "body")
    state = body.output[1].name
    body.node.append(helper.make_node("SequenceInsert", ["list", state], ["longer"]))
    for values, name in ((body.input, "list"), (body.output, "longer")):
        values.append(helper.make_tensor_sequence_value_info(name, onnx.TensorProto.FLOAT, None))
    loop.input.append("empty")
    loop.output.append("listed")
    loop.name = "/Loop"
    proto.graph.node.insert(0, helper.make_node("SequenceEmpty", [], ["empty"]))
    together = helper.make_node("ConcatFromSequence", ["listed"], ["y"], axis=0, new_axis=1)
    proto.graph.node.append(together)
    proto.graph.output.append(models.value("y", None))
    models.assert_trace(run(proto, feeds), layer.expected("model/gru/gru_cell"))


def test_a_loop_that_carries_more_than_a_cells_state_is_shown_beside_the_cell():
    layer = models.node("gru", reset="after")
    proto, feeds = gru_in_loop(layer, more=True)
    trace = run(proto, feeds)
    assert [leaf.path for leaf in trace.leaves] == ["/model/gru/cell", "/model/gru/gru_cell"]
    cell = layer.expected("model/gru/gru_cell")
    shown = trace["model/gru/gru_cell"]
    models.assert_trace(type(trace).from_dict({shown.path: shown.to_dataset()}), cell)
    summed = cell["model/gru/gru_cell"]["h"].cumsum(axis=1) + feeds["h_0"][:, None]
    np.testing.assert_allclose(trace["model/gru/cell"]["sum"], summed, atol=1e-5)


def test_what_looks_like_a_cell_but_is_none():
    """Highway layers, ``t * g + (1 - t) * x``, and layers of tanh with weights of their own."""
    rng = np.random.default_rng(0)
    write, h = Writer(), "x"
    for k in range(3):
        t = write("Sigmoid", write("MatMul", h, f"T{k}"))
        g = write("Tanh", write("Add", write("MatMul", h, f"G{k}"), "b"))
        rest = write("Sub", write.number(1.0), t)
        h = write("Add", write("Mul", t, g), write("Mul", rest, h))
    for k in range(3):
        h = write("Tanh", write("Add", write("MatMul", h, f"L{k}"), "b"))
    tensors = {f"{n}{k}": rng.normal(size=(U, U)).astype("f") for n in "TGL" for k in range(3)}
    proto = models.model(
        write.nodes,
        [models.value("x", [B, U])],
        [models.value(h, None)],
        {**tensors, **write.tensors, "b": np.ones(U, "f")},
    )
    with pytest.raises(UnsupportedModelError, match="written out as single operators"):
        es.record(proto, np.ones((B, U)))


class TestPyTorchsExporters:
    """What both exporters make of models, against the recording of the model itself."""

    @pytest.fixture(params=[False, True], ids=["older", "newer"])
    def exported(self, request, tmp_path):
        torch = importorskip("torch")
        if request.param:
            importorskip("onnxscript")

        def make(model, *inputs):
            path = tmp_path / "model.onnx"
            quiet = (contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings())
            with quiet[0], quiet[1]:
                warnings.simplefilter("ignore")  # the exporter's own, of which there are many
                torch.onnx.export(model, inputs, str(path), dynamo=request.param, verbose=False)
            return path

        return make

    def compare(self, exported, model, *inputs, zeros=()):
        ours = es.record(exported(model, *inputs), *inputs)
        theirs = es.record(model, *inputs)
        found = [{leaf.path: leaf for leaf in trace.leaves} for trace in (ours, theirs)]
        assert sorted(found[0]) == sorted(found[1])
        for path, leaf in found[1].items():
            for name, variable in leaf.data_vars.items():
                if name in zeros and name not in found[0][path]:  # the newer one folds them
                    assert not variable.any()
                else:
                    np.testing.assert_allclose(found[0][path][name], variable, atol=2e-6)

    def test_a_loop_over_cells(self, exported):
        torch = importorskip("torch")

        class Model(torch.nn.Module):
            def __init__(self):
                super().__init__()
                self.one, self.two = torch.nn.LSTMCell(4, 5), torch.nn.GRUCell(5, 6)

            def forward(self, x, h, c, g):
                for x_t in x:
                    h, c = self.one(x_t, (h, c))
                    g = self.two(h, g)
                return g

        torch.manual_seed(0)
        states = (torch.randn(3, 5), torch.randn(3, 5), torch.randn(3, 6))
        self.compare(exported, Model().eval(), torch.randn(5, 3, 4), *states)

    def test_an_autoencoder_and_simple_rnns_both_ways(self, exported):
        torch = importorskip("torch")

        class Model(torch.nn.Module):
            def __init__(self):
                super().__init__()
                self.encoder = torch.nn.LSTM(4, 5, 2, batch_first=True)
                self.rnn = torch.nn.RNN(5, 3, 2, bidirectional=True, batch_first=True)
                self.decoder = torch.nn.GRU(6, 7, batch_first=True)
                self.out = torch.nn.Linear(7, 4)

            def forward(self, x):
                _, (h, _) = self.encoder(x)
                z, _ = self.rnn(h[-1][:, None].repeat(1, x.shape[1], 1))
                return self.out(self.decoder(z)[0])

        torch.manual_seed(0)
        model = Model().eval()
        self.compare(exported, model, torch.randn(2, 4, 4), zeros=["initial_h"])
