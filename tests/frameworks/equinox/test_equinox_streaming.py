"""Modules of Equinox in chunks of time: their scans go on, whatever cells they step."""

from functools import partial

import numpy as np
import pytest

from everystate.testing import StreamContract, importorskip

eqx = importorskip("equinox")
import jax
import jax.numpy as jnp

import everystate as es
import streamed
from everystate.errors import UncuttableError
from everystate.frameworks import equinox as framework

T, B, D, U, K = 150, 2, 3, 5, 4
LITTLE = 10_000
"""Memory that no sequence here fits into whole."""


def sequence() -> np.ndarray:
    return np.random.default_rng(1).normal(size=(T, B, D)).astype("float32")


@pytest.fixture
def x() -> np.ndarray:
    return sequence()


class Stack(eqx.Module):
    """A scan that steps two cells over a batch, and another above it."""

    lstm: eqx.nn.LSTMCell
    gru: eqx.nn.GRUCell
    top: eqx.nn.GRUCell
    reverse: bool = False

    def __init__(self, reverse=False):
        keys = jax.random.split(jax.random.key(0), 3)
        self.lstm = eqx.nn.LSTMCell(D, U, key=keys[0])
        self.gru = eqx.nn.GRUCell(U, K, key=keys[1])
        self.top = eqx.nn.GRUCell(K, U, key=keys[2])
        self.reverse = reverse

    def __call__(self, xs):
        def both(state, x):
            lower = jax.vmap(self.lstm)(x, state[0])
            upper = jax.vmap(self.gru)(lower[0], state[1])
            return (lower, upper), upper

        def above(state, x):
            h = jax.vmap(self.top)(x, state)
            return h, h

        begin = (jnp.full((B, U), 0.1), jnp.full((B, U), -0.4)), jnp.ones((B, K))
        ys = jax.lax.scan(both, begin, xs)[1]
        return jax.lax.scan(above, jnp.full((B, U), 0.2), jax.nn.relu(ys), reverse=self.reverse)[1]


class TestStack(StreamContract):
    framework = framework

    def model(self):
        return eqx.filter_jit(Stack())

    def sequence(self):
        return sequence()


def test_a_step_of_ones_own_that_scans_a_cell(x, tmp_path):
    model, begin, lengths = Stack(), (jnp.full(U, 0.3),) * 2, []

    def step(xs, state):
        lengths.append(len(xs))
        h, seen, name = (begin, 0, "ann") if state is None else state
        h, ys = _run(model, xs, h)
        return ys, (h, seen + len(xs), name)

    options = {"step": step, "time_axis": 0, "chunk": 37}
    got = es.record(model, x[:, 0], store=tmp_path / "run.zarr", **options)
    whole = es.record(partial(_run, model), x[:, 0], begin)
    assert got.groups == ("/", "/lstm")
    assert streamed.compare(got, whole) == 0
    assert lengths.count(37) == 2  # without a state, and with one, whatever is counted in it


def _run(model, xs, begin):
    def step(h, x):
        h = model.lstm(x, h)
        return h, h[0]

    return jax.lax.scan(step, begin, xs)


def test_what_cannot_be_cut(x, tmp_path):
    with pytest.raises(UncuttableError, match=r"a scan \(above .*\) reads backwards"):
        es.record(Stack(reverse=True), x, store=tmp_path / "run.zarr", memory=LITTLE)
