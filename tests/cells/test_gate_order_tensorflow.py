import numpy as np
import pytest

import gate_orders
import mutations
import oracles
from everystate.testing import importorskip

tf = importorskip("tensorflow")
cells = importorskip("tensorflow.python.ops.rnn_cell_impl")
NUMBERS = dict(zip("ifo", np.random.default_rng(3).normal(0, 1, (3, gate_orders.H)), strict=True))
"""Peepholes."""


def kernels(name, given):
    """Weights as a TensorFlow 1 cell keeps them: kernels over [x, h], each with its bias."""
    kernel = np.concatenate([given.W, given.R])
    if name != "GRUCell":
        return [kernel, given.b]
    gates = 2 * gate_orders.H
    return [kernel[:, :gates], given.b[:gates], kernel[:, gates:], given.b[gates:]]


def ran(cell, given, weights):
    states = [tf.constant(s, "float32") for s in given.initial]
    state = cells.LSTMStateTuple(*states) if len(states) > 1 else states[0]
    x = given.x.astype("float32")
    if not cell.built:
        cell.build((gate_orders.B, gate_orders.D))
    assert [v.shape for v in cell.variables] == [w.shape for w in weights]
    for variable, array in zip(cell.variables, weights, strict=True):
        variable.assign(array)
    h, final = gate_orders.stepped(lambda state, x: reversed(cell(x, state)), x, state)
    final = tuple(final) if isinstance(final, tuple) else (final,)
    return h, tuple(s.numpy() for s in final)


@pytest.mark.parametrize("name", ["LSTMCell", "BasicLSTMCell", "GRUCell", "BasicRNNCell"])
def test_cell(name):
    def run(given):
        return ran(getattr(cells, name)(gate_orders.H), given, kernels(name, given))

    gate_orders.check("TensorFlow 1", name, run)


def peepholes(layer):
    """The names of a layer's peepholes by gate, from the README."""
    (row,) = [r for r in gate_orders.rows("Framework | Layer | Peep") if r["Layer"] == layer]
    pairs = (pair.split(": ") for pair in row["Peepholes"].replace("`", "").split(", "))
    return dict(pairs)


def compare_peepholes(h, truth, given, **variants):
    """Assert that the peepholes do what the README says, and not what another order would."""
    p = NUMBERS
    right, _ = gate_orders.expected(truth, given, peephole=p, **variants)
    oracles.assert_close({"h": h}, {"h": right}, 2e-6)
    for wrong in ({**p, "i": p["f"], "f": p["i"]}, {**p, "f": p["o"], "o": p["f"]}):
        theirs, _ = gate_orders.expected(truth, given, peephole=wrong, **variants)
        with mutations.must_be_noticed("peepholes in another order"):
            oracles.assert_close({"h": h}, {"h": theirs}, 2e-6)


def test_peepholes_and_clip_of_a_cell():
    truth = gate_orders.row("TensorFlow 1", "LSTMCell")
    given = gate_orders.data(truth)
    cell = cells.LSTMCell(gate_orders.H, use_peepholes=True, cell_clip=0.5)
    cell.build((gate_orders.B, gate_orders.D))
    gates = {name: gate for gate, name in peepholes("LSTMCell").items()}
    names = [variable.name.split(":")[0].split("/")[-1] for variable in cell.variables[2:]]
    weights = [NUMBERS[gates[name]] for name in names]
    h, _ = ran(cell, given, [*kernels("LSTMCell", given), *weights])
    compare_peepholes(h, truth, given, cell_clip=0.5)


def block(name, given, **options):
    op = getattr(tf.raw_ops, name)
    c, h = (s.astype("float32") for s in given.initial)
    w = np.concatenate([given.W, given.R]).astype("float32")
    zeros = np.zeros(gate_orders.H, "float32")
    diagonals = {"wci": zeros, "wcf": zeros, "wco": zeros, **options}
    out = op(
        seq_len_max=np.int64(gate_orders.T),
        x=given.x.astype("float32"),
        cs_prev=c,
        h_prev=h,
        w=w,
        b=given.b.astype("float32"),
        **diagonals,
    )
    return out.h.numpy(), (out.cs.numpy()[-1], out.h.numpy()[-1])


@pytest.mark.parametrize(("name", "clip"), [("BlockLSTM", 3.0), ("BlockLSTMV2", None)])
def test_block_ops(name, clip):
    gate_orders.check("TensorFlow ops", name, lambda given: block(name, given), cell_clip=clip)


def test_peepholes_of_a_block_op():
    truth = gate_orders.row("TensorFlow ops", "BlockLSTM")
    given = gate_orders.data(truth)
    diagonals = {name: NUMBERS[g].astype("float32") for g, name in peepholes("BlockLSTM").items()}
    h, _ = block("BlockLSTM", given, use_peephole=True, **diagonals)
    compare_peepholes(h, truth, given, cell_clip=3.0)


def test_gru_block_cell():
    def run(given):
        names = ("w_ru", "b_ru", "w_c", "b_c")
        arrays = (a.astype("float32") for a in kernels("GRUCell", given))
        weights = dict(zip(names, arrays, strict=True))

        def step(h_prev, x):
            h = tf.raw_ops.GRUBlockCell(x=x, h_prev=h_prev, **weights).h
            return h, h

        x, (h0,) = given.x.astype("float32"), given.initial
        h, final = gate_orders.stepped(step, x, h0.astype("float32"))
        return h, (final.numpy(),)

    gate_orders.check("TensorFlow ops", "GRUBlockCell", run)
