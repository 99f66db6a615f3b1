"""A model that one thread records is refused to another; models of their own are not."""

import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

import everystate as es
from everystate.errors import BusyModelError
from everystate.recording.alone import alone
from everystate.testing import importorskip


def torch_model():
    torch = importorskip("torch")
    return torch.nn.Sequential(torch.nn.LSTM(3, 4)), np.float32


def keras_model():
    keras = importorskip("keras")
    return keras.Sequential([keras.Input((5, 3)), keras.layers.GRU(4)]), np.float32


def nnx_model():
    nnx = importorskip("flax.nnx")
    return nnx.RNN(nnx.GRUCell(3, 4, rngs=nnx.Rngs(0))), np.float32


@pytest.mark.parametrize("make", [torch_model, keras_model, nnx_model])
def test_another_thread_is_refused_and_this_one_goes_on(make):
    model, dtype = make()
    x = np.random.default_rng(1).normal(size=(2, 5, 3)).astype(dtype)
    expected = es.record(model, x)
    with ThreadPoolExecutor(1) as other:
        with es.recording(model) as recorder:
            with pytest.raises(BusyModelError, match=r"recorded in another thread.*deepcopy"):
                other.submit(es.record, model, x).result()
            model(x) if make is not torch_model else es.record(model, x)
        found = recorder.trace
        later = other.submit(es.record, model, x).result()
    for trace in (found, later):
        for leaf in expected.leaves:
            np.testing.assert_allclose(trace[leaf.path].h, leaf.h, atol=1e-6)


def test_blocks_of_one_thread_may_be_inside_one_another():
    layer, refused = object(), threading.Event()

    def elsewhere():
        with pytest.raises(RuntimeError), alone([("a", layer)]):
            pass
        refused.set()

    with alone([("a", layer), ("same", layer)]):
        with alone([("a", layer)]):
            pass
        thread = threading.Thread(target=elsewhere)
        thread.start()
        thread.join()
    assert refused.is_set()
    with ThreadPoolExecutor(1) as other, alone([("a", object())]):
        assert other.submit(alone([("a", layer)]).__enter__).result() is None
