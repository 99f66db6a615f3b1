"""Replay and writing beside the model or in turn with it: the same trace, and the same errors."""

import threading
import warnings
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

import everystate as es
from everystate.frameworks.torch.streaming import stream
from everystate.streaming import running
from everystate.streaming.recorder import StreamRecorder
from everystate.streaming.worker import Worker, cores
from everystate.testing import importorskip

torch = importorskip("torch")


@pytest.fixture
def model():
    torch.manual_seed(4)
    return torch.nn.LSTM(3, 5, num_layers=2).eval()


@pytest.fixture
def x():
    return np.random.default_rng(5).normal(size=(700, 2, 3)).astype(np.float32)


@pytest.fixture
def on(monkeypatch):
    """Pretend that this machine has so many cores for every thread that PyTorch uses."""

    def pretend(per_thread: int) -> None:
        there = per_thread * torch.get_num_threads()
        monkeypatch.setattr(running, "cores", lambda: there)

    return pretend


@pytest.fixture
def threads(monkeypatch):
    """Collect the threads that replay."""
    found, record = set(), StreamRecorder._record

    def noted(self, *args):
        found.add(threading.current_thread())
        record(self, *args)

    monkeypatch.setattr(StreamRecorder, "_record", noted)
    return found


def test_replay_goes_on_beside_the_model_only_where_cores_are_left(model, x, on, threads, tmp_path):
    traces = []
    for cores_per_thread in (1, 2):
        on(cores_per_thread)
        threads.clear()
        path = tmp_path / f"{cores_per_thread}.zarr"
        traces.append(es.record(model, x, store=path, chunk=256).load())
        assert (threads == {threading.main_thread()}) == (cores_per_thread == 1)
        assert len(threads) == 1
    in_turn, beside = traces
    for leaf in beside.leaves:
        for name in leaf.variables:
            np.testing.assert_array_equal(in_turn[leaf.path][name], leaf[name])
        assert in_turn[leaf.path].attrs == leaf.attrs


def test_a_model_that_writes_into_what_it_was_shown_is_recorded_as_it_was(x, on, tmp_path):
    class Writes(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.lstm = torch.nn.LSTM(3, 5)

        def forward(self, x):
            return self.lstm(x)[0].mul_(2.0)

    torch.manual_seed(4)
    model = Writes().eval()
    expected = es.record(model.lstm, x)["lstm"]
    for cores_per_thread in (1, 2):
        on(cores_per_thread)
        path = tmp_path / f"{cores_per_thread}.zarr"
        got = es.record(model, x, store=path, chunk=256)["lstm"]
        np.testing.assert_allclose(got.h, expected.h, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("cores_per_thread", [1, 2])
def test_what_was_complete_before_an_error_stays(model, x, on, cores_per_thread, tmp_path):
    on(cores_per_thread)
    step = stream(model).step

    def stops(chunk, state, calls=[]):  # noqa: B006
        calls.append(len(chunk))
        if sum(calls) > 512:
            raise ZeroDivisionError
        return step(chunk, state)

    with pytest.raises(ZeroDivisionError):
        es.record(model, x, store=tmp_path / "run.zarr", chunk=256, step=stops)
    so_far = es.open_trace(tmp_path / "run.zarr", incomplete="trim")
    assert so_far["lstm/layer_1"].sizes["time"] == 512
    assert so_far.attrs["complete"] == 0


@pytest.mark.parametrize("beside", [True, False])
def test_tasks_run_in_order_and_none_after_one_that_failed(beside):
    worker, done = Worker(beside=beside), []
    worker.submit(done.append, 1)
    worker.wait(worker.submit(done.append, 2))
    with pytest.raises(ZeroDivisionError):
        worker.wait(worker.submit(lambda: 1 / 0))
    try:
        worker.submit(done.append, 3)  # with a thread, this may be where the error is told again
        worker.wait()
    except ZeroDivisionError:
        assert beside
    worker.close()
    assert done == [1, 2]


def test_threads_are_counted_as_they_are_now(model):
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        assert stream(model).threads() == 3
    finally:
        torch.set_num_threads(before)
    assert stream(model.to("meta")).threads() == 1  # another device, which has threads of its own
    assert cores() >= 1


def test_recordings_in_several_threads_leave_the_filters_of_warnings_as_they_were(tmp_path):
    x = np.random.default_rng(3).normal(size=(100, 1, 2)).astype(np.float32)
    models = [torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.GRU(3, 4)) for _ in range(8)]

    def recorded(k: int) -> float:
        trace = es.record(models[k], x, store=tmp_path / f"{k}.zarr", chunk=32)
        return float(abs(trace["1"].h - es.record(models[k], x)["1"].h).max())

    recorded(0)  # what is imported now may have filters of its own
    filters = list(warnings.filters)
    with ThreadPoolExecutor(4) as pool:
        assert max(pool.map(recorded, range(1, 8))) < 1e-6
    assert warnings.filters == filters
