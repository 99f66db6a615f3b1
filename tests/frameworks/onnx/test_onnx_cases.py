"""The node cases of the onnx package: their expected outputs, and every step of the oracle's."""

import numpy as np
import pytest

import mutations
from everystate.testing import importorskip

importorskip("onnx")
importorskip("onnxruntime")

from onnx import helper
from onnx.backend.test.case import node as cases_of_nodes
from onnx.backend.test.case.node import gru, lstm, rnn  # noqa: F401  they add their cases to it

import everystate as es
import onnx_models as models
import oracles

# collect_testcases() is the public way, but makes the cases of all operators, for seconds.
CASES = {
    case.name: case
    for case in cases_of_nodes._NodeTestCases
    if {node.op_type for node in case.model.graph.node} <= {"LSTM", "GRU", "RNN"}
}
COUNT = 18
UNROLL = {"LSTM": oracles.lstm, "GRU": oracles.gru, "RNN": oracles.simple_rnn}
ORDER = {"LSTM": "iofg", "GRU": "zrn", "RNN": "h"}


def expected(case):
    """What the trace must hold, from the definition of the operator and the case's own inputs."""
    (node,) = case.model.graph.node
    given = {a.name: helper.get_attribute_value(a) for a in node.attribute}
    roles = [role for role, name in zip(models.ROLES, node.input, strict=False) if name]
    arrays = dict(zip(roles, case.data_sets[0][0], strict=True))
    batch_first = given.get("layout", 0)
    x = arrays["X"].swapaxes(0, 1) if batch_first else arrays["X"]
    units = given["hidden_size"]
    ways = models.WAYS[given.get("direction", b"forward").decode()]
    found = {}
    for k, reverse in enumerate(ways):
        b, b_R = np.split(arrays["B"][k], 2) if "B" in arrays else (None, None)
        gates = oracles.gates(ORDER[node.op_type], arrays["W"][k], arrays["R"][k], b, b_R)
        states = "hc" if node.op_type == "LSTM" else "h"
        initial = {s: np.zeros((x.shape[1], units)) for s in states}
        for s in states:
            if f"initial_{s}" in arrays:
                initial[s] = arrays[f"initial_{s}"][k]
        variants = {} if node.op_type != "GRU" else {"reset": "before"}
        if "P" in arrays:
            peephole = np.split(arrays["P"][k].astype(float), 3)
            variants["peephole"] = dict(zip("iof", peephole, strict=True))
        lengths = arrays.get("sequence_lens")
        run = UNROLL[node.op_type](x, initial, gates, lengths=lengths, reverse=reverse, **variants)
        values = {n: a.swapaxes(0, 1) for n, a in run.values.items()}
        path = node.op_type.lower() + ("/backward" if reverse else "/forward") * (len(ways) == 2)
        found[path] = {**values, **{f"initial_{s}": a for s, a in initial.items()}}
    return found


def test_all_cases_are_here():
    assert len(CASES) == COUNT


@pytest.mark.parametrize("name", CASES)
def test_case(name):
    case = CASES[name]
    given, wanted = case.data_sets[0]
    with es.recording(case.model) as recorder:
        outputs = recorder.run(*given)
    for ours, theirs in zip(outputs.values(), wanted, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=case.rtol, atol=case.atol)
    right = expected(case)
    models.assert_trace(recorder.trace, right, 5e-7)
    for path, arrays in right.items():
        for variable in arrays:
            if arrays[variable].any():
                wrong = {**arrays, variable: 0.9 * arrays[variable]}
                with mutations.must_be_noticed(f"{path}: {variable} too small"):
                    models.assert_trace(recorder.trace, {**right, path: wrong}, 5e-7)
