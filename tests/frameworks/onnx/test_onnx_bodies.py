"""Recurrent nodes inside ``If``, ``Loop`` and ``Scan``, and what ``Loop`` and ``Scan`` carry."""

import numpy as np
import pytest

import mutations
from everystate.testing import importorskip

onnx = importorskip("onnx")
importorskip("onnxruntime")

from onnx import TensorProto, helper

import cases
import everystate as es
import onnx_models as models
import oracles
from everystate.errors import EverystateWarning
from onnx_models import recorded as run

T, B, D, U = cases.T, cases.B, cases.D, cases.U


def minimal_gated_scan(backwards=False, names=("h_in", "n_in")):
    """A Scan that carries a minimal gated unit's h and a count of the steps, (1,)."""
    rng = np.random.default_rng(3)
    W, R = rng.normal(0, 0.8, (D, U)), rng.normal(0, 0.8, (U, U))
    tensors = {"W": W.astype("f"), "R": R.astype("f"), "one": np.ones(1, "f")}
    tensors |= {"h_0": rng.normal(0, 0.5, (B, U)).astype("f"), "n_0": np.zeros(1, "f")}
    h, n = names
    body = helper.make_graph(
        [
            helper.make_node("MatMul", ["x_t", "W"], ["a"]),
            helper.make_node("MatMul", [h, "R"], ["b"]),
            helper.make_node("Add", ["a", "b"], ["ab"]),
            helper.make_node("Sigmoid", ["ab"], ["f"]),
            helper.make_node("Tanh", ["a"], ["g"]),
            helper.make_node("Sub", ["g", h], ["d"]),
            helper.make_node("Mul", ["f", "d"], ["fd"]),
            helper.make_node("Add", [h, "fd"], ["h_out"]),
            helper.make_node("Add", [n, "one"], ["n_out"]),
            helper.make_node("Identity", ["h_out"], ["y_t"]),
        ],
        "body",
        [models.value(h, [B, U]), models.value(n, [1]), models.value("x_t", [B, D])],
        [models.value("h_out", [B, U]), models.value("n_out", [1]), models.value("y_t", [B, U])],
    )
    attributes = {"scan_input_directions": [1]} if backwards else {}
    node = helper.make_node(
        "Scan", ["h_0", "n_0", "x"], ["h_n", "n_n", "y"], body=body, num_scan_inputs=1, **attributes
    )
    proto = models.model(
        [node],
        [models.value("x", [T, B, D])],
        [models.value("y", None), models.value("h_n", None)],
        tensors,
    )
    x = rng.normal(size=(T, B, D)).astype("f")

    def step(x_t, h):
        f = oracles.sigmoid(x_t @ tensors["W"].astype(float) + h @ tensors["R"].astype(float))
        return h + f * (np.tanh(x_t @ tensors["W"].astype(float)) - h)

    states, state = [], tensors["h_0"].astype(float)
    for x_t in x.astype(float)[::-1] if backwards else x.astype(float):
        state = step(x_t, state)
        states.append(state)
    h = np.array(states[::-1] if backwards else states).swapaxes(0, 1)
    n = np.broadcast_to(np.arange(1.0, T + 1)[:, None], (B, T, 1))  # it has no batch
    expected = {
        "h_in": h,
        "n_in": n[:, ::-1] if backwards else n,
        "initial_h_in": tensors["h_0"],
        "initial_n_in": np.zeros((B, 1)),
    }
    return proto, {"x": x}, expected


@pytest.mark.parametrize("backwards", [False, True])
def test_scan_carries_values_from_step_to_step(backwards):
    proto, feeds, expected = minimal_gated_scan(backwards)
    trace = run(proto, feeds)
    models.assert_trace(trace, {"scan": expected}, 1e-6)
    assert trace["scan"].attrs["direction"] == ("backward" if backwards else "forward")
    time_major = {n: expected[n].swapaxes(0, 1) for n in ("h_in", "n_in")}
    for fault, values in mutations.of_values(time_major):
        if fault != "n_in shifted by a row":  # a count of steps, alike in all rows
            wrong = {n: a.swapaxes(0, 1) for n, a in values.items()}
            with mutations.must_be_noticed(fault):
                models.assert_trace(trace, {"scan": {**expected, **wrong}}, 1e-4)


def test_weights_that_a_loop_hands_on_as_they_came_are_no_states():
    proto, feeds, expected = minimal_gated_scan()
    (node,) = proto.graph.node
    body = node.attribute[0].g
    node.input.insert(2, "R")
    node.output.insert(2, "R_n")
    body.input.insert(2, models.value("R_in", [U, U]))
    body.node.append(helper.make_node("Identity", ["R_in"], ["R_out"]))
    body.output.insert(2, models.value("R_out", [U, U]))
    body.node[1].input[1] = "R_in"
    models.assert_trace(run(proto, feeds), {"scan": expected}, 1e-6)


def test_what_tensorflows_converter_calls_a_carried_value():
    proto, feeds, expected = minimal_gated_scan(
        names=("model_gru_while_placeholder_2:0", "model_gru_while_placeholder_3:0")
    )
    names = {"h_in": "placeholder_2", "n_in": "placeholder_3"}
    names |= {f"initial_{name}": f"initial_{ours}" for name, ours in names.items()}
    named = {names[name]: array for name, array in expected.items()}
    models.assert_trace(run(proto, feeds), {"scan": named}, 1e-6)


def lstm_in_loop(trips, layer):
    """A Loop that runs an LSTM over one step a trip, its state carried; and counts, in integers."""
    arrays = layer.arrays
    body = helper.make_graph(
        [
            helper.make_node("Gather", ["X", "i"], ["x_i"], axis=0),
            helper.make_node("Unsqueeze", ["x_i", "axes"], ["in.X"]),
            layer.proto("in.", ["y", "h_out", "c_out"]),
            helper.make_node("Identity", ["condition"], ["go_on"]),
        ],
        "body",
        [
            models.value("i", [], "l"),
            models.value("condition", [], "?"),
            models.value("in.initial_h", [1, B, U]),
            models.value("in.initial_c", [1, B, U]),
        ],
        [
            models.value("go_on", [], "?"),
            models.value("h_out", [1, B, U]),
            models.value("c_out", [1, B, U]),
            models.value("y", [1, 1, B, U]),
        ],
    )
    loop = helper.make_node(
        "Loop", ["trips", "", "h_0", "c_0"], ["h_n", "c_n", "ys"], body=body, name="/decoder/Loop"
    )
    tensors = {f"in.{role}": arrays[role] for role in ("W", "R", "B")}
    tensors |= {"h_0": arrays["initial_h"], "c_0": arrays["initial_c"]}
    tensors |= {"axes": np.array([0]), "trips": np.array(trips)}
    return models.model([loop], [models.value("X", [T, B, D])], [models.value("ys", None)], tensors)


def test_a_node_stepped_in_a_loop_is_one_sequence():
    layer = models.node("lstm", name="/decoder/lstm/LSTM")
    trace = run(lstm_in_loop(T, layer), {"X": layer.arrays["X"]})
    expected = layer.expected("decoder/lstm")
    (path,) = expected
    loop = trace["decoder/cell"]
    for name in ("h", "c"):
        carried = loop[f"in_initial_{name}"].values.reshape(1, T, B, U)
        np.testing.assert_array_equal(carried[0].swapaxes(0, 1), trace[path][name].values)
    assert trace[path].c.attrs["origin"] == "observed"  # a step a call: each ends with its c
    models.assert_trace(_only(trace, path), expected)


def test_a_node_whose_state_is_nan_is_gone_on_with():
    layer = models.node("lstm", name="/decoder/lstm/LSTM")
    proto = lstm_in_loop(T, layer)
    (c_0,) = (tensor for tensor in proto.graph.initializer if tensor.name == "c_0")
    begun = layer.arrays["initial_c"].copy()
    begun[0, 1, 3] = np.nan
    c_0.CopyFrom(onnx.numpy_helper.from_array(begun, "c_0"))
    with pytest.warns(EverystateWarning, match="NaN or infinite values"):
        trace = run(proto, {"X": layer.arrays["X"]})
    assert [leaf.path for leaf in trace.leaves] == ["/decoder/cell", "/decoder/lstm"]
    c = trace["decoder/lstm"].c
    assert c.shape == (B, T, U)
    assert np.isnan(c[1, :, 3]).all()


def _only(trace, path):
    return type(trace).from_dict({"/": trace.to_dataset(), path: trace[path].to_dataset()})


def test_a_node_that_starts_anew_in_each_trip_is_a_call_each():
    layer = models.node("gru", sizes=(4, B, D, U), name="rnn")
    x = np.random.default_rng(1).normal(size=(3, 4, B, D)).astype("f")
    arrays = layer.arrays
    body = helper.make_graph(
        [layer.proto("", ["", "Y_h"])],
        "body",
        [models.value("X", [4, B, D])],
        [models.value("Y_h", [1, B, U])],
    )
    scan = helper.make_node("Scan", ["xs"], ["hs"], body=body, num_scan_inputs=1)
    tensors = {role: arrays[role] for role in ("W", "R", "B", "initial_h")}
    proto = models.model(
        [scan], [models.value("xs", [3, 4, B, D])], [models.value("hs", None)], tensors
    )
    trace = run(proto, {"xs": x})
    expected = {}
    for k in range(3):
        part = layer.parts[0].with_(x=x[k].astype(float))
        one = models.replace(layer, parts=(part,))
        expected |= one.expected(f"rnn/call_{k}")
    models.assert_trace(trace, expected)


@pytest.mark.parametrize("positive", [True, False])
def test_the_branch_that_ran_is_recorded(positive):
    yes = models.node("lstm", direction="bidirectional", lengths=np.array([4, 7, 2]), name="yes")
    no = models.node("simple_rnn", seed=4, name="no")
    x = no.parts[0].x
    yes = models.replace(yes, parts=tuple(p.with_(x=x) for p in yes.parts))
    tensors = {f"{n.name}.{role}": a for n in (yes, no) for role, a in n.arrays.items()}
    x = tensors.pop("yes.X")
    del tensors["no.X"]

    def branch(layer, prefix):
        nodes = [
            helper.make_node("Identity", ["x"], [f"{prefix}X"]),
            layer.proto(prefix, ["", f"{prefix}Y_h"]),
            helper.make_node("Slice", [f"{prefix}Y_h", "from", "to", "axis"], [f"{prefix}out"]),
        ]
        return helper.make_graph(nodes, prefix, [], [models.value(f"{prefix}out", None)])

    choice = helper.make_node(
        "If",
        ["condition"],
        ["out"],
        then_branch=branch(yes, "yes."),
        else_branch=branch(no, "no."),
    )
    tensors |= {"from": np.array([0]), "to": np.array([1]), "axis": np.array([0])}
    proto = models.model(
        [choice],
        [models.value("x", [T, B, D]), models.value("condition", [], "?")],
        [models.value("out", None)],
        tensors,
    )
    trace = run(proto, {"x": x, "condition": np.array(positive)})
    models.assert_trace(trace, yes.expected("yes") if positive else no.expected("no"))


def test_a_loop_inside_a_scan_inside_an_if():
    """The state that the inner loop carries is shown through all three."""
    inner = helper.make_graph(
        [
            helper.make_node("Mul", ["v", "half"], ["w"]),
            helper.make_node("Add", ["w", "x_t"], ["v_out"]),
            helper.make_node("Identity", ["c"], ["c_out"]),
        ],
        "inner",
        [models.value("i", [], "l"), models.value("c", [], "?"), models.value("v", [B, D])],
        [models.value("c_out", [], "?"), models.value("v_out", [B, D])],
    )
    outer = helper.make_graph(
        [
            helper.make_node("Loop", ["three", "", "u"], ["u_out"], body=inner, name="inner"),
            helper.make_node("Identity", ["u_out"], ["y_t"]),
        ],
        "outer",
        [models.value("u", [B, D]), models.value("x_t", [B, D])],
        [models.value("u_out", [B, D]), models.value("y_t", [B, D])],
    )
    scan = helper.make_node(
        "Scan", ["u_0", "x"], ["u_n", "y"], body=outer, num_scan_inputs=1, name="outer"
    )
    then = helper.make_graph([scan], "then", [], [models.value("y", None)])
    other = helper.make_graph(
        [helper.make_node("Neg", ["x"], ["z"])], "else", [], [models.value("z", None)]
    )
    choice = helper.make_node("If", ["condition"], ["out"], then_branch=then, else_branch=other)
    rng = np.random.default_rng(2)
    x, u_0 = rng.normal(size=(T, B, D)).astype("f"), rng.normal(size=(B, D)).astype("f")
    proto = models.model(
        [choice],
        [models.value("x", [T, B, D]), models.value("condition", [], "?")],
        [models.value("out", None)],
        {"half": np.array(0.5, "f"), "three": np.array(3), "u_0": u_0},
    )
    trace = run(proto, {"x": x, "condition": np.array(True)})
    state, outer_states = u_0.astype(float), []
    for t, x_t in enumerate(x.astype(float)):
        inner_states = []
        for _ in range(3):
            state = 0.5 * state + x_t
            inner_states.append(state)
        outer_states.append(state)
        shown = trace[f"outer/inner/call_{t}"].v.values
        np.testing.assert_allclose(shown, np.swapaxes(inner_states, 0, 1), atol=1e-6)
    np.testing.assert_allclose(
        trace["outer/cell"].u.values, np.swapaxes(outer_states, 0, 1), atol=1e-6
    )
    with pytest.raises(es.errors.NothingRecordedError):
        es.record(proto, {"x": x, "condition": np.array(False)})


def test_carried_integers_are_no_states():
    body = helper.make_graph(
        [
            helper.make_node("Add", ["n", "one"], ["n_out"]),
            helper.make_node("Identity", ["c"], ["c_out"]),
        ],
        "body",
        [models.value("i", [], "l"), models.value("c", [], "?"), models.value("n", [1], "l")],
        [models.value("c_out", [], "?"), models.value("n_out", [1], "l")],
    )
    loop = helper.make_node("Loop", ["trips", "", "n_0"], ["n_n"], body=body)
    proto = models.model(
        [loop],
        [helper.make_tensor_value_info("n_0", TensorProto.INT64, [1])],
        [models.value("n_n", None, "l")],
        {"trips": np.array(4), "one": np.array([1])},
    )
    with pytest.raises(es.errors.NothingRecordedError):
        es.record(proto, np.array([3]))


def test_a_loop_whose_state_grows_is_refused_with_a_way_out():
    layer = models.node("gru", left_out=["initial_h"])
    body = helper.make_graph(
        [
            helper.make_node("Concat", ["v", "one"], ["v_out"], axis=0),
            helper.make_node("Identity", ["c"], ["c_out"]),
        ],
        "body",
        [models.value("i", [], "l"), models.value("c", [], "?"), models.value("v", [None])],
        [models.value("c_out", [], "?"), models.value("v_out", [None])],
    )
    loop = helper.make_node("Loop", ["trips", "", "one"], ["grown"], body=body, name="growing")
    tensors = {role: a for role, a in layer.arrays.items() if role != "X"}
    proto = models.model(
        [loop, layer.proto()],
        [models.value("X", layer.arrays["X"].shape)],
        [models.value("grown", None), models.value("Y", None)],
        {**tensors, "trips": np.array(4), "one": np.ones(1, "f")},
    )
    x = layer.arrays["X"]
    with pytest.raises(es.errors.InputError, match=r"leave out growing: select=es\.Select"):
        es.record(proto, x)
    models.assert_trace(es.record(proto, x, select=es.Select("gru")), layer.expected())
