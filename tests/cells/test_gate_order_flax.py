import numpy as np
import pytest

import gate_orders
from everystate.testing import importorskip

linen = importorskip("flax.linen")
nnx = importorskip("flax.nnx")
jnp = importorskip("jax.numpy")

NAMES = {"LSTMCell": "ifgo", "OptimizedLSTMCell": "ifgo", "GRUCell": "rzn", "SimpleCell": ("",)}


def carried(cell, given):
    """Step a function of (carry, x) over time; the carry of one state is no tuple."""
    initial = tuple(jnp.asarray(s, "float32") for s in given.initial)
    state = initial if len(initial) > 1 else initial[0]
    h, final = gate_orders.stepped(cell, given.x.astype("float32"), state)
    final = final if isinstance(final, tuple) else (final,)
    return h, tuple(np.asarray(s) for s in final)


@pytest.mark.parametrize("name", NAMES)
def test_linen(name):
    def run(given):
        params = {}
        for k, gate in enumerate(NAMES[name]):
            params[f"i{gate}"] = {"kernel": given.gate("W", k)}
            params[f"h{gate}"] = {"kernel": given.gate("R", k)}
            if given.b is not None:
                params[f"i{gate}"]["bias"] = given.gate("b", k)
            if given.b_R is not None and (given.b is None or gate == "n"):
                params[f"h{gate}"]["bias"] = given.gate("b_R", k)
        cell = getattr(linen, name)(gate_orders.H)
        initial = given.initial if len(given.initial) > 1 else given.initial[0]
        there = cell.init(jnp.zeros(2, "uint32"), initial, given.x[0])["params"]
        shapes = {k: {n: a.shape for n, a in v.items()} for k, v in there.items()}
        assert shapes == {k: {n: a.shape for n, a in v.items()} for k, v in params.items()}
        return carried(lambda state, x: cell.apply({"params": params}, state, x), given)

    gate_orders.check("Flax Linen", name, run)


@pytest.mark.parametrize("name", ["OptimizedLSTMCell", "GRUCell", "SimpleCell"])
def test_nnx_stacked(name):
    def run(given):
        cell = getattr(nnx, name)(gate_orders.D, gate_orders.H, rngs=nnx.Rngs(0))
        for layer, kernel, bias in (
            (cell.dense_i, given.W, given.b),
            (cell.dense_h, given.R, given.b_R),
        ):
            assert (layer.bias is None or layer.bias.get_value() is None) == (bias is None)
            layer.kernel.set_value(jnp.asarray(kernel, "float32"))
            if bias is not None:
                layer.bias.set_value(jnp.asarray(bias, "float32"))
        return carried(cell, given)

    gate_orders.check("Flax NNX", name, run)


def test_nnx_apart():
    def run(given):
        cell = nnx.LSTMCell(gate_orders.D, gate_orders.H, rngs=nnx.Rngs(0))
        for k, gate in enumerate("ifgo"):
            getattr(cell, "if_" if gate == "f" else f"i{gate}").kernel.set_value(
                jnp.asarray(given.gate("W", k), "float32")
            )
            recurrent = getattr(cell, f"h{gate}")
            recurrent.kernel.set_value(jnp.asarray(given.gate("R", k), "float32"))
            recurrent.bias.set_value(jnp.asarray(given.gate("b_R", k), "float32"))
        return carried(cell, given)

    gate_orders.check("Flax NNX", "LSTMCell", run)
