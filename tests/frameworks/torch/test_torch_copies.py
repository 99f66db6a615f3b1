"""Copies of a model, such as the best one so far, are other models: not heard, nor kept alive."""

import copy
import gc
import weakref

import numpy as np
import pytest

from everystate.testing import importorskip

torch = importorskip("torch")

from torch import nn

import everystate as es
import torch_reference as ref

T, B, D, H = 7, 3, 4, 5


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.gru = nn.GRU(D, H)

    def forward(self, x):
        return self.gru(x)[0]


class Own(nn.Module):
    everystate_states = ("v",)

    def forward(self, x, v):
        return 0.5 * v + x


def batch(seed):
    return ref.random(T, B, D, seed=seed, dtype=torch.float32)


def run(model, x):
    """Call a model as it is meant to be: a cell of one's own step by step."""
    if not isinstance(model, Own):
        return model(x)
    v = torch.zeros(B, D)
    for x_t in x:
        v = model(x_t, v)
    return v


@pytest.mark.parametrize("make", [lambda: nn.LSTM(D, H), Model, Own], ids=["layer", "model", "own"])
def test_a_copy_is_heard_neither_in_the_block_nor_after_it(make):
    model = make()
    with es.recording(model) as rec:
        run(model, batch(1))
        best = copy.deepcopy(model)
        run(best, batch(2))
    run(best, batch(2))
    with es.recording(model) as alone:
        run(model, batch(1))
    leaf, expected = rec.trace.leaves[0].to_dataset(), alone.trace.leaves[0].to_dataset()
    assert leaf.sizes["batch"] == B
    assert leaf.identical(expected)


def test_what_was_recorded_is_let_go_though_a_copy_lives_on():
    model = Model()
    with es.recording(model) as rec:
        model(batch(1))
        best = copy.deepcopy(model)
    gone = weakref.ref(rec)
    del rec
    gc.collect()
    assert gone() is None
    assert best(batch(1)).shape == (T, B, H)


def test_a_copy_can_be_recorded_itself_in_the_same_block():
    model, x = Model(), batch(1)
    with es.recording(model) as rec:
        model(x)
        best = copy.deepcopy(model)
        with es.recording(best) as other:
            best(2 * x)
    np.testing.assert_array_equal(other.trace["gru"].h, es.record(model, 2 * x)["gru"].h)
    np.testing.assert_array_equal(rec.trace["gru"].h, es.record(model, x)["gru"].h)


def test_replicas_that_data_parallel_makes_are_the_model():
    layer = nn.GRU(D, H)
    with es.recording(layer) as rec:
        replica = layer._replicate_for_data_parallel()
        for name, weight in layer.named_parameters():
            setattr(replica, name, weight.detach())
        replica(batch(1))
    np.testing.assert_array_equal(rec.trace["gru"].h, es.record(layer, batch(1))["gru"].h)
