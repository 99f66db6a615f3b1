"""Event windows: only the steps near events are stored, whichever chunks they fall into."""

from types import FunctionType

import numpy as np
import pytest
import xarray as xr

import everystate as es
from everystate.errors import EverystateWarning, ResumeError, SelectionError
from everystate.storage import layout
from everystate.streaming.around import Windows
from everystate.testing import importorskip

torch = importorskip("torch")

T, B, D, U = 400, 2, 3, 5


@pytest.fixture
def gru() -> torch.nn.GRU:
    torch.manual_seed(7)
    return torch.nn.GRU(D, U)


@pytest.fixture
def x() -> np.ndarray:
    return np.random.default_rng(8).normal(size=(T, B, D)).astype(np.float32)


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layout, "SHARD_BYTES", 4 * B * U * 32)
    monkeypatch.setattr(layout, "CHUNK_BYTES", 4 * B * U * 16)


def near(events: list[int], before: int, after: int) -> list[int]:
    """The steps to keep, by the definition."""
    return [t for t in range(T) if any(e - before <= t <= e + after for e in events)]


def check(trace: xr.DataTree, whole: xr.DataTree, steps: list[int]) -> None:
    assert trace["gru"].time.values.tolist() == steps
    expected = whole["gru"].to_dataset().sel(time=steps)
    xr.testing.assert_allclose(trace["gru"].to_dataset(), expected, atol=1e-5)


@pytest.mark.parametrize(
    ("events", "before", "after"),
    [
        ([0, 63, 64, 399], 0, 0),
        ([5, 130, 131, 200], 70, 3),
        ([100, 190], 2, 150),
        ([], 5, 5),
        ([398], 399, 0),
    ],
)
def test_given_steps(gru, x, events, before, after, tmp_path):
    around = es.Around(before, after, steps=events)
    got = es.record(gru, x, store=tmp_path / "run.zarr", chunk=64, around=around)
    check(got, es.record(gru, x), near(events, before, after))


def test_a_score_of_input_and_output(gru, x, tmp_path):
    def score(chunk, output):
        assert len(chunk) == len(output[0])
        return np.abs(output[0].numpy()).max(axis=(1, 2)) + (chunk[:, 0, 0] > 2)

    whole = es.record(gru, x)
    scores = np.abs(whole["gru"].h).max(("batch", "unit")).values + (x[:, 0, 0] > 2)
    events = np.flatnonzero(scores > 1).tolist()
    assert 3 < len(events) < 60
    around = es.Around(before=4, after=2, score=score, threshold=1)
    got = es.record(gru, x, store=tmp_path / "run.zarr", chunk=64, around=around)
    check(got, whole, near(events, 4, 2))


class StopError(Exception):
    pass


@pytest.mark.parametrize("stop", [64, 192, 320])
def test_resumed_it_is_the_same(gru, x, stop, tmp_path):
    def progress(done, total):
        if done >= stop:
            raise StopError

    around = es.Around(before=80, after=9, steps=[60, 75, 210, 330])
    options = {"store": tmp_path / "run.zarr", "around": around}
    with pytest.raises(StopError):
        es.record(gru, x, chunk=64, progress=progress, **options)
    got = es.record(gru, x, resume=True, **options)
    check(got, es.record(gru, x), near([60, 75, 210, 330], 80, 9))


@pytest.mark.parametrize("stop", [64, 192, 320, T, T + 1])
def test_resumed_from_an_iterator_it_is_the_same(gru, x, stop, tmp_path, monkeypatch):
    """Stopped in the middle, at the last step, and after it, before the trace was completed."""

    def progress(done, total):
        if done >= stop:
            raise StopError

    def chunks():
        return iter(np.split(x, [7, 150, 151, 333]))

    around = es.Around(before=80, after=9, steps=[60, 75, 210, 330, T - 2])
    options = {"store": tmp_path / "run.zarr", "around": around, "chunk": 64}
    with monkeypatch.context() as patch:
        if stop > T:
            patch.setattr("everystate.streaming.around.Windows.finish", raise_stop)
        with pytest.raises(StopError):
            es.record(gru, chunks(), progress=progress, **options)
    got = es.record(gru, chunks(), resume=True, **options)
    check(got, es.record(gru, x), near([60, 75, 210, 330, T - 2], 80, 9))


def test_other_windows_are_refused(gru, x, tmp_path):
    options = {"store": tmp_path / "run.zarr", "chunk": 64}
    around = es.Around(before=80, after=9, steps=[60, 75])
    es.record(gru, x, around=around, **options)
    for other in (
        es.Around(before=80, after=8, steps=[60, 75]),
        es.Around(before=80, after=9, steps=[60, 76]),
        None,
    ):
        with pytest.raises(ResumeError, match=r"differs in around: 80 before, 9 after.* and now "):
            es.record(gru, x, around=other, resume=True, **options)
    es.record(gru, x, around=es.Around(80, 9, steps=np.array([60, 75])), resume=True, **options)


def test_another_score_is_refused(gru, x, tmp_path):
    options = {"store": tmp_path / "run.zarr", "chunk": 64}

    def windows(score) -> es.Around:
        return es.Around(before=3, after=5, score=score, threshold=2)

    es.record(gru, x, around=windows(lambda x, y: np.abs(x[:, :, 0]).max(1)), **options)
    for other in (
        lambda x, y: np.abs(x[:, :, 1]).max(1),
        lambda x, y: np.abs(x[:, :, 0]).min(1),
        lambda x, y: -np.abs(x[:, :, 0]).max(1),
    ):
        with pytest.raises(
            ResumeError, match=r"differs in around: .*<lambda>.* and now .*<lambda>"
        ):
            es.record(gru, x, around=windows(other), resume=True, **options)
    again = windows(lambda x, y: np.abs(x[:, :, 0]).max(1))  # elsewhere, but it computes the same
    got = es.record(gru, x, around=again, resume=True, **options)
    events = np.flatnonzero(np.abs(x[:, :, 0]).max(1) > 2).tolist()
    check(got, es.record(gru, x), near(events, 3, 5))


def test_a_set_in_a_score_has_no_order():
    """Texts come in another order in another process, as these do."""

    def score(x, y):
        return x in {0, 8}

    def described(*numbers: int) -> str:
        constants = tuple(
            frozenset(numbers) if isinstance(constant, frozenset) else constant
            for constant in score.__code__.co_consts
        )
        other = FunctionType(score.__code__.replace(co_consts=constants), {})
        return es.Around(1, 1, score=other, threshold=1).described

    assert repr(frozenset([0, 8])) != repr(frozenset([8, 0]))
    assert described(0, 8) == described(8, 0)
    assert described(0, 8) != described(0, 9)


def test_windows_that_another_version_kept(gru, x, tmp_path, monkeypatch):
    def progress(done, total):
        if done >= 64:
            raise StopError

    options = {"store": tmp_path / "run.zarr", "around": es.Around(3, 5, steps=[9, 99])}
    with monkeypatch.context() as patch:
        patch.setattr(Windows, "state", lambda self: {"events": self._events, "held": {}})
        with pytest.raises(StopError):
            es.record(gru, x, chunk=64, progress=progress, **options)
    with pytest.raises(ResumeError, match=r"around= cannot be gone on with \(KeyError: 'stop'\)"):
        es.record(gru, x, resume=True, **options)
    kept = es.open_trace(tmp_path / "run.zarr", incomplete="trim")["gru"]
    assert kept.time.values.tolist() == near([9], 3, 5)


def raise_stop(self):
    raise StopError


def test_a_score_that_fails_loses_no_event(gru, x, tmp_path):
    calls = []

    def score(chunk, output):
        calls.append(len(chunk))
        if len(calls) == 3:
            raise StopError
        return (abs(chunk[:, 0, 0]) > 2).astype(float)

    around = es.Around(before=3, after=5, score=score, threshold=0.5)
    options = {"store": tmp_path / "run.zarr", "around": around, "chunk": 64}
    with pytest.raises(StopError):
        es.record(gru, x, **options)
    got = es.record(gru, x, resume=True, **options)
    events = np.flatnonzero(abs(x[:, 0, 0]) > 2).tolist()
    assert len([t for t in events if 128 <= t < 192]) > 0
    check(got, es.record(gru, x), near(events, 3, 5))


def test_labels_and_selections(gru, x, tmp_path):
    time = np.arange(T) * 0.5
    around = es.Around(before=3, after=0, steps=[101])
    select = es.Select(every=2, variables="h")
    got = es.record(gru, x, store=tmp_path / "a.zarr", time=time, around=around, select=select)
    assert got["gru"].step.values.tolist() == [98, 100]
    assert got["gru"].time.values.tolist() == [49.0, 50.0]


def test_what_cannot_mean_anything(gru, x, tmp_path):
    with pytest.raises(SelectionError, match="either steps=, the events, or score="):
        es.Around(1, 1, steps=[3], score=lambda x, y: x)
    with pytest.raises(SelectionError, match="either steps=, the events, or score="):
        es.record(gru, x, store=tmp_path / "run.zarr", around=es.Around(1, 1))
    with pytest.raises(SelectionError, match="whole numbers from 0"):
        es.Around(-1, 1, steps=[3])
    with pytest.raises(SelectionError, match="steps a list of such; got 1, 1, 3"):
        es.Around(1, 1, 3)
    around = es.Around(1, 1, score=lambda x, y: np.zeros(3), threshold=0)
    with pytest.raises(SelectionError, match=r"shape \(3,\); expected one number for each of the"):
        es.record(gru, x, store=tmp_path / "run.zarr", around=around)
    with pytest.raises(SelectionError, match="around= is for recordings that are written"):
        es.record(gru, x, around=around)
    with pytest.raises(SelectionError, match="from which score on is a step an event"):
        es.Around(1, 1, score=lambda x, y: x)
    with pytest.raises(SelectionError, match=r"around=\[5, 6\]: expected an es\.Around"):
        es.record(gru, x, store=tmp_path / "run.zarr", around=[5, 6])


@pytest.mark.parametrize("select", [es.Select(), es.Select(every=7), es.Select(window=(0, 9))])
def test_events_beyond_the_end_are_told_of(gru, x, select, tmp_path, recwarn):
    options = {"store": tmp_path / "run.zarr", "chunk": 64, "select": select}
    last = es.Around(3, 1, steps=[2, T - 1])
    es.record(gru, x, around=last, **options)
    assert not recwarn.list
    beyond = es.Around(3, 1, steps=[2, T, T + 9])
    with pytest.warns(EverystateWarning, match=f"has {T} steps, and 2 of .* the first at {T}"):
        es.record(gru, x, around=beyond, overwrite=True, **options)
