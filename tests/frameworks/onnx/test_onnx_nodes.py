"""Every option of ONNX's recurrent operators: states and gates equal the oracle's, outputs stay."""

import numpy as np
import pytest

import mutations
from everystate.testing import importorskip

importorskip("onnx")
importorskip("onnxruntime")

import cases
import everystate as es
import onnx_models as models

LENGTHS = np.array([4, 7, 2])
FAMILIES = list(models.OPS)

OF_ALL = {
    "forward": {},
    "reverse": {"direction": "reverse"},
    "bidirectional": {"direction": "bidirectional"},
    "lengths": {"lengths": LENGTHS},
    "reverse, lengths": {"direction": "reverse", "lengths": LENGTHS},
    "both ways, lengths": {"direction": "bidirectional", "lengths": LENGTHS},
    "a length of 0": {"lengths": np.array([4, 0, 7])},
    "no bias": {"left_out": ["B"]},
    "no states": {"left_out": ["initial_h", "initial_c"]},
    "no h": {"left_out": ["initial_h"]},
    "clip": {"gate_clip": 0.5, "attributes": {"clip": 0.5}},
    "both ways, clip": {
        "direction": "bidirectional",
        "gate_clip": 0.25,
        "attributes": {"clip": 0.25},
    },
}
OF_LSTM = {
    "no c": {"left_out": ["initial_c"]},
    "peepholes": {"peephole": True},
    "peepholes, both ways": {"peephole": True, "direction": "bidirectional"},
    "peepholes, clip, lengths": {
        "peephole": True,
        "gate_clip": 0.5,
        "lengths": LENGTHS,
        "attributes": {"clip": 0.5},
    },
    "coupled": {"coupled": True, "attributes": {"input_forget": 1}},
    "coupled, peepholes": {
        "coupled": True,
        "peephole": True,
        "attributes": {"input_forget": 1},
    },
}
OF_GRU = {
    "reset after": {"reset": "after", "attributes": {"linear_before_reset": 1}},
    "reset after, both ways, lengths": {
        "reset": "after",
        "direction": "bidirectional",
        "lengths": LENGTHS,
        "attributes": {"linear_before_reset": 1},
    },
    "reset after, clip": {
        "reset": "after",
        "gate_clip": 0.5,
        "attributes": {"linear_before_reset": 1, "clip": 0.5},
    },
    "reset after, no bias": {
        "reset": "after",
        "left_out": ["B"],
        "attributes": {"linear_before_reset": 1},
    },
}
VARIANTS = [
    *(pytest.param(f, v, id=f"{f} {n}") for f in FAMILIES for n, v in OF_ALL.items()),
    *(pytest.param("lstm", variant, id=f"lstm {name}") for name, variant in OF_LSTM.items()),
    *(pytest.param("gru", variant, id=f"gru {name}") for name, variant in OF_GRU.items()),
]


def recorded(layer, proto=None):
    """Record one node, and check that the model's own outputs do not change."""
    proto = models.model_of(layer) if proto is None else proto
    feeds = models.feeds_of(layer)
    return models.recorded(proto, feeds)


@pytest.mark.parametrize(("family", "variant"), VARIANTS)
def test_states_and_gates_equal_the_oracle(family, variant):
    layer = models.node(family, **variant)
    models.assert_trace(recorded(layer), layer.expected())


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("outputs", [["", "Y_h"], ["Y"]], ids=str)
def test_outputs_that_the_node_lacks_are_no_matter(family, outputs):
    layer = models.node(family, direction="bidirectional")
    trace = recorded(layer, models.model_of(layer, outputs))
    models.assert_trace(trace, layer.expected())


@pytest.mark.parametrize("family", FAMILIES)
def test_batch_first_nodes_are_rewritten(family):
    layer = models.node(family, direction="bidirectional", lengths=LENGTHS)
    first = models.model_of(layer)
    turned = {
        name: np.swapaxes(a, 0, 1) for name, a in models.feeds_of(layer).items() if a.ndim > 1
    }
    layer_1 = models.replace(layer, attributes={"layout": 1})
    proto = models.model_of(layer_1)
    for described in proto.graph.input:
        if described.name in turned:
            described.CopyFrom(models.value(described.name, turned[described.name].shape))
    with es.recording(proto) as recorder:
        outputs = recorder.run({**turned, "sequence_lens": LENGTHS})
    models.assert_trace(recorder.trace, layer.expected())
    theirs = models.plain(first, models.feeds_of(layer))
    np.testing.assert_array_equal(outputs["Y"], theirs["Y"].transpose(2, 0, 1, 3))
    np.testing.assert_array_equal(outputs["Y_h"], theirs["Y_h"].swapaxes(0, 1))


ACTIVATIONS = {
    "Relu": ("relu", {}),
    "Tanh": ("tanh", {}),
    "Sigmoid": ("sigmoid", {}),
    "Softsign": ("softsign", {}),
    "Softplus": ("softplus", {}),
    "Affine": ("affine(0.5, 0.25)", {"activation_alpha": [0.5], "activation_beta": [0.25]}),
    "LeakyRelu": ("leaky_relu(0.25)", {"activation_alpha": [0.25]}),
    "ThresholdedRelu": ("thresholded_relu(0.25)", {"activation_alpha": [0.25]}),
    "ScaledTanh": (
        "scaled_tanh(0.75, 0.5)",
        {"activation_alpha": [0.75], "activation_beta": [0.5]},
    ),
    "HardSigmoid": (
        "hard_sigmoid_onnx(0.25, 0.375)",
        {"activation_alpha": [0.25], "activation_beta": [0.375]},
    ),
    "Elu": ("elu(0.5)", {"activation_alpha": [0.5]}),
    "HardSigmoid by default": ("hard_sigmoid_onnx(0.2, 0.5)", {}),
    "Elu by default": ("elu(1.0)", {}),
    "LeakyRelu by default": ("leaky_relu(0.01)", {}),
}


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_every_activation(name):
    ours, parameters = ACTIVATIONS[name]
    attributes = {"activations": [name.split()[0]], **parameters}
    layer = models.node("simple_rnn", activation=ours, scale=0.4, attributes=attributes)
    models.assert_trace(recorded(layer), layer.expected())
    other = models.node("simple_rnn", activation="linear", scale=0.4, attributes=attributes)
    with mutations.must_be_noticed("another activation"):
        models.assert_trace(recorded(layer), other.expected(), 1e-3)


def test_alphas_and_betas_go_to_the_activations_that_have_them_in_order():
    names = ["HardSigmoid", "LeakyRelu", "Tanh", "Sigmoid", "ScaledTanh", "Elu"]
    attributes = {
        "activations": names,
        "activation_alpha": [0.25, 0.125, 0.75, 0.5],
        "activation_beta": [0.375, 0.5],
    }
    functions = [
        ("hard_sigmoid_onnx(0.25, 0.375)", "leaky_relu(0.125)", "tanh"),
        ("sigmoid", "scaled_tanh(0.75, 0.5)", "elu(0.5)"),
    ]
    fields = ("recurrent_activation", "activation", "output_activation")
    both = models.node("lstm", direction="bidirectional", scale=0.5, attributes=attributes)
    parts = [
        part.with_(variants=dict(zip(fields, of_way, strict=True)))
        for part, of_way in zip(both.parts, functions, strict=True)
    ]
    layer = models.replace(both, parts=tuple(parts))
    models.assert_trace(recorded(layer), layer.expected())


class TestFaultsAreNoticed:
    """What the comparisons above would say of wrong states."""

    @pytest.mark.parametrize("family", FAMILIES)
    def test_wrong_reading_of_the_weights(self, family):
        layer = models.node(family)
        trace = recorded(layer)
        for fault, gates in mutations.of_gates(layer.parts[0].gates):
            with mutations.must_be_noticed(fault):
                models.assert_trace(trace, layer.expected(gates=gates), 1e-4)

    @pytest.mark.parametrize("family", FAMILIES)
    def test_wrong_results(self, family):
        layer = models.node(family, direction="reverse")
        trace, path = recorded(layer), models.OPS[family].lower()
        right = layer.expected()[path]
        states = {n: a for n, a in right.items() if not n.startswith("initial_")}
        for fault, values in mutations.of_values(states):
            with mutations.must_be_noticed(fault):
                models.assert_trace(trace, {path: {**right, **values}}, 1e-4)

    def test_a_mismatch_is_refused_with_its_cause(self, monkeypatch):
        from everystate.frameworks.onnx import nodes

        monkeypatch.setitem(nodes._CANONICAL, "LSTM", (0, 3, 2, 1))
        with pytest.raises(
            es.errors.ReplayMismatchError, match=r"lstm: .*gates stored in the order"
        ):
            recorded(models.node("lstm"))


def test_a_selection_of_states_and_units():
    layer = models.node("lstm", direction="bidirectional")
    feeds = models.feeds_of(layer)
    select = es.Select("lstm/backward", variables=("c",), units=[3, 1], every=2)
    trace = es.record(models.model_of(layer), feeds, select=select)
    (leaf,) = trace.leaves
    assert leaf.path == "/lstm/backward"
    c = layer.expected()["lstm/backward"]["c"][:, ::2, [3, 1]]
    np.testing.assert_allclose(leaf.c.values, c, atol=2e-6)
    assert cases.T == 7
