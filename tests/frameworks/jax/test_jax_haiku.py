"""Haiku: its transformed functions are functions of JAX, and their scans carry its named states."""

from functools import partial

import numpy as np
import pytest

from everystate.errors import UnsupportedModelError
from everystate.testing import importorskip

jax = importorskip("jax")
jnp = importorskip("jax.numpy")
hk = importorskip("haiku")

import everystate as es

T, B, D, H = 6, 3, 4, 5
X = np.random.default_rng(0).normal(size=(B, T, D)).astype("float32")


def whole(x):
    core = hk.LSTM(H)
    y, _ = hk.dynamic_unroll(core, x, core.initial_state(B), time_major=False)
    return hk.Linear(2)(y)


@pytest.fixture(scope="module")
def params():
    shapes = hk.transform(whole).init(jax.random.key(1), X)
    rng = np.random.default_rng(2)  # its biases begin at zero
    return jax.tree.map(lambda a: rng.normal(0, 0.5, a.shape).astype("float32"), shapes)


def sigmoid(a):
    return 1 / (1 + np.exp(-a))


def test_states_of_every_step(params):
    trace = es.record(partial(hk.transform(whole).apply, params, None), X)
    leaf = trace["scan_0"]
    w, b = (np.asarray(params["lstm/linear"][n], np.float64) for n in ("w", "b"))
    h, c = np.zeros((B, H)), np.zeros((B, H))
    for t in range(T):  # i g f o, one added to f before its sigmoid (haiku/_src/recurrent.py)
        i, g, f, o = np.split(np.concatenate([X[:, t], h], 1) @ w + b, 4, axis=1)
        c = sigmoid(f + 1) * c + sigmoid(i) * np.tanh(g)
        h = sigmoid(o) * np.tanh(c)
        np.testing.assert_allclose(leaf.hidden.isel(time=t), h, atol=1e-5)
        np.testing.assert_allclose(leaf.cell.isel(time=t), c, atol=1e-5)
        assert np.abs(leaf.hidden.isel(time=t) - c).max() > 0.05


def test_a_pair_of_functions_is_told_what_to_give(params):
    for pair in (hk.transform(whole), hk.without_apply_rng(hk.transform(whole))):
        with pytest.raises(UnsupportedModelError, match=r"partial\(model\.apply, params, rng\)"):
            es.record(pair, X)
        with pytest.raises(UnsupportedModelError, match=r"got Transformed"), es.recording(pair):
            pass
