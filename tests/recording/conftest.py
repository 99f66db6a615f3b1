import numpy as np
import pytest

from everystate.recording import spans, stretches
from everystate.testing import importorskip


@pytest.fixture(params=["numpy", "torch", "jax"])
def asarray(request):
    """Return a function that makes a float64 array of one library, which shares no memory."""
    if request.param == "numpy":
        yield np.array
    elif request.param == "torch":
        torch = importorskip("torch")
        yield lambda a: torch.from_numpy(np.array(a))
    else:
        jax = importorskip("jax")
        with jax.enable_x64(True):
            yield jax.numpy.array


@pytest.fixture
def tiny_blocks(monkeypatch):
    """Cut time into blocks of one step."""
    monkeypatch.setattr(spans, "BLOCKS", 1)
    monkeypatch.setattr(stretches, "BLOCK_BYTES", 1)
    monkeypatch.setattr(stretches, "BLOCK_ROWS", 1)
