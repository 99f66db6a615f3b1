import numpy as np
import pytest

import gate_orders
from everystate.testing import importorskip

eqx = importorskip("equinox")
jax = importorskip("jax")


@pytest.mark.parametrize("name", ["LSTMCell", "GRUCell"])
def test_cell(name):
    def run(given):
        key = jax.random.PRNGKey(0)
        cell = getattr(eqx.nn, name)(gate_orders.D, gate_orders.H, key=key)
        weights = {"weight_ih": given.W, "weight_hh": given.R, "bias": given.b}
        if given.b_R is not None:
            weights["bias_n"] = given.gate("b_R", 2)
        for field, array in weights.items():
            assert getattr(cell, field).shape == array.shape
            array = jax.numpy.asarray(array, "float32")
            cell = eqx.tree_at(lambda c, field=field: getattr(c, field), cell, array)

        def step(state, x):
            after = jax.vmap(cell)(x, state)
            return after, after[0] if isinstance(after, tuple) else after

        initial = tuple(s.astype("float32") for s in given.initial)
        state = initial if len(initial) > 1 else initial[0]
        h, final = gate_orders.stepped(step, given.x.astype("float32"), state)
        final = final if isinstance(final, tuple) else (final,)
        return h, tuple(np.asarray(s) for s in final)

    gate_orders.check("Equinox", name, run)
