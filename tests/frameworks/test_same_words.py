"""The same weights in every framework give the same trace: paths, variables, dimensions, values.

Attributes aside, which say where a trace comes from. `MAKERS` hold a model called ``encoder`` of
each framework, and how to call it; the data are asymmetric, in float32.
"""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

import mutations
import oracles
from everystate.testing import importorskip

onnx = importorskip("onnx")
importorskip("onnxruntime")
torch = importorskip("torch")
jax = importorskip("jax")
eqx = importorskip("equinox")
os.environ.setdefault("KERAS_BACKEND", "tensorflow")  # as Keras' own tests have it

linen = importorskip("flax.linen")
nnx = importorskip("flax.nnx")
keras = importorskip("keras")
save_file = importorskip("safetensors.numpy").save_file

from onnx import helper

import everystate as es
import onnx_models

B, T, D, H = 3, 7, 4, 5
ORDER = {"LSTM": "ifgo", "GRU": "rzn"}
TOLERANCE = 3e-6
jnp = jax.numpy


@dataclass(frozen=True, eq=False)
class Given:
    """Weights, gates stacked in everystate's order, and an input, (batch, time, features).

    An LSTM's biases are only ever added. Of a GRU, the recurrent one is the candidate's alone.
    """

    family: str
    W: np.ndarray
    R: np.ndarray
    b: np.ndarray
    b_R: np.ndarray
    x: np.ndarray

    def rows(self, order: str, a: np.ndarray) -> np.ndarray:
        """A weight with its gates in another order."""
        return np.concatenate([self.gate(name, a) for name in order])

    def gate(self, name: str, a: np.ndarray) -> np.ndarray:
        k = ORDER[self.family].index(name)
        return a[k * H : (k + 1) * H]

    def expected(self, **wrong) -> dict[str, np.ndarray]:
        gates = oracles.gates(ORDER[self.family], self.W, self.R, self.b, self.b_R)
        unroll = {"LSTM": oracles.lstm, "GRU": oracles.gru}[self.family]
        states = {"LSTM": "hc", "GRU": "h"}[self.family]
        start = {name: np.zeros((B, H)) for name in states}
        values = unroll(self.x.swapaxes(0, 1), start, wrong.get("gates", gates)).values
        found = {name: a.swapaxes(0, 1) for name, a in values.items()}
        return {**found, **{f"initial_{name}": a for name, a in start.items()}}


def given(family: str, *, candidate_bias: bool = True) -> Given:
    rng, rows = np.random.default_rng(7), len(ORDER[family]) * H
    W, R = rng.normal(0, 0.8, (rows, D)), rng.normal(0, 0.8, (rows, H))
    b, b_R = rng.normal(0, 0.8, (2, rows))
    if family == "GRU":
        b_R[: 2 * H] = 0.0
        b_R *= candidate_bias
    x = rng.normal(size=(B, T, D))
    return Given(family, *(np.asarray(a, "float32") for a in (W, R, b, b_R, x)))


class Holder(torch.nn.Module):
    def __init__(self, encoder):
        super().__init__()
        self.encoder = encoder

    def forward(self, x):
        return self.encoder(x)[0]


def in_torch(data: Given, _folder) -> tuple[Any, Any]:
    layer = getattr(torch.nn, data.family)(D, H, batch_first=True)
    names = ("weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0")
    arrays = zip(names, (data.W, data.R, data.b, data.b_R), strict=True)
    layer.load_state_dict({name: torch.from_numpy(a.copy()) for name, a in arrays})
    return Holder(layer), data.x


def on_numpy(data: Given, folder) -> tuple[Any, Any]:
    names = ("weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0")
    arrays = zip(names, (data.W, data.R, data.b, data.b_R), strict=True)
    path = folder / "model.safetensors"
    save_file({f"encoder.{name}": a for name, a in arrays}, path)
    return path, data.x


def in_onnx(data: Given, folder) -> tuple[Any, Any]:
    order = {"LSTM": "iofg", "GRU": "zrn"}[data.family]
    W, R, b, b_R = (data.rows(order, a) for a in (data.W, data.R, data.b, data.b_R))
    tensors = {"W": W[None], "R": R[None], "B": np.concatenate([b, b_R])[None]}
    after = {"linear_before_reset": 1} if data.family == "GRU" else {}
    name = f"/encoder/{data.family}"
    node = helper.make_node(
        data.family, ["x", "W", "R", "B"], ["y"], name=name, hidden_size=H, **after
    )
    sizes = onnx_models.value("x", ["time", "batch", D])
    proto = onnx_models.model([node], [sizes], [onnx_models.value("y", None)], tensors)
    onnx.save(proto, folder / "model.onnx")
    return folder / "model.onnx", data.x.swapaxes(0, 1)


def in_keras(data: Given, _folder) -> tuple[Any, Any]:
    order = {"LSTM": "ifgo", "GRU": "zrn"}[data.family]
    W, R, b, b_R = (data.rows(order, a) for a in (data.W, data.R, data.b, data.b_R))
    layer = getattr(keras.layers, data.family)(H, return_sequences=True, name="encoder")
    model = keras.Sequential([keras.Input((None, D)), layer])
    layer.set_weights([W.T, R.T, b + b_R if data.family == "LSTM" else np.stack([b, b_R])])
    return model, data.x


class Scanned(eqx.Module):
    encoder: Any

    def __call__(self, x):
        zeros = jnp.zeros((len(x), H))
        lstm = isinstance(self.encoder, eqx.nn.LSTMCell)

        def step(state, x_t):
            state = jax.vmap(self.encoder)(x_t, state)
            return state, state[0] if lstm else state

        return jax.lax.scan(step, (zeros, zeros) if lstm else zeros, x.swapaxes(0, 1))[1]


def in_equinox(data: Given, _folder) -> tuple[Any, Any]:
    model = Scanned(getattr(eqx.nn, f"{data.family}Cell")(D, H, key=jax.random.key(0)))
    lstm = data.family == "LSTM"
    arrays = [data.W, data.R, data.b + data.b_R if lstm else data.b]
    arrays += [] if lstm else [data.gate("n", data.b_R)]

    def weights(m):
        cell = m.encoder
        found = (cell.weight_ih, cell.weight_hh, cell.bias)
        return found if lstm else (*found, cell.bias_n)

    return eqx.tree_at(weights, model, tuple(map(jnp.asarray, arrays))), data.x


class Linen(linen.Module):
    family: str

    def setup(self):
        self.encoder = linen.RNN(getattr(linen, f"{self.family}Cell")(H))

    def __call__(self, x):
        return self.encoder(x)


def in_linen(data: Given, _folder) -> tuple[Any, Any]:
    cell: dict[str, dict[str, Any]] = {}
    for gate in ORDER[data.family]:
        W, R, b, b_R = (data.gate(gate, a) for a in (data.W, data.R, data.b, data.b_R))
        cell[f"i{gate}"], cell[f"h{gate}"] = {"kernel": W.T}, {"kernel": R.T}
        if data.family == "LSTM":
            cell[f"h{gate}"]["bias"] = b + b_R
            continue
        cell[f"i{gate}"]["bias"] = b
        if gate == "n":
            cell["hn"]["bias"] = b_R
    module = Linen(data.family)
    there = jax.eval_shape(module.init, jax.random.key(0), data.x)["params"]["encoder"]
    params = {"encoder": dict.fromkeys(there, cell)}
    return module.bind({"params": jax.tree.map(jnp.asarray, params)}), data.x


class Nnx(nnx.Module):
    def __init__(self, cell):
        self.encoder = nnx.RNN(cell)

    def __call__(self, x):
        return self.encoder(x)


def in_nnx(data: Given, _folder) -> tuple[Any, Any]:
    if data.family == "GRU":
        cell = nnx.GRUCell(D, H, rngs=nnx.Rngs(0))  # it has no recurrent bias
        cell.dense_i.bias.set_value(jnp.asarray(data.b))
    else:
        cell = nnx.OptimizedLSTMCell(D, H, rngs=nnx.Rngs(0))
        cell.dense_h.bias.set_value(jnp.asarray(data.b + data.b_R))
    cell.dense_i.kernel.set_value(jnp.asarray(data.W.T))
    cell.dense_h.kernel.set_value(jnp.asarray(data.R.T))
    return Nnx(cell), data.x


Maker = Callable[[Given, Any], tuple[Any, Any]]
MAKERS: Mapping[str, Maker] = {
    "PyTorch": in_torch,
    "NumPy": on_numpy,
    "ONNX": in_onnx,
    "Keras": in_keras,
    "Equinox": in_equinox,
    "Flax Linen": in_linen,
    "Flax NNX": in_nnx,
}


@pytest.mark.parametrize("family", ORDER)
def test_the_same_weights_give_the_same_trace(family, tmp_path):
    data = given(family)
    traces = {name: _trace(make, data, tmp_path) for name, make in MAKERS.items()}
    if family == "GRU":  # NNX has no recurrent bias of the candidate
        without = given(family, candidate_bias=False)
        alike = {name: _trace(MAKERS[name], without, tmp_path) for name in ("PyTorch", "Flax NNX")}
        _assert_same(alike["Flax NNX"], alike["PyTorch"], "Flax NNX")
        del traces["Flax NNX"]
    for name, trace in traces.items():
        _assert_same(trace, traces["PyTorch"], name)
        _assert_true(trace, data, name)


@pytest.mark.parametrize("family", ORDER)
def test_weights_read_otherwise_are_noticed(family, tmp_path):
    data = given(family)
    trace = _trace(in_onnx, data, tmp_path)
    gates = oracles.gates(ORDER[family], data.W, data.R, data.b, data.b_R)
    for fault, wrong in mutations.of_gates(gates):
        with mutations.must_be_noticed(fault):
            _assert_true(trace, data, "ONNX", gates=wrong)


def _trace(make: Maker, data: Given, folder) -> Any:
    model, x = make(data, folder)
    return es.record(model, x)


def _assert_same(trace, other, name):
    """The same leaves, variables, dimensions, coordinates, dtypes and, but for rounding, values."""
    assert [leaf.path for leaf in trace.leaves] == ["/encoder"] == [a.path for a in other.leaves]
    ours, theirs = trace["encoder"], other["encoder"]
    assert list(ours.data_vars) == list(theirs.data_vars), name
    for variable, expected in theirs.data_vars.items():
        got = ours[variable]
        assert (got.dims, got.shape, got.dtype) == (expected.dims, expected.shape, expected.dtype)
        assert got.attrs["long_name"] == expected.attrs["long_name"]
        assert set(got.coords) == set(expected.coords), name
        oracles.assert_close({name: got.values}, {name: expected.values}, TOLERANCE)


def _assert_true(trace, data, name, **wrong):
    expected = data.expected(**wrong)
    ours = {n: a.values for n, a in trace["encoder"].data_vars.items()}
    assert set(ours) == set(expected), name
    oracles.assert_close(ours, expected, TOLERANCE)
