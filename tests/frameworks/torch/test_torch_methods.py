"""Models called otherwise: by a method of theirs, or with arguments by name."""

from functools import partial

import numpy as np
import pytest

from everystate.testing import importorskip

torch = importorskip("torch")

from torch import nn

import everystate as es
import torch_reference as ref
from everystate.errors import UncuttableError, UnsupportedModelError

T, B, D, H = 7, 3, 4, 5


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.gru = nn.GRU(D, H)
        self.cell = nn.LSTMCell(H, D)

    def forward(self, x, *, scale=1.0):
        return self.gru(scale * x)[0]

    def generate(self, x, steps):
        y, state = self.gru(x)[0][-1], None
        for _ in range(steps):
            state = self.cell(y, state)
            y = self.gru(state[0][None])[0][0]
        return y


def batch(steps):
    return ref.random(steps, B, D, seed=2, dtype=torch.float32)


@pytest.fixture
def model():
    return ref.randomise(Model(), seed=1)


def test_arguments_by_name(model):
    x = batch(T)
    trace = es.record(partial(model, scale=3.0), x)
    np.testing.assert_array_equal(trace["gru"].h, es.record(model, 3.0 * x)["gru"].h)
    assert float(abs(trace["gru"].h - es.record(model, x)["gru"].h).max()) > 0.1
    assert trace.attrs["model"] == "Model"


def test_a_method_of_the_model(model):
    x = batch(T)
    trace = es.record(model.generate, x, 6)
    assert trace["cell"].sizes["time"] == 6
    _, c = model.cell(model.gru(x)[0][-1])
    np.testing.assert_allclose(trace["cell"].c.isel(time=0), c.detach(), atol=1e-6)
    assert es.record(partial(model.generate, steps=2), x)["cell"].sizes["time"] == 2


def test_in_a_block_too(model):
    x = batch(T)
    with es.recording(model.generate) as rec:
        model.generate(x, 3)
    assert rec.trace["cell"].sizes["time"] == 3


def test_cut_in_time_with_arguments_by_name(model, tmp_path):
    x = batch(90)
    whole = es.record(partial(model, scale=2.0), x)
    cut = es.record(
        partial(model, scale=2.0), x.numpy(), store=tmp_path / "t.zarr", chunk=40, time_axis=0
    )
    np.testing.assert_allclose(cut["gru"].h, whole["gru"].h, atol=1e-6)


def test_a_layer_given_its_state_by_name_is_not_cut(tmp_path):
    layer = nn.GRU(D, H)
    given = partial(layer, hx=torch.ones(1, B, H))
    x = batch(90)
    assert float(es.record(given, x)["gru"].initial_h.min()) == 1.0
    with pytest.raises(UncuttableError, match="given its state"):
        es.record(given, x.numpy(), store=tmp_path / "t.zarr", chunk=40, memory="1KB")


def test_methods_stay_pytorchs_where_jax_is_loaded(model):
    importorskip("jax")
    assert "gru" in es.record(model.generate, batch(T), 2).children


def test_a_plain_function_is_told_from_a_model():
    from everystate.frameworks import torch as framework

    assert not framework.matches(lambda x: x)
    assert not framework.matches(partial(print, 1))
    assert not framework.matches("text".upper)
    with pytest.raises(UnsupportedModelError, match="has no recurrent layer"):
        es.record(partial(nn.Linear(2, 2)), torch.ones(3, 2))
