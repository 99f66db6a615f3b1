"""An LSTM run step by step: c of every step is onnxruntime's own, and outputs keep their bits."""

import numpy as np
import pytest

import mutations
from everystate.testing import importorskip

importorskip("onnx")
importorskip("onnxruntime")

import hypothesis.strategies as st
import onnx
from hypothesis import given, settings

import cases
import everystate as es
import onnx_models as models
from everystate.errors import InputError
from everystate.frameworks.onnx import stepwise

VARIANTS = {
    "forward": {},
    "reverse": {"direction": "reverse"},
    "no bias": {"left_out": ["B"]},
    "no states": {"left_out": ["initial_h", "initial_c"]},
    "no h, reverse": {"left_out": ["initial_h"], "direction": "reverse"},
    "no c": {"left_out": ["initial_c"]},
    "peepholes": {"peephole": True},
    "peepholes without a bias": {"peephole": True, "left_out": ["B"]},
    "clip": {"gate_clip": 0.5, "attributes": {"clip": 0.5}},
    "coupled": {"coupled": True, "attributes": {"input_forget": 1}},
    "activations": {
        "recurrent_activation": "hard_sigmoid_onnx(0.25, 0.375)",
        "activation": "scaled_tanh(0.75, 0.5)",
        "output_activation": "softsign",
        "attributes": {
            "activations": ["HardSigmoid", "ScaledTanh", "Softsign"],
            "activation_alpha": [0.25, 0.75],
            "activation_beta": [0.375, 0.5],
        },
    },
    "one step": {"sizes": (1, 3, 4, 5)},
    "two steps, reverse": {"sizes": (2, 3, 4, 5), "direction": "reverse"},
    "one row": {"sizes": (7, 1, 4, 5)},
}
STATES = es.Select(variables=("h", "c"))


@pytest.fixture(autouse=True)
def any_size(monkeypatch):
    monkeypatch.setattr(stepwise, "WORK", 0)


def recorded(layer, proto=None, select=STATES, feeds=None):
    """Record states, and check that the model's own outputs keep their bits."""
    proto = models.model_of(layer) if proto is None else proto
    feeds = models.feeds_of(layer) if feeds is None else feeds
    return models.recorded(proto, feeds, select=select)


def states_of(layer, **wrong):
    kept = ("h", "c", "initial_h", "initial_c")
    return {
        path: {n: a for n, a in arrays.items() if n in kept}
        for path, arrays in layer.expected(**wrong).items()
    }


def origin(trace):
    (leaf,) = trace.leaves
    return leaf.c.attrs["origin"]


@pytest.mark.parametrize("name", VARIANTS)
def test_states_equal_the_oracle_and_are_observed(name):
    layer = models.node("lstm", **VARIANTS[name])
    trace = recorded(layer)
    models.assert_trace(trace, states_of(layer))
    assert origin(trace) == "observed"


@pytest.mark.parametrize("outputs", [["", "Y_h"], ["Y"], ["", "", "Y_c"]], ids=str)
def test_outputs_that_the_node_lacks_are_no_matter(outputs):
    layer = models.node("lstm", direction="reverse")
    trace = recorded(layer, models.model_of(layer, outputs))
    models.assert_trace(trace, states_of(layer))
    assert origin(trace) == "observed"


def test_faults_are_noticed():
    layer = models.node("lstm", direction="reverse")
    trace = recorded(layer)
    for fault, gates in mutations.of_gates(layer.parts[0].gates):
        with mutations.must_be_noticed(fault):
            models.assert_trace(trace, states_of(layer, gates=gates), 1e-4)
    right = states_of(layer)["lstm"]
    for fault, values in mutations.of_values({n: right[n] for n in "hc"}):
        with mutations.must_be_noticed(fault):
            models.assert_trace(trace, {"lstm": {**right, **values}}, 1e-4)


NOT_STEPPED = {
    "gates asked for": ({}, es.Select()),
    "one gate asked for": ({}, es.Select(variables=("c", "f"))),
    "both ways": ({"direction": "bidirectional"}, STATES),
    "lengths": ({"lengths": np.array([4, 7, 2])}, STATES),
}


@pytest.mark.parametrize("name", NOT_STEPPED)
def test_others_are_replayed(name):
    variant, select = NOT_STEPPED[name]
    trace = recorded(models.node("lstm", **variant), select=select)
    assert {leaf.c.attrs["origin"] for leaf in trace.leaves} == {"replayed"}


def test_small_work_is_replayed(monkeypatch):
    layer = models.node("lstm")
    weights = 4 * cases.U * (cases.D + cases.U)
    monkeypatch.setattr(stepwise, "WORK", cases.B * weights)
    assert origin(recorded(layer)) == "observed"
    monkeypatch.setattr(stepwise, "WORK", cases.B * weights + 1)
    assert origin(recorded(layer)) == "replayed"


def test_weights_that_are_inputs_and_older_operators_are_replayed():
    layer = models.node("lstm")
    arrays = layer.arrays
    fed = models.model(
        [layer.proto()],
        [models.value(role, a.shape) for role, a in arrays.items()],
        [models.value(name, None) for name in layer.proto().output],
    )
    assert origin(recorded(layer, fed, feeds=arrays)) == "replayed"
    old = models.model_of(layer)
    old.opset_import[0].version = 12
    assert origin(recorded(layer, old)) == "replayed"


def test_a_trial_that_fails_has_c_replayed(monkeypatch):
    layer = models.node("lstm")
    right = stepwise._body

    def crossed(node, names, fresh):
        body = right(node, names, fresh)
        body.output[0].name, body.output[1].name = (body.output[k].name for k in (1, 0))
        return body

    monkeypatch.setattr(stepwise, "_body", crossed)
    trace = recorded(layer)
    models.assert_trace(trace, states_of(layer))
    assert origin(trace) == "replayed"


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("fault", [None, ("h", 0), ("h", 1), ("c", 1)])
def test_a_trial_sees_a_single_bit(fault, reverse):
    rng = np.random.default_rng(0)
    h, c = rng.normal(size=(2, 7, 1, 3, 5)).astype("float32")
    tried_h, tried_c = h[:2].copy(), c[1].copy()
    if fault:
        name, step = fault
        of = {"h": h, "c": c}[name][step]
        of[0, 1, 2] = np.nextafter(of[0, 1, 2], np.float32(9))
    results = {"h": h, "c": c, "tried_h": tried_h, "tried_c": tried_c}
    if reverse:
        results |= {n: results[n][::-1] for n in ("h", "c", "tried_h")}
    trial = stepwise.Trial("h", "c", "tried_h", "tried_c", reverse)
    assert trial.holds(results) == (fault is None)


def test_a_stream_goes_on():
    layer = models.node("lstm", sizes=(12, 3, 4, 5))
    feeds, proto = models.feeds_of(layer), models.model_of(layer)
    proto.graph.input[0].CopyFrom(models.value("X", ["time", 3, 4]))
    with es.recording(proto, along="time", select=STATES) as recorder:
        state = {name: feeds[name] for name in ("initial_h", "initial_c")}
        for chunk in np.split(feeds["X"], [5, 6]):
            outputs = recorder.run({"X": chunk, **state})
            state = {"initial_h": outputs["Y_h"], "initial_c": outputs["Y_c"]}
    models.assert_trace(recorder.trace, states_of(layer))
    assert origin(recorder.trace) == "observed"
    assert "state_resets" not in recorder.trace["lstm"].attrs


def test_weights_beside_the_file(tmp_path):
    layer = models.node("lstm", direction="reverse")
    path = tmp_path / "model.onnx"
    onnx.save(
        models.model_of(layer), path, save_as_external_data=True, location="w.bin", size_threshold=0
    )
    trace = es.record(str(path), models.feeds_of(layer), select=STATES)
    models.assert_trace(trace, states_of(layer))
    assert origin(trace) == "observed"


def test_numbers_out_of_range_are_no_failed_trial():
    layer = models.node("lstm")
    feeds = models.feeds_of(layer)
    feeds["X"][1, 2, 3] = np.nan
    with pytest.warns(UserWarning, match="NaN or infinite"):
        trace = recorded(layer, feeds=feeds)
    assert origin(trace) == "observed"


@pytest.mark.parametrize("work", [0, 1 << 40], ids=["stepwise", "replayed"])
def test_the_caller_may_change_what_the_model_gave_and_was_given(monkeypatch, work):
    monkeypatch.setattr(stepwise, "WORK", work)
    layer = models.node("lstm")
    feeds = {name: a.copy() for name, a in models.feeds_of(layer).items()}
    with es.recording(models.model_of(layer), select=STATES) as recorder:
        outputs = recorder.run(feeds)
        for a in (*feeds.values(), *outputs.values()):
            a[...] = 7.0
    models.assert_trace(recorder.trace, states_of(layer))


def test_a_model_that_fails_by_itself_is_told_from_one_that_fails_when_it_shows_more():
    layer = models.node("lstm")
    proto = models.model_of(layer, ["Y"])
    proto.graph.initializer.append(onnx.numpy_helper.from_array(np.array([5, 11]), "shape"))
    proto.graph.node.append(onnx.helper.make_node("Reshape", ["Y", "shape"], ["out"]))
    proto.graph.output.append(onnx.ValueInfoProto(name="out"))
    message = r"onnxruntime failed: .*Reshape.* So it does without everystate"
    with pytest.raises(InputError, match=message):
        es.record(proto, models.feeds_of(layer))


def test_several_nodes_in_a_row_and_what_follows_them():
    first = models.node("lstm", left_out=["initial_h", "initial_c"], name="/a/LSTM")
    second = models.node(
        "lstm", seed=3, sizes=(cases.T, cases.B, cases.U, 6), direction="reverse", name="/b/LSTM"
    )
    one, two = first.proto("a_", ["a_Y"]), second.proto("b_")
    two.input[0] = "between"
    tensors = {f"a_{n}": a for n, a in first.arrays.items() if n != "X"}
    tensors |= {f"b_{n}": a for n, a in second.arrays.items() if n != "X"}
    tensors["axes"] = np.array([1])
    proto = models.model(
        [one, onnx.helper.make_node("Squeeze", ["a_Y", "axes"], ["between"]), two],
        [models.value("a_X", ["time", "batch", cases.D])],
        [models.value("b_Y", None), models.value("b_Y_c", None)],
        tensors,
    )
    trace = recorded(first, proto, feeds={"a_X": first.arrays["X"]})
    expected = states_of(first)["lstm"]
    models.assert_trace(
        es.record(proto, first.arrays["X"], select=es.Select("a", ("h", "c"))), {"a": expected}
    )
    whole = es.record(proto, first.arrays["X"])
    for path in "ab":
        assert trace[path].c.attrs["origin"] == "observed"
        assert whole[path].c.attrs["origin"] == "replayed"
        np.testing.assert_allclose(trace[path].c, whole[path].c, atol=2e-6)


@settings(max_examples=25, deadline=None)
@given(
    sizes=st.tuples(*(st.integers(1, n) for n in (6, 5, 9, 40))),
    direction=st.sampled_from(["forward", "reverse"]),
    peephole=st.booleans(),
    seed=st.integers(0, 1000),
)
def test_bits_stay_and_states_are_the_oracles(sizes, direction, peephole, seed):
    scale = 1.0 / np.sqrt(sizes[3])
    layer = models.node(
        "lstm", seed=seed, sizes=sizes, direction=direction, peephole=peephole, scale=scale
    )
    trace = recorded(layer)
    models.assert_trace(trace, states_of(layer), 5e-6)
    assert origin(trace) == "observed"
