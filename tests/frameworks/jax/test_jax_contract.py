"""The contract of a framework module, held by functions of JAX."""

import numpy as np
import pytest

import oracles
from everystate.testing import FrameworkContract, importorskip

jax = importorskip("jax")
jnp = importorskip("jax.numpy")

import everystate as es
from everystate.frameworks import jax as framework

T, B, D = 7, 3, 4
RNG = np.random.default_rng(1)
START = {"v": RNG.normal(size=(B, D)), "w": RNG.normal(size=(B, D))}


@jax.jit
def both_ways(xs):
    def step(state, x):
        v = jnp.tanh(0.8 * state["v"] + x - 0.3 * state["w"])
        return {"v": v, "w": 0.95 * state["w"] + 0.1 * v}, v

    start = jax.tree.map(lambda a: jnp.asarray(a, xs.dtype), START)
    with jax.named_scope("encoder"):
        _, ys = jax.lax.scan(step, start, xs)
    return jax.lax.scan(step, start, ys, reverse=True)


def expected():
    def step(x, state):
        v = np.tanh(0.8 * state["v"] + x - 0.3 * state["w"])
        return {"v": v, "w": 0.95 * state["w"] + 0.1 * v}

    x = np.random.default_rng(2).normal(size=(T, B, D)).astype("float32")
    first = oracles.unroll(step, x, START).values
    found = {
        "encoder": first,
        "scan_0": oracles.unroll(step, first["v"], START, reverse=True).values,
    }
    start = {f"initial_{n}": a for n, a in START.items()}
    return {
        path: {n: a.swapaxes(0, 1) for n, a in values.items()} | start
        for path, values in found.items()
    }


class TestJax(FrameworkContract):
    framework = framework
    tolerance = 1e-6

    def model(self):
        return both_ways

    def inputs(self):
        return (np.random.default_rng(2).normal(size=(T, B, D)).astype("float32"),)

    def expected(self):
        return expected()

    def results(self, model):
        return jax.tree.leaves(framework.call(model, self.inputs()))

    def test_layers_are_those_of_the_trace(self):
        """A function's scans are known once it is called."""
        trace = es.record(both_ways, *self.inputs())
        assert framework.layers(both_ways) is None
        assert [leaf.path.strip("/") for leaf in trace.leaves] == list(self.expected())

    def test_the_second_scan_runs_backwards(self):
        trace = es.record(both_ways, *self.inputs())
        assert trace["encoder"].attrs["direction"] == "forward"
        assert trace["scan_0"].attrs["direction"] == "backward"


@pytest.mark.parametrize("fault", ["shifted", "reversed"])
def test_the_oracle_notices(fault):
    wrong = expected()
    v = wrong["scan_0"]["v"]
    wrong["scan_0"]["v"] = np.roll(v, 1, axis=1) if fault == "shifted" else v[:, ::-1]

    class Wrong(TestJax):
        def expected(self):
            return wrong

    with pytest.raises(AssertionError, match="scan_0: v: scaled error"):
        Wrong().test_states_and_gates_are_the_oracles()
