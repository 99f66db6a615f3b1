"""One cell of one's own, in every framework: the same names, and the oracle's states."""

import os

import numpy as np
import pytest

import mutations
import oracles
from everystate.testing import importorskip

torch = importorskip("torch")
jax = importorskip("jax")
eqx = importorskip("equinox")
linen = importorskip("flax.linen")
nnx = importorskip("flax.nnx")
os.environ.setdefault("KERAS_BACKEND", "tensorflow")  # as Keras' own tests have it
keras = importorskip("keras")

import everystate as es

B, T, D, U = 3, 6, 2, 4
NAMES = ("fast", "slow")
jnp = jax.numpy
X = np.random.default_rng(0).normal(size=(B, T, D)).astype("float32")
W = np.random.default_rng(1).normal(size=(D, U)).astype("float32")


def step(x_w, fast, slow):
    """Two leaky integrators, the slow one of the fast one's square."""
    fast = 0.5 * fast + x_w
    return fast, 0.9 * slow + 0.1 * fast * fast


def expected(keep=0.9):
    fast = slow = np.zeros((B, U))
    found = {"fast": [], "slow": []}
    for t in range(T):
        fast = fast / 2 + X[:, t].astype(float) @ W.astype(float)
        slow = keep * slow + fast**2 / 10
        found["fast"].append(fast)
        found["slow"].append(slow)
    return {name: np.stack(values, axis=1) for name, values in found.items()}


def zeros(xp=np):
    return xp.zeros((B, U), "float32"), xp.zeros((B, U), "float32")


class Torch(torch.nn.Module):
    everystate_states = NAMES

    def forward(self, x, state):
        return step(x @ torch.from_numpy(W), *state)


def in_torch():
    class Model(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.cell = Torch()

        def forward(self, x):
            state = tuple(map(torch.from_numpy, zeros()))
            for x_t in x.unbind(1):
                state = self.cell(x_t, state)
            return state[0]

    x = torch.from_numpy(X.swapaxes(0, 1).copy())
    out = es.unroll(Torch(), x, tuple(map(torch.from_numpy, zeros())))
    return es.record(Model(), torch.from_numpy(X)), "cell", out.states


def on_numpy():
    def cell(x, state):
        return step(x @ W, *state)

    cell.everystate_states = NAMES
    x = X.swapaxes(0, 1)
    return es.record(cell, x, zeros()), "cell", es.unroll(cell, x, zeros()).states


class Keras(keras.layers.Layer):
    everystate_states = NAMES

    def __init__(self):
        super().__init__()
        self.state_size, self.output_size = [U, U], U

    def build(self, shape):
        self.kernel = self.add_weight(shape=(shape[-1], U), name="kernel")

    def call(self, x, states):
        fast, slow = step(keras.ops.matmul(x, self.kernel), *states)
        return fast, [fast, slow]


def in_keras():
    layer = keras.layers.RNN(Keras(), return_sequences=True, name="cell")
    model = keras.Sequential([keras.Input((T, D)), layer])
    layer.set_weights([W])
    states = es.unroll(layer, X).states
    turned = {
        n: np.swapaxes(keras.ops.convert_to_numpy(states[a][n]), 0, 1)
        for a in states
        for n in NAMES
    }
    return es.record(model, X), "cell", turned


class Equinox(eqx.Module):
    everystate_states = NAMES
    kernel: jax.Array

    def __call__(self, x, state):
        return step(x @ self.kernel, *state)


class Scanned(eqx.Module):
    cell: Equinox

    def __call__(self, x):
        def body(state, x_t):
            state = self.cell(x_t, state)
            return state, state[0]

        return jax.lax.scan(body, zeros(jnp), x.swapaxes(0, 1))[1]


def in_equinox():
    model, x = Scanned(Equinox(jnp.asarray(W))), jnp.asarray(X)
    out = es.unroll(model.cell, x.swapaxes(0, 1), zeros(jnp))
    return es.record(model, x), "cell", out.states


class Nnx(nnx.RNNCellBase):
    everystate_states = NAMES

    def __init__(self):
        self.kernel = nnx.Param(jnp.asarray(W))

    def __call__(self, carry, x):
        carry = step(x @ self.kernel[...], *carry)
        return carry, carry[0]

    def initialize_carry(self, shape, rngs=None, carry_init=None):
        return zeros(jnp)

    @property
    def num_feature_axes(self):
        return 1


class InNnx(nnx.Module):
    def __init__(self):
        self.cell = nnx.RNN(Nnx())

    def __call__(self, x):
        return self.cell(x)


def in_nnx():
    states = es.unroll(InNnx().cell, X).states
    turned = {name: jnp.swapaxes(getattr(states, name), 0, 1) for name in NAMES}
    return es.record(InNnx(), X), "cell", turned


class Linen(linen.RNNCellBase):
    everystate_states = NAMES

    @linen.compact
    def __call__(self, carry, x):
        kernel = self.param("kernel", lambda _key: jnp.asarray(W))
        carry = step(x @ kernel, *carry)
        return carry, carry[0]

    def initialize_carry(self, rng, shape):
        return zeros(jnp)

    @property
    def num_feature_axes(self):
        return 1


class InLinen(linen.Module):
    def setup(self):
        self.cell = linen.RNN(Linen())

    def __call__(self, x):
        return self.cell(x)


def in_linen():
    module = InLinen()
    return es.record(module.bind(module.init(jax.random.key(0), X)), X), "cell", None


MAKERS = {
    "PyTorch": in_torch,
    "NumPy": on_numpy,
    "Keras": in_keras,
    "Equinox": in_equinox,
    "Flax NNX": in_nnx,
    "Flax Linen": in_linen,
}


@pytest.mark.parametrize("framework", MAKERS)
def test_recorded_and_unrolled_with_the_same_names(framework):
    trace, path, states = MAKERS[framework]()
    leaf, wanted = trace[path], expected()
    assert set(leaf.data_vars) == {*NAMES, "initial_fast", "initial_slow"}
    shown = {name: leaf[name].values for name in NAMES}
    oracles.assert_close(shown, wanted, 2e-6)
    assert {leaf[name].attrs["origin"] for name in NAMES} == {"observed"}
    with mutations.must_be_noticed("another time constant"):
        oracles.assert_close(shown, expected(0.8), 1e-3)
    if states is not None:
        found = {
            name: np.asarray(states[name] if isinstance(states, dict) else getattr(states, name))
            for name in NAMES
        }
        oracles.assert_close(found, {n: a.swapaxes(0, 1) for n, a in wanted.items()}, 2e-6)
    assert "range of" in str(es.summary(trace))
