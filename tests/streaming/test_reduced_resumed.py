"""`reduce=` with a store: results kept there, and gone on with after a stop."""

import numpy as np
import pytest
import xarray as xr

import everystate as es
import mutations
from everystate.analysis.reducers import Histogram, Moments, TopSteps
from everystate.errors import (
    CorruptTraceError,
    IncompleteTraceError,
    ResumeError,
    SelectionError,
    TraceFormatError,
    TraceNotFoundError,
)
from everystate.storage.reductions import REDUCTIONS
from everystate.streaming.reductions import Reductions
from everystate.testing import importorskip

torch = importorskip("torch")

T, B, D, U = 330, 2, 3, 5
KINDS = {"moments": Moments(), "top": TopSteps(3, context=40)}


class StopError(Exception):
    pass


class Total:
    """A reducer of one's own, with no more than it needs."""

    def __init__(self) -> None:
        self.seen = np.zeros(U)

    def update(self, block, first_step):
        self.seen = self.seen + np.asarray(block, np.float64).sum(axis=(0, 1))

    def result(self):
        return xr.Dataset({"total": ("unit", self.seen)})


class Resumable(Total):
    def state(self):
        return self.seen

    def restore(self, state):
        self.seen = state


@pytest.fixture
def gru() -> torch.nn.GRU:
    torch.manual_seed(7)
    return torch.nn.GRU(D, U)


@pytest.fixture
def x() -> np.ndarray:
    return np.random.default_rng(8).normal(size=(T, B, D)).astype(np.float32)


def stop_at(stop):
    def progress(done, total):
        if done >= stop:
            raise StopError

    return progress


def interrupted(gru, x, path, *, stop=192, **options):
    """Return what comes of a recording that was stopped and gone on with."""
    options = {"store": path, "chunk": 64, "reduce": KINDS, **options}
    with pytest.raises(StopError):
        es.record(gru, x, progress=stop_at(stop), **options)
    return es.record(gru, x, resume=True, **options)


def assert_same(got: xr.DataTree, expected: xr.DataTree) -> None:
    assert got.groups == expected.groups
    for leaf in expected.leaves:
        xr.testing.assert_identical(got[leaf.path].to_dataset(), leaf.to_dataset())


@pytest.mark.parametrize("full", [True, False])
@pytest.mark.parametrize("stop", [64, 192, T])
def test_stopped_and_gone_on_with_it_is_the_same(gru, x, stop, full, tmp_path):
    path = tmp_path / "run.zarr"
    whole = es.record(gru, x, chunk=64, reduce=KINDS)
    assert_same(interrupted(gru, x, path, stop=stop, full=full), whole)
    assert_same(es.open_reductions(path), whole)
    steps = es.record(gru, x)["gru"].h.values.astype(np.float64)
    mean = steps.mean(axis=(0, 1))
    np.testing.assert_allclose(whole["gru/h/moments"]["mean"], mean, atol=1e-7)
    hit = int(abs(steps).max(axis=(0, 2)).argmax())
    assert whole["gru/h/top"].step[0] == hit
    if full:
        np.testing.assert_allclose(es.open_trace(path)["gru"].h, steps, atol=1e-6)
    calls = []
    gru.register_forward_pre_hook(lambda _, given: calls.append(len(given[0])))
    again = es.record(gru, x, store=path, resume=True, reduce=KINDS, full=full)
    assert_same(again, whole)
    assert calls == [48]  # the first steps, by which the model is recognised


def test_a_state_that_is_not_restored_would_be_seen(gru, x, tmp_path, monkeypatch):
    whole = es.record(gru, x, chunk=64, reduce=KINDS)
    monkeypatch.setattr(Reductions, "restore", lambda self, state: None)
    with mutations.must_be_noticed("reducers begin anew"):
        assert_same(interrupted(gru, x, tmp_path / "run.zarr"), whole)


class Two(torch.nn.Module):
    """Two layers; the second fails once, when the first has seen a piece already."""

    def __init__(self):
        super().__init__()
        self.first, self.second = torch.nn.GRU(D, U), torch.nn.GRU(U, 4)
        self.fails_at = None

    def forward(self, x):
        y, _ = self.first(x)
        return self.second(y)

    def step(self, x, state):
        a, b = (None, None) if state is None else state
        y, a = self.first(torch.as_tensor(x), a)
        if self.fails_at is not None:
            self.fails_at -= 1
            if self.fails_at == 0:
                self.fails_at = None
                raise StopError
        z, b = self.second(y, b)
        return z, (a, b)


@pytest.mark.parametrize("full", [True, False])
def test_a_stop_between_two_layers(x, full, tmp_path):
    torch.manual_seed(9)
    model, path = Two().requires_grad_(False), tmp_path / "run.zarr"
    options = {"reduce": KINDS, "step": model.step, "time_axis": 0, "chunk": 64}
    whole = es.record(model, x, **options)
    assert_same(es.record(model, x, store=tmp_path / "whole.zarr", **options), whole)
    model.fails_at = 4
    with pytest.raises(StopError):
        es.record(model, x, store=path, full=full, **options)
    got = es.record(model, x, store=path, full=full, resume=True, **options)
    assert_same(got, whole)
    if full:
        expected = es.open_trace(tmp_path / "whole.zarr")
        assert es.open_trace(path)["second"].to_dataset().equals(expected["second"].to_dataset())


def test_from_an_iterator_beside_windows(gru, x, tmp_path):
    def chunks():
        return iter(np.split(x, [100, 101, 250]))

    around, path = es.Around(2, 1, steps=[5, 200]), tmp_path / "run.zarr"
    options = {"store": path, "chunk": 64, "reduce": KINDS, "around": around}
    with pytest.raises(StopError):
        es.record(gru, chunks(), progress=stop_at(128), **options)
    got = es.record(gru, chunks(), resume=True, **options)
    assert_same(got, es.record(gru, x, chunk=64, reduce=KINDS))
    assert es.open_trace(path)["gru"].time.values.tolist() == [3, 4, 5, 6, 198, 199, 200, 201]


def test_a_reducer_of_ones_own(gru, x, tmp_path):
    whole = es.record(gru, x, reduce=Total, select=es.Select(variables="h"))
    steps = es.record(gru, x)["gru"].h.values.astype(np.float64)
    total = steps.sum(axis=(0, 1))
    np.testing.assert_allclose(whole["gru/h/total"].total, total, atol=1e-4)
    kinds = {"total": Resumable}
    got = interrupted(gru, x, tmp_path / "a.zarr", reduce=kinds, select=es.Select(variables="h"))
    np.testing.assert_allclose(got["gru/h/total"].total, total, atol=1e-4)
    with pytest.raises(SelectionError, match=r"reduce='total': it has no state\(\), which returns"):
        es.record(gru, x, store=tmp_path / "b.zarr", reduce=Total, resume=True)
    es.record(gru, x, store=tmp_path / "b.zarr", reduce=Total)
    assert "total" in es.open_reductions(tmp_path / "b.zarr")["gru/h/total"]


def test_attributes_of_a_reducer_may_be_numbers_of_numpy(gru, x, tmp_path):
    class Said(Total):
        def result(self):
            said = {"count": np.int64(3), "whole": np.bool_(True), "ends": np.arange(2)}
            total = xr.Variable("unit", self.seen, said)
            return xr.Dataset({"total": total}, attrs={"least": np.float32(0.5)})

    es.record(gru, x, store=tmp_path / "run.zarr", reduce=Said, full=False)
    got = es.open_reductions(tmp_path / "run.zarr")["gru/h/said"]
    assert got["total"].attrs == {"count": 3, "whole": True, "ends": [0, 1]}
    assert got.attrs == {"least": 0.5}


@pytest.mark.parametrize(
    ("other", "said"),
    [
        ({"reduce": Moments()}, r"differs in reducers: .*TopSteps.* and now .*Moments"),
        ({"reduce": {**KINDS, "top": TopSteps(4)}}, r"differs in reducers: .*count=3.*count=4"),
        ({"reduce": None}, r"differs in reducers"),
        ({"full": False}, r"differs in full: True and now False"),
    ],
)
def test_other_reducers_are_refused(gru, x, other, said, tmp_path):
    options = {"store": tmp_path / "run.zarr", "chunk": 64, "reduce": KINDS}
    with pytest.raises(StopError):
        es.record(gru, x, progress=stop_at(128), **options)
    with pytest.raises(ResumeError, match=said):
        es.record(gru, x, resume=True, **{**options, **other})
    es.record(gru, x, resume=True, **options)
    with pytest.raises(ResumeError, match=said):
        es.record(gru, x, resume=True, **{**options, **other})


def test_other_weights_are_refused_without_a_trace_too(gru, x, tmp_path):
    options = {"store": tmp_path / "run.zarr", "chunk": 64, "reduce": KINDS, "full": False}
    with pytest.raises(StopError):
        es.record(gru, x, progress=stop_at(128), **options)
    with torch.no_grad():
        gru.weight_hh_l0[3, 2] += 0.5
    with pytest.raises(ResumeError, match=r"gru: .* its weights are others"):
        es.record(gru, x, resume=True, **options)


def test_a_state_left_behind_the_end_is_removed(gru, x, tmp_path, monkeypatch):
    """Killed after the last mark was written, and before what it no longer needs was removed."""
    path = tmp_path / "run.zarr"
    with monkeypatch.context() as patch:
        patch.setattr("everystate.storage.carried.Carried.forget", lambda folder: None)
        whole = es.record(gru, x, store=path, reduce=KINDS)
    assert list(path.glob("everystate.state*"))
    assert_same(es.record(gru, x, store=path, resume=True, reduce=KINDS), whole)
    assert not list(path.glob("everystate.state*"))


def test_what_is_in_a_store(gru, x, tmp_path):
    path = tmp_path / "run.zarr"
    with pytest.raises(StopError):
        es.record(gru, x, store=path, chunk=64, reduce=KINDS, full=False, progress=stop_at(128))
    with pytest.raises(IncompleteTraceError, match=r"no layer yet.*resume=True"):
        es.open_trace(path, incomplete="trim")
    with pytest.raises(IncompleteTraceError, match="has not come to its end"):
        es.open_reductions(path)
    es.record(gru, x, store=path, resume=True, reduce=KINDS, full=False)
    with pytest.raises(TraceFormatError, match=r"reductions alone.*open_reductions"):
        es.open_trace(path)
    assert not list(path.glob("everystate.state*"))
    es.record(gru, x, store=path, overwrite=True)
    with pytest.raises(TraceNotFoundError, match="a trace without reductions"):
        es.open_reductions(path)
    es.record(gru, x, store=path, overwrite=True, reduce=Histogram())
    content = bytearray((path / REDUCTIONS).read_bytes())
    middle = len(content) // 3
    content[middle : middle + 64] = bytes(64)
    (path / REDUCTIONS).write_bytes(content)
    with pytest.raises(CorruptTraceError, match=r"npz: the reductions are damaged \("):
        es.open_reductions(path)


def test_what_cannot_mean_anything(gru, x, tmp_path):
    around = es.Around(1, 1, steps=[3])
    for name, value in {"resume": True, "around": around, "stored_as": "int8"}.items():
        with pytest.raises(SelectionError, match=f"{name}= is for what is stored: say where"):
            es.record(gru, x, reduce=KINDS, **{name: value})
    with pytest.raises(SelectionError, match="full=False keeps no steps: say what"):
        es.record(gru, x, store=tmp_path / "run.zarr", full=False)
    with pytest.raises(SelectionError, match="full=False keeps no steps, around= some"):
        es.record(gru, x, store=tmp_path / "run.zarr", full=False, reduce=KINDS, around=around)
