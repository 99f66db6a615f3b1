"""`recording(store=)`: a stream that its user drives, readable while it grows."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

import everystate as es
from everystate.analysis.reducers import Moments, Range
from everystate.errors import (
    IncompleteTraceError,
    JoinError,
    NothingRecordedError,
    SelectionError,
    TraceWriteError,
)
from everystate.storage import layout
from everystate.testing import importorskip

torch = importorskip("torch")
from torch import nn

B, D, U = 2, 3, 5


@pytest.fixture
def lstm() -> nn.LSTM:
    torch.manual_seed(4)
    return nn.LSTM(D, U)


@pytest.fixture
def x() -> torch.Tensor:
    return torch.randn(150, B, D, generator=torch.Generator().manual_seed(5))


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks of 32 steps, and arrays that soon are too short."""
    monkeypatch.setattr(layout, "SHARD_BYTES", 4 * B * U * 32)
    monkeypatch.setattr(layout, "CHUNK_BYTES", 4 * B * U * 16)
    monkeypatch.setattr("everystate.storage.append.BEGIN", 32)


def expected(lstm: nn.LSTM, x: torch.Tensor, **options) -> xr.DataTree:
    return es.record(lstm, x, **options)


def run(model: nn.Module, path: Path, calls: Callable[[], object]) -> None:
    with es.recording(model, store=path, along="time"):
        calls()


def assert_close(got: xr.DataTree, expected: xr.DataTree, steps: int) -> None:
    leaf = expected["lstm"].to_dataset().isel(time=slice(0, steps))
    assert got["lstm"].sizes == leaf.sizes
    xr.testing.assert_allclose(got["lstm"].to_dataset(), leaf, atol=1e-5)


@pytest.mark.parametrize("lengths", [(40, 7, 60, 1, 42), (1,) * 70, (150,)])
def test_a_stream_is_what_one_call_gives(lstm, x, lengths, tmp_path, small_blocks):
    path, state = tmp_path / "run.zarr", None
    with es.recording(lstm, store=path, along="time") as rec:
        for chunk in x[: sum(lengths)].split(lengths):
            _, state = lstm(chunk, state)
    trace = es.open_trace(path)
    assert_close(trace, expected(lstm, x[: sum(lengths)]), sum(lengths))
    assert trace.attrs["complete"] == 1
    xr.testing.assert_identical(rec.trace.load(), trace.load())
    assert "state_resets" not in trace["lstm"].attrs


def test_a_reader_follows_it(lstm, x, tmp_path, small_blocks):
    path, whole, state, seen = tmp_path / "run.zarr", expected(lstm, x), None, []
    with es.recording(lstm, store=path, along="time") as rec:
        for k, chunk in enumerate(x.split(10)):
            _, state = lstm(chunk, state)
            if k == 0:
                assert not path.exists()
            if k in (1, 8):
                rec.flush()
            if k:
                follower = es.open_trace(path, incomplete="trim")
                seen.append(follower["lstm"].sizes["time"])
                assert_close(follower, whole, seen[-1])
                with pytest.raises(IncompleteTraceError, match="still being written"):
                    es.open_trace(path)
    # Whole blocks of 32 steps can be read at once, whatever has begun after a flush.
    assert seen == [20, 20, 32, 32, 32, 64, 64, 90, 96, 96, 96, 128, 128, 128]
    assert_close(es.open_trace(path), whole, 150)


def test_the_trace_is_there_inside_of_the_block(lstm, x, tmp_path):
    whole, state = expected(lstm, x), None
    with es.recording(lstm, store=tmp_path / "run.zarr", along="time") as rec:
        with pytest.raises(NothingRecordedError):
            _ = rec.trace
        _, state = lstm(x[:40], state)
        assert_close(rec.trace, whole, 40)
        _, state = lstm(x[40:], state)
        assert "lstm 150 steps" in repr(rec)


def test_steps_one_by_one_in_a_loop(x, tmp_path, small_blocks):
    torch.manual_seed(6)
    cell, h = nn.GRUCell(D, U), torch.zeros(B, U)
    with es.recording(cell, along="time") as rec:
        for x_t in x:
            h = cell(x_t, h)
    h = torch.zeros(B, U)
    with es.recording(cell, store=tmp_path / "run.zarr", along="time"):
        for x_t in x:
            h = cell(x_t, h)
    got = es.open_trace(tmp_path / "run.zarr")["grucell"].to_dataset()
    xr.testing.assert_allclose(got, rec.trace["grucell"].to_dataset())


def test_a_break_in_the_stream_is_told(lstm, x, tmp_path):
    path = tmp_path / "run.zarr"
    with pytest.warns(match="do not start from the state the call before ended with, at steps 50"):
        run(lstm, path, lambda: (lstm(x[:50]), lstm(x[50:])))
    assert es.open_trace(path)["lstm"].attrs["state_resets"] == "50"


def test_what_was_recorded_before_an_error_is_kept(lstm, x, tmp_path):
    path = tmp_path / "run.zarr"
    with pytest.raises(ZeroDivisionError):
        run(lstm, path, lambda: (lstm(x[:50]), 1 / 0))
    assert_close(es.open_trace(path, incomplete="trim"), expected(lstm, x), 50)
    with pytest.raises(TraceWriteError, match="the path is taken"):
        es.recording(lstm, store=path, along="time").__enter__()
    with es.recording(lstm, store=path, along="time", overwrite=True):
        lstm(x[:9])
    assert_close(es.open_trace(path), expected(lstm, x), 9)


def test_nobody_knows_of_how_many_steps_a_growing_stream_is(lstm, x, tmp_path):
    path = tmp_path / "run.zarr"
    with es.recording(lstm, store=path, along="time") as rec:
        lstm(x[:50])
        rec.flush()
        with pytest.raises(IncompleteTraceError, match=r"written: /lstm 50 steps so far\."):
            es.open_trace(path)
    assert es.open_trace(path)["lstm"].sizes["time"] == 50


def test_reductions_beside_a_trace_or_in_its_place(lstm, x, tmp_path):
    whole, state = expected(lstm, x)["lstm"], None
    kinds = {"moments": Moments(), "range": Range}
    with es.recording(lstm, reduce=kinds, along="time", select=es.Select(variables="c")) as rec:
        for chunk in x.split(40):
            _, state = lstm(chunk, state)
    np.testing.assert_allclose(
        rec.trace["lstm/c/moments"]["mean"], whole.c.mean(("batch", "time")), atol=1e-6
    )
    both = es.record(lstm, x, reduce=[Moments, Range], store=tmp_path / "run.zarr", chunk=64)
    assert set(both["lstm/h"].children) == {"moments", "range"}
    np.testing.assert_allclose(
        both["lstm/f/moments"]["mean"], whole.f.mean(("batch", "time")), atol=1e-6
    )
    assert_close(es.open_trace(tmp_path / "run.zarr"), expected(lstm, x), 150)


def test_what_is_no_stream_is_refused(lstm, x, tmp_path):
    path = tmp_path / "run.zarr"
    for options, said in [
        ({"store": path}, "along='batch': store= and reduce= record one stream"),
        ({"store": path, "along": "time", "resume": True}, "resume= is for es.record"),
        ({"along": "time", "memory": "1GB"}, "memory= is for recordings that are written"),
        ({"along": "time", "reduce": 3}, "reduce='int' is a int: expected a reducer"),
    ]:
        with pytest.raises(SelectionError, match=said):
            es.recording(lstm, **options).__enter__()
    shared = nn.Sequential()
    shared.lstm = lstm
    shared.forward = lambda x: (lstm(x), lstm(x))
    with pytest.raises(JoinError, match="called several times in one call of the model"):
        run(shared, tmp_path / "shared.zarr", lambda: shared(x))
    packed = nn.utils.rnn.pack_padded_sequence(x, [150, 90])
    with pytest.raises(JoinError, match="has rows shorter than the 150 steps"):
        run(lstm, path, lambda: lstm(packed))
    assert not path.exists()
