"""Flax's recurrent layers in float64 NumPy: the gates of a cell, from its own kernels."""

import numpy as np

import oracles

GATES = {"LSTM": "ifgo", "OptimizedLSTM": "ifgo", "GRU": "rzn", "Simple": ("",)}
STATES = {"LSTM": "hc", "OptimizedLSTM": "hc", "GRU": "h", "Simple": "h"}
UNROLL = {
    "LSTM": oracles.lstm,
    "OptimizedLSTM": oracles.lstm,
    "GRU": oracles.gru,
    "Simple": oracles.simple_rnn,
}


def linen_gates(kind, params):
    """Return the gates of a Linen cell's parameters."""
    found = {}
    for gate in GATES[kind]:
        given, recurrent = params[f"i{gate}"], params[f"h{gate}"]
        found[gate or "h"] = oracles.Gate(
            np.asarray(given["kernel"], float).T,
            np.asarray(recurrent["kernel"], float).T,
            np.asarray(given.get("bias", 0.0), float),
            np.asarray(recurrent.get("bias", 0.0), float),
        )
    return found


def nnx_gates(kind, cell):
    """Return the gates of an NNX cell."""
    if kind == "LSTM":
        parts = {
            g: (getattr(cell, "if_" if g == "f" else f"i{g}"), getattr(cell, f"h{g}"))
            for g in "ifgo"
        }
        return {
            g: oracles.Gate(value(a.kernel).T, value(b.kernel).T, 0.0, value(b.bias))
            for g, (a, b) in parts.items()
        }
    order = "h" if kind == "Simple" else GATES[kind]
    W, R = value(cell.dense_i.kernel).T, value(cell.dense_h.kernel).T
    return oracles.gates(order, W, R, value(cell.dense_i.bias), value(cell.dense_h.bias))


def value(variable):
    """Return an NNX variable's numbers; None where there are none."""
    array = None if variable is None else variable.get_value()
    return None if array is None else np.asarray(array, float)


def leaf(kind, gates, x, initial=None, **options):
    """Return what a layer's leaf should hold, (batch, time, units), and its output."""
    units = next(iter(gates.values())).R.shape[-1]
    start = initial or {n: np.zeros((x.shape[1], units)) for n in STATES[kind]}
    run = UNROLL[kind](x, start, gates, **options)
    variables = {n: a.swapaxes(0, 1) for n, a in run.values.items()}
    return variables | {f"initial_{n}": np.asarray(a) for n, a in start.items()}, run.values["h"]


def randomised(tree, seed):
    """Return a tree of arrays with random numbers in place of its floats, biases too."""
    import jax

    rng = np.random.default_rng(seed)

    def new(a):
        floats = jax.numpy.issubdtype(a.dtype, jax.numpy.floating)
        return jax.numpy.asarray(rng.normal(size=a.shape) * 0.5, a.dtype) if floats else a

    return jax.tree.map(new, tree)
