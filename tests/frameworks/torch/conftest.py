"""One thread for PyTorch: its threads would wait for each other wherever tests run side by side."""

import pytest

from everystate.testing import importorskip


@pytest.fixture(scope="session", autouse=True)
def _one_thread():
    torch = importorskip("torch")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
