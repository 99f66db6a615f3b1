"""Weights files in chunks of time, on NumPy: equal to the oracle, whatever the cuts."""

import numpy as np
import pytest
from safetensors.numpy import save_file

import everystate as es
import oracles
import streamed
from everystate.errors import UncuttableError

T, B, D, U = 150, 2, 3, 5


def tensors(rng, place="_l0", features=D):
    shapes = {"weight_ih": (4 * U, features), "weight_hh": (4 * U, U)}
    shapes |= {"bias_ih": (4 * U,), "bias_hh": (4 * U,)}
    return {f"encoder.{name}{place}": rng.normal(0, 0.5, s) for name, s in shapes.items()}


@pytest.fixture
def x() -> np.ndarray:
    return np.random.default_rng(1).normal(size=(B, T, D))


def test_cutting_changes_no_value(x, tmp_path):
    rng = np.random.default_rng(0)
    layers = tensors(rng)
    save_file({**layers, **tensors(rng, "_l1", U)}, tmp_path / "w.safetensors")
    streamed.check(tmp_path / "w.safetensors", x, tmp_path)
    first = es.open_trace(tmp_path / "run.zarr")["encoder/layer_0"]
    W, R, b, b_R = (a.reshape(4, U, *a.shape[1:]) for a in layers.values())
    gates = {name: oracles.Gate(W[k], R[k], b[k], b_R[k]) for k, name in enumerate("ifgo")}
    zeros = {name: np.zeros((B, U)) for name in "hc"}
    expected = oracles.lstm(x.swapaxes(0, 1), zeros, gates)
    for name in "hcifgo":
        np.testing.assert_allclose(
            first[name].transpose("time", "batch", "unit"), expected.values[name], atol=1e-12
        )


def test_both_directions_cannot_be_cut(x, tmp_path):
    rng = np.random.default_rng(0)
    both = {**tensors(rng), **tensors(rng, "_l0_reverse")}
    save_file(both, tmp_path / "w.safetensors")
    with pytest.raises(UncuttableError, match="encoder is bidirectional"):
        es.record(tmp_path / "w.safetensors", x, store=tmp_path / "run.zarr", memory=20_000)
