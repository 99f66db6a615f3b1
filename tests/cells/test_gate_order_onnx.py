import numpy as np
import pytest

import gate_orders
import mutations
import oracles
from everystate.testing import importorskip

onnx = importorskip("onnx")
reference = importorskip("onnx.reference")

NAMES = ("X", "W", "R", "B", "", "initial_h", "initial_c", "P")


def ran(kind, given, peephole=None, **attributes):
    """Run one node in ONNX's reference implementation."""
    bias = np.concatenate([given.b, given.b_R])
    arrays = {"X": given.x, "W": given.W[None], "R": given.R[None], "B": bias[None]}
    arrays |= dict(zip(("initial_h", "initial_c"), (s[None] for s in given.initial), strict=False))
    if peephole is not None:
        arrays["P"] = peephole[None]
    names = [name if name in arrays else "" for name in NAMES]
    while not names[-1]:
        names.pop()
    outputs = ["Y", "Y_h", "Y_c"][: 1 + len(given.initial)]
    node = onnx.helper.make_node(kind, names, outputs, hidden_size=gate_orders.H, **attributes)
    session = reference.ReferenceEvaluator(node)
    Y, *final = session.run(None, {name: a.astype("float32") for name, a in arrays.items()})
    return Y[:, 0], tuple(s[0] for s in final)


@pytest.mark.parametrize(
    ("name", "kind", "attributes"),
    [
        ("LSTM", "LSTM", {}),
        ("GRU(linear_before_reset=0)", "GRU", {}),
        ("GRU(linear_before_reset=1)", "GRU", {"linear_before_reset": 1}),
        ("RNN", "RNN", {}),
    ],
)
def test_node(name, kind, attributes):
    gate_orders.check("ONNX", name, lambda given: ran(kind, given, **attributes))


def test_peepholes():
    (row,) = [r for r in gate_orders.rows("Framework | Layer | Peep") if r["Framework"] == "ONNX"]
    order = row["Peepholes"].removeprefix("`P`:").split()
    truth = gate_orders.row("ONNX", "LSTM")
    given = gate_orders.data(truth)
    diagonals = np.random.default_rng(3).normal(0, 1, (3, gate_orders.H))
    h, _ = ran("LSTM", given, peephole=diagonals.ravel())

    def compare(order):
        peephole = dict(zip(order, diagonals, strict=True))
        theirs, _ = gate_orders.expected(truth, given, peephole=peephole)
        oracles.assert_close({"h": h}, {"h": theirs}, 2e-6)

    compare(order)
    with mutations.must_be_noticed("peepholes in another order"):
        compare("ifo")
