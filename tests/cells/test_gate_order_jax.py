import numpy as np

import gate_orders
from everystate.testing import importorskip

jax = importorskip("jax")
rnn = importorskip("jax.experimental.rnn")


def test_lstm():
    def run(given):
        lengths = np.full(gate_orders.B, gate_orders.T, np.int32)
        weights = [{0: jax.numpy.asarray(a)} for a in (given.W, given.R, given.b, given.b_R)]
        h0, c0 = (jax.numpy.asarray(s)[None] for s in given.initial)
        x = jax.numpy.asarray(given.x.swapaxes(0, 1))
        sizes = (gate_orders.D, gate_orders.H, 1, 0.0, False)
        y, h_n, c_n = rnn.lstm_ref(x, h0, c0, *weights, lengths, *sizes)
        return np.asarray(y).swapaxes(0, 1), (np.asarray(h_n[0]), np.asarray(c_n[0]))

    with jax.enable_x64(True):
        gate_orders.check("JAX", "experimental.rnn.lstm", run, 1e-12)
