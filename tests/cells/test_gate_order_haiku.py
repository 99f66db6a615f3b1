import numpy as np

import gate_orders
from everystate.testing import importorskip

hk = importorskip("haiku")
jnp = importorskip("jax.numpy")


def shapes(params):
    return {layer: {name: a.shape for name, a in p.items()} for layer, p in params.items()}


def ran(kind, given, params):
    """Run a core of Haiku with parameters, which must have the names and shapes of its own."""
    core = hk.without_apply_rng(hk.transform(lambda x, state: kind(gate_orders.H)(x, state)))
    initial = tuple(jnp.asarray(s, "float32") for s in given.initial)
    state = hk.LSTMState(*initial) if len(initial) > 1 else initial[0]
    x = given.x.astype("float32")
    there = core.init(jnp.zeros(2, "uint32"), x[0], state)
    shapes = [
        {m: {n: a.shape for n, a in p.items()} for m, p in q.items()} for q in (there, params)
    ]
    assert shapes[0] == shapes[1]
    h, final = gate_orders.stepped(
        lambda state, x: reversed(core.apply(params, x, state)), x, state
    )
    final = tuple(final) if isinstance(final, tuple) else (final,)
    return h, tuple(np.asarray(s) for s in final)


def test_lstm():
    def run(given):
        kernel = np.concatenate([given.W, given.R])
        return ran(hk.LSTM, given, {"lstm/linear": {"w": kernel, "b": given.b}})

    gate_orders.check("Haiku", "LSTM", run)


def test_gru():
    def run(given):
        return ran(hk.GRU, given, {"gru": {"w_i": given.W, "w_h": given.R, "b": given.b}})

    gate_orders.check("Haiku", "GRU", run)


def test_vanilla_rnn():
    def run(given):
        layers = {
            "vanilla_rnn/linear": {"w": given.W, "b": given.b},
            "vanilla_rnn/linear_1": {"w": given.R, "b": given.b_R},
        }
        return ran(hk.VanillaRNN, given, layers)

    gate_orders.check("Haiku", "VanillaRNN", run, activation="relu")
