"""Functions of JAX over long sequences: their layers are known by a call of the beginning."""

import os

import numpy as np
import pytest

from everystate.testing import importorskip

importorskip("jax")
import jax
import jax.numpy as jnp

import everystate as es
import streamed
from everystate.analysis.reducers import Moments
from everystate.errors import UnknownLayerError

T, B, D, U = 150, 2, 3, 5
W = jnp.asarray(np.random.default_rng(0).normal(size=(D, U)), jnp.float32)


@pytest.fixture
def x() -> np.ndarray:
    return np.random.default_rng(1).normal(size=(T, B, D)).astype("float32")


def leaky(xs):
    def step(state, x):
        v = 0.9 * state["v"] + x @ W
        return {"v": v}, v > 1.0

    return jax.lax.scan(step, {"v": jnp.full((B, U), 0.3)}, xs)[1]


def test_layers_known_only_once_the_function_is_called(x, tmp_path):
    whole = es.record(leaky, x)
    got = es.record(leaky, x, store=tmp_path / "run.zarr", time_axis=0)
    assert streamed.compare(got, whole) == 0
    reduced = es.record(leaky, x, reduce=[Moments()], time_axis=0)["scan_0/v/moments"]
    wanted = np.asarray(whole["scan_0"].v, float).reshape(-1, U).mean(0)
    np.testing.assert_allclose(reduced["mean"], wanted, rtol=1e-6)
    with pytest.raises(UnknownLayerError, match="the model has: scan_0"):
        es.record(
            leaky, x, store=tmp_path / "no.zarr", time_axis=0, select=es.Select(layers="scan_9")
        )
    assert os.listdir(tmp_path) == ["run.zarr"]
