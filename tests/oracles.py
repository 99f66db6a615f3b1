"""Recurrent cells in float64 NumPy, from the equations of the papers and nothing else.

One row and one step at a time, one matrix a gate, no code of everystate. What everystate and
the frameworks compute is compared with this. A test imports it as ``import oracles``.

Gates are called as in everystate: LSTM ``i f g o``, GRU ``r z n``; a simple RNN has one, ``h``.
Sequences are time-major, ``(time, batch, feature)``; steps past a row's length are NaN.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np


def sigmoid(x):
    return 0.5 * (1.0 + np.tanh(0.5 * x))


ACTIVATIONS = {
    "tanh": np.tanh,
    "sigmoid": sigmoid,
    "hard_sigmoid": lambda x: np.minimum(np.maximum(x + 3.0, 0.0), 6.0) / 6.0,
    "hard_sigmoid_keras2": lambda x: np.minimum(np.maximum(0.2 * x + 0.5, 0.0), 1.0),
    "relu": lambda x: np.maximum(x, 0.0),
    "linear": lambda x: x,
    "softsign": lambda x: x / (1.0 + np.abs(x)),
    "softplus": lambda x: np.logaddexp(0.0, x),
}
PARAMETRIC = {  # ONNX, docs/Operators.md, LSTM
    "affine": lambda x, alpha, beta: alpha * x + beta,
    "elu": lambda x, alpha: np.where(x < 0, alpha * (np.exp(np.minimum(x, 0.0)) - 1.0), x),
    "hard_sigmoid_onnx": lambda x, a, b: np.minimum(np.maximum(a * x + b, 0.0), 1.0),
    "leaky_relu": lambda x, alpha: np.where(x < 0, alpha * x, x),
    "scaled_tanh": lambda x, alpha, beta: alpha * np.tanh(beta * x),
    "thresholded_relu": lambda x, alpha: np.where(x > alpha, x, 0.0),
}


def activation(name, bound=None):
    """Return an activation by everystate's name, its argument held within a bound (ONNX clip)."""
    family, _, numbers = name.rstrip(")").partition("(")
    numbers = [float(number) for number in numbers.split(",")] if numbers else []
    function = partial(_with, PARAMETRIC[family], numbers) if numbers else ACTIVATIONS[family]
    if bound is None:
        return function
    return lambda x: function(np.minimum(np.maximum(x, -bound), bound))


_activation = activation  # the steps have a parameter of that name


def _with(function, numbers, x):
    return function(x, *numbers)


@dataclass(frozen=True, eq=False)
class Gate:
    """One gate: ``W x + b`` from the input, ``R h + b_R`` from the state."""

    W: np.ndarray
    R: np.ndarray
    b: np.ndarray | float = 0.0
    b_R: np.ndarray | float = 0.0

    def from_input(self, x):
        return self.W @ x + self.b

    def from_state(self, h):
        return self.R @ h + self.b_R

    def __call__(self, x, h):
        return self.from_input(x) + self.from_state(h)


Gates = Mapping[str, Gate]


def gates(order: Iterable[str], W, R, b=None, b_R=None) -> dict[str, Gate]:
    """Cut weights whose *rows* hold the gates in `order`, such as ``"ifgo"``."""
    names = list(order)
    W, R = (np.split(np.asarray(a, np.float64), len(names)) for a in (W, R))
    b, b_R = (
        np.split(
            np.zeros(len(names) * len(W[0])) if a is None else np.asarray(a, float), len(names)
        )
        for a in (b, b_R)
    )
    return {name: Gate(W[k], R[k], b[k], b_R[k]) for k, name in enumerate(names)}


def stacked(gates: Gates, order: Iterable[str]) -> dict[str, np.ndarray]:
    """Stack gates by rows in `order`: W, R, b, b_R. The inverse of `gates`."""
    names = list(order)
    units = gates[names[0]].W.shape[0]
    found = {
        name: [getattr(gates[gate], name) for gate in names] for name in ("W", "R", "b", "b_R")
    }
    for bias in ("b", "b_R"):
        found[bias] = [np.broadcast_to(b, units) for b in found[bias]]
    return {name: np.concatenate(blocks) for name, blocks in found.items()}


@dataclass(frozen=True, eq=False)
class Unrolled:
    """Every variable, ``(time, batch, units)``, and each state at the end, ``(batch, units)``."""

    values: dict[str, np.ndarray]
    final: dict[str, np.ndarray]


def lstm_step(
    x,
    state,
    *,
    gates: Gates,
    activation="tanh",
    recurrent_activation="sigmoid",
    output_activation="tanh",
    forget_bias=0.0,
    cell_clip=None,
    projection_clip=None,
    peephole: Mapping[str, np.ndarray] | None = None,
    projection=None,
    gate_clip=None,
    coupled=None,
):
    """Return h, c, i, f, g, o after one step; `peephole` has a vector for each of i, f and o.

    Sak, Senior and Beaufays 2014 (arXiv:1402.1128), equations 1 to 6, and TensorFlow 1's clips:
    c is clipped before the output gate looks at it, h after the projection. ONNX bounds what goes
    into the activations of gates and candidate (`gate_clip`), and couples f = 1 - i.
    """
    phi = _activation(activation, gate_clip)
    sigma, psi = _activation(recurrent_activation, gate_clip), _activation(output_activation)
    p = peephole or {"i": 0.0, "f": 0.0, "o": 0.0}
    h, c = state["h"], state["c"]
    i = sigma(gates["i"](x, h) + p["i"] * c)
    f = 1.0 - i if coupled else sigma(gates["f"](x, h) + p["f"] * c + forget_bias)
    g = phi(gates["g"](x, h))
    c = f * c + i * g
    if cell_clip is not None:
        c = np.minimum(np.maximum(c, -cell_clip), cell_clip)
    o = sigma(gates["o"](x, h) + p["o"] * c)
    h = o * psi(c)
    if projection is not None:
        h = projection @ h
        if projection_clip is not None:
            h = np.minimum(np.maximum(h, -projection_clip), projection_clip)
    return {"h": h, "c": c, "i": i, "f": f, "g": g, "o": o}


def gru_step(
    x,
    state,
    *,
    gates: Gates,
    reset="after",
    update="keeps",
    activation="tanh",
    recurrent_activation="sigmoid",
    gate_clip=None,
):
    """Return h, r, z, n after one step.

    Cho et al. 2014 (arXiv:1406.1078), equations 5 to 8: reset before, z keeps. Chung et al. 2014
    (arXiv:1412.3555), equation 5: z writes. Reset after the product: cuDNN's equations.
    """
    phi, sigma = (_activation(a, gate_clip) for a in (activation, recurrent_activation))
    h = state["h"]
    r = sigma(gates["r"](x, h))
    z = sigma(gates["z"](x, h))
    if reset == "before":
        n = phi(gates["n"].from_input(x) + gates["n"].from_state(r * h))
    else:
        n = phi(gates["n"].from_input(x) + r * gates["n"].from_state(h))
    h = z * h + (1.0 - z) * n if update == "keeps" else (1.0 - z) * h + z * n
    return {"h": h, "r": r, "z": z, "n": n}


def simple_rnn_step(x, state, *, gates: Gates, activation="tanh", gate_clip=None):
    """Return h after one step: Elman 1990 (doi:10.1207/s15516709cog1402_1)."""
    return {"h": _activation(activation, gate_clip)(gates["h"](x, state["h"]))}


def unroll(
    step: Callable,
    x,
    initial: Mapping[str, np.ndarray],
    *,
    lengths: Sequence[int] | None = None,
    reverse: bool = False,
) -> Unrolled:
    """Step through every row alone, to its length; backwards within it if `reverse`."""
    x = np.asarray(x, np.float64)
    steps, batch = x.shape[:2]
    lengths = [steps] * batch if lengths is None else lengths
    rows, finals = [], []
    for row, length in enumerate(lengths):
        state = {name: np.asarray(a, np.float64)[row] for name, a in initial.items()}
        found: dict[int, dict[str, np.ndarray]] = {}
        for t in reversed(range(length)) if reverse else range(length):
            found[t] = step(x[t, row], state)
            state = {name: found[t][name] for name in state}
        rows.append(found)
        finals.append(state)
    shapes = {name: np.shape(a) for name, a in step(x[0, 0], _first(initial)).items()}
    values = {name: np.full((steps, batch, *shape), np.nan) for name, shape in shapes.items()}
    for row, found in enumerate(rows):
        for t, after in found.items():
            for name in values:
                values[name][t, row] = after[name]
    return Unrolled(values, {name: np.stack([f[name] for f in finals]) for name in initial})


def _first(initial):
    return {name: np.asarray(a, np.float64)[0] for name, a in initial.items()}


def lstm(x, initial, gates, *, lengths=None, reverse=False, **variants) -> Unrolled:
    """Unroll an LSTM; `initial` holds h and c, `variants` as `lstm_step`."""
    step = partial(lstm_step, gates=gates, **variants)
    return unroll(step, x, initial, lengths=lengths, reverse=reverse)


def gru(x, initial, gates, *, lengths=None, reverse=False, **variants) -> Unrolled:
    """Unroll a GRU; `initial` holds h, `variants` as `gru_step`."""
    step = partial(gru_step, gates=gates, **variants)
    return unroll(step, x, initial, lengths=lengths, reverse=reverse)


def simple_rnn(x, initial, gates, *, lengths=None, reverse=False, **variants) -> Unrolled:
    """Unroll a simple RNN; `initial` holds h, `variants` as `simple_rnn_step`."""
    step = partial(simple_rnn_step, gates=gates, **variants)
    return unroll(step, x, initial, lengths=lengths, reverse=reverse)


def assert_close(ours: Mapping, theirs: Mapping, tolerance: float = 1e-10) -> None:
    """Assert that `ours` has every variable of `theirs`, equal within the scaled tolerance.

    ``|a - b| <= tolerance * (1 + |b|)``; NaN must be where NaN is expected.
    """
    assert set(theirs) <= set(ours), f"missing: {sorted(set(theirs) - set(ours))}"
    for name, expected in theirs.items():
        got, expected = np.asarray(ours[name], np.float64), np.asarray(expected)
        assert got.shape == expected.shape, f"{name}: shape {got.shape}, expected {expected.shape}"
        assert np.array_equal(np.isnan(got), np.isnan(expected)), f"{name}: NaN in other places"
        error = np.nan_to_num(np.abs(got - expected) / (1.0 + np.abs(expected)))
        worst = error.max(initial=0.0)
        place = np.unravel_index(error.argmax(), error.shape) if error.size else ()
        assert worst <= tolerance, f"{name}: scaled error {worst:.3g} at {place}"
