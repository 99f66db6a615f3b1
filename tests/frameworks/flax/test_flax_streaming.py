"""Layers of Flax NNX in chunks of time: the carry is handed on."""

import numpy as np
import pytest

from everystate.testing import importorskip

importorskip("flax")
from flax import nnx

import everystate as es
import streamed
from everystate.errors import UncuttableError

B, T, D, U = 2, 150, 3, 5


@pytest.fixture
def x() -> np.ndarray:
    return np.random.default_rng(0).normal(size=(B, T, D)).astype("float32")


@pytest.mark.parametrize("cell", [nnx.LSTMCell, nnx.GRUCell])
def test_cutting_changes_no_value(x, cell, tmp_path):
    streamed.check(nnx.RNN(cell(D, U, rngs=nnx.Rngs(1))), x, tmp_path)


class Tagger(nnx.Module):
    """Two layers; whoever calls it with a state gets one back."""

    def __init__(self, rngs):
        self.lower = nnx.RNN(nnx.GRUCell(D, 4, rngs=rngs))
        self.upper = nnx.RNN(nnx.LSTMCell(4, U, rngs=rngs))

    def __call__(self, x, state=(None, None)):
        lower, x = self.lower(x, initial_carry=state[0], return_carry=True)
        upper, x = self.upper(x, initial_carry=state[1], return_carry=True)
        return x, (lower, upper)


def test_a_model_by_a_step_of_ones_own(x, tmp_path):
    model = Tagger(nnx.Rngs(2))
    streamed.check(
        model, x, tmp_path, step=lambda x, state: model(x) if state is None else model(x, state)
    )
    with pytest.raises(UncuttableError, match="other modules by a step of yours"):
        es.record(model, x, store=tmp_path / "other.zarr", memory=20_000)
