"""Any combination of the options of a recurrent node, sizes of 1 and rows of no step among them."""

from itertools import chain

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from everystate.testing import importorskip

importorskip("onnx")
importorskip("onnxruntime")

import everystate as es
import onnx_models as models

ACTIVATIONS = {
    "Tanh": ("tanh", [], []),
    "Sigmoid": ("sigmoid", [], []),
    "HardSigmoid": ("hard_sigmoid_onnx(0.25, 0.375)", [0.25], [0.375]),
    "ScaledTanh": ("scaled_tanh(0.75, 0.5)", [0.75], [0.5]),
}
FIELDS = {
    "lstm": ("recurrent_activation", "activation", "output_activation"),
    "gru": ("recurrent_activation", "activation"),
    "simple_rnn": ("activation",),
}


@st.composite
def layers(draw):
    """A node, in ONNX's words and in everystate's."""
    family = draw(st.sampled_from(sorted(FIELDS)))
    direction = draw(st.sampled_from(sorted(models.WAYS)))
    sizes = draw(st.tuples(*[st.integers(1, 6)] * 4))
    options = {"seed": draw(st.integers(0, 999)), "sizes": sizes, "scale": 0.6}
    attributes = {}
    if draw(st.booleans()):
        lengths = draw(st.lists(st.integers(0, sizes[0]), min_size=sizes[1], max_size=sizes[1]))
        options["lengths"] = np.array([sizes[0], *lengths[1:]])
    if draw(st.booleans()):
        attributes["clip"] = options["gate_clip"] = 0.5
    if draw(st.booleans()):
        names = draw(st.lists(st.sampled_from(sorted(ACTIVATIONS)), min_size=3, max_size=3))
        names = names[: len(FIELDS[family])]
        ours, alphas, betas = zip(*(ACTIVATIONS[name] for name in names), strict=True)
        options |= dict(zip(FIELDS[family], ours, strict=True))
        ways = len(models.WAYS[direction])
        attributes["activations"] = names * ways
        if any(alphas):
            attributes["activation_alpha"] = list(chain(*alphas)) * ways
            attributes["activation_beta"] = list(chain(*betas)) * ways
    if family == "lstm" and draw(st.booleans()):
        options["coupled"], attributes["input_forget"] = True, 1
    if family == "lstm":
        options["peephole"] = draw(st.booleans())
    if family == "gru" and draw(st.booleans()):
        options["reset"], attributes["linear_before_reset"] = "after", 1
    inputs = ["B", "initial_h", *(["initial_c"] if family == "lstm" else [])]
    left_out = draw(st.lists(st.sampled_from(inputs), unique=True))
    return models.node(
        family, direction=direction, attributes=attributes, left_out=left_out, **options
    )


@settings(max_examples=60, deadline=None)
@given(layer=layers())
def test_any_combination_equals_the_oracle(layer):
    proto, feeds = models.model_of(layer), models.feeds_of(layer)
    with es.recording(proto) as recorder:
        outputs = recorder.run(feeds)
    for name, array in models.plain(proto, feeds).items():
        np.testing.assert_array_equal(outputs[name], array)
    models.assert_trace(recorder.trace, layer.expected(), 5e-6)
