"""The contract of a framework module, held by Equinox's cells in a user's scan."""

import numpy as np

import mutations
import oracles
from everystate.testing import FrameworkContract, importorskip

jax = importorskip("jax")
jnp = importorskip("jax.numpy")
eqx = importorskip("equinox")

import everystate as es
from everystate.frameworks import equinox as framework

T, D, H, K = 7, 4, 5, 3
X = np.random.default_rng(2).normal(size=(T, D)).astype("float32")
START = {
    "lstm": np.random.default_rng(3).normal(size=(2, H)).astype("float32"),
    "gru": np.random.default_rng(4).normal(size=K).astype("float32"),
}


class Stack(eqx.Module):
    """Two cells that one scan steps, the second on what the first puts out."""

    cells: dict
    head: eqx.nn.Linear

    def __init__(self):
        keys = jax.random.split(jax.random.key(0), 3)
        self.cells = {
            "lstm": eqx.nn.LSTMCell(D, H, key=keys[0]),
            "gru": eqx.nn.GRUCell(H, K, key=keys[1]),
        }
        self.head = eqx.nn.Linear(K, 2, key=keys[2])

    def __call__(self, xs):
        def step(state, x):
            lower, upper = state
            lower = self.cells["lstm"](x, lower)
            upper = self.cells["gru"](lower[0], upper)
            return (lower, upper), self.head(upper)

        return jax.lax.scan(step, ((*START["lstm"],), START["gru"]), xs)[1]


def expected(model):
    lstm, gru = model.cells["lstm"], model.cells["gru"]
    a = oracles.lstm(
        X[:, None],
        {"h": START["lstm"][None, 0], "c": START["lstm"][None, 1]},
        oracles.gates("ifgo", lstm.weight_ih, lstm.weight_hh, lstm.bias),
    ).values
    b_R = np.concatenate([np.zeros(2 * K), gru.bias_n])
    b = oracles.gru(
        a["h"],
        {"h": START["gru"][None]},
        oracles.gates("rzn", gru.weight_ih, gru.weight_hh, gru.bias, b_R),
    ).values
    return {"cells/lstm": a, "cells/gru": b}


class TestEquinox(FrameworkContract):
    framework = framework
    tolerance = 1e-5

    def model(self):
        return Stack()

    def inputs(self):
        return (X,)

    def expected(self):
        found = {
            path: {n: a.swapaxes(0, 1) for n, a in values.items()}
            for path, values in expected(self.model()).items()
        }
        found["cells/lstm"] |= {
            "initial_h": START["lstm"][None, 0],
            "initial_c": START["lstm"][None, 1],
        }
        found["cells/gru"]["initial_h"] = START["gru"][None]
        return found

    def results(self, model):
        return [np.asarray(model(*self.inputs()))]  # as its user calls it

    def state(self, model):
        return [type(part) for part in (model, *model.cells.values())]


def test_the_oracle_notices():
    trace = es.record(Stack(), X)
    for path, wanted in expected(Stack()).items():
        leaf = {n: trace[path][n].values.swapaxes(0, 1) for n in wanted}
        oracles.assert_close(leaf, wanted, 1e-6)
        for fault, wrong in mutations.of_values(wanted):
            with mutations.must_be_noticed(f"{path}: {fault}"):
                oracles.assert_close(leaf, wrong, 1e-6)
