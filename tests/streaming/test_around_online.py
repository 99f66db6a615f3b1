"""Windows around events that the user of a stream tells while it goes on."""

import numpy as np
import pytest
import xarray as xr

import everystate as es
import mutations
from everystate.analysis.reducers import Moments
from everystate.errors import IncompleteTraceError, SelectionError
from everystate.storage import layout
from everystate.testing import importorskip

torch = importorskip("torch")

T, B, D, U, CHUNK = 300, 2, 3, 5, 20


@pytest.fixture
def model() -> torch.nn.Module:
    """Two layers, each seen in every call."""
    torch.manual_seed(7)

    class Both(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second = torch.nn.GRU(D, U), torch.nn.LSTM(U, 4)

        def forward(self, x, state):
            a, b = (None, None) if state is None else state
            y, a = self.first(x, a)
            y, b = self.second(y, b)
            return y, (a, b)

    return Both()


@pytest.fixture
def x() -> torch.Tensor:
    return torch.randn(T, B, D, generator=torch.Generator().manual_seed(5))


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layout, "SHARD_BYTES", 4 * B * U * 32)
    monkeypatch.setattr(layout, "CHUNK_BYTES", 4 * B * U * 16)


def near(events, before, after):
    """The steps to keep, by the definition."""
    return [t for t in range(T) if any(e - before <= t <= e + after for e in events)]


def check(trace: xr.DataTree, model, x, steps) -> None:
    with es.recording(model) as rec:
        model(x, None)
    for path in ("first", "second"):
        assert trace[path].time.values.tolist() == steps
        expected = rec.trace[path].to_dataset().sel(time=steps)
        xr.testing.assert_allclose(trace[path].to_dataset(), expected, atol=1e-5)


def drive(model, x, path, around, tell, **options):
    """Call the model chunk by chunk; tell(rec, first step, chunk, output) after each call."""
    state = None
    with es.recording(model, store=path, along="time", around=around, **options) as rec:
        for k, chunk in enumerate(x.split(CHUNK)):
            y, state = model(chunk, state)
            tell(rec, k * CHUNK, chunk, y)
    return rec


EVENTS = [0, 45, 59, 60, 61, 130, 131, 299]


@pytest.mark.parametrize(("before", "after"), [(0, 0), (7, 3), (70, 0), (0, 75)])
def test_events_told_between_calls(model, x, before, after, tmp_path):
    def tell(rec, first, chunk, y):
        told = [t for t in EVENTS if first <= t < first + len(chunk)]
        if told:
            rec.event(*told)

    drive(model, x, tmp_path / "run.zarr", es.Around(before, after), tell)
    trace, steps = es.open_trace(tmp_path / "run.zarr"), near(EVENTS, before, after)
    check(trace, model, x, steps)
    with mutations.must_be_noticed("a window off by one"):
        check(trace, model, x, near(EVENTS, before, after + 1))


def test_the_last_step_is_meant_and_a_score_tells(model, x, tmp_path):
    def at_once(rec, first, chunk, y):
        if first in (40, 200):
            rec.event()

    drive(model, x, tmp_path / "a.zarr", es.Around(25, 1), at_once)
    check(es.open_trace(tmp_path / "a.zarr"), model, x, near([59, 219], 25, 1))

    def largest(chunk, y):
        return chunk.abs().amax(dim=(1, 2)).numpy()

    def score(rec, first, chunk, y):
        rec.score(chunk, y)

    around = es.Around(3, 2, score=largest, threshold=2.5)
    rec = drive(model, x, tmp_path / "b.zarr", around, score, reduce=Moments())
    events = np.flatnonzero(x.abs().amax(dim=(1, 2)).numpy() > 2.5)
    assert 3 < len(events) < T / 4
    check(es.open_trace(tmp_path / "b.zarr"), model, x, near(events, 3, 2))
    # Reducers see all steps, whatever is kept.
    assert rec.reductions["first/h/moments"]["count"][0] == T * B
    stored = es.open_reductions(tmp_path / "b.zarr")
    xr.testing.assert_identical(
        stored["second/c/moments"].to_dataset(), rec.reductions["second/c/moments"].to_dataset()
    )


def test_a_score_that_has_gradients(x, tmp_path):
    torch.manual_seed(6)
    lstm = torch.nn.LSTM(D, U)
    around = es.Around(2, 1, score=lambda _, y: y[0].abs().amax(dim=(1, 2)), threshold=0.35)
    with es.recording(lstm, store=tmp_path / "run.zarr", along="time", around=around) as rec:
        y = lstm(x)
        assert y[0].requires_grad
        rec.score(x, y)
    events = np.flatnonzero(y[0].detach().abs().amax(dim=(1, 2)) > 0.35).tolist()
    assert 3 < len(events) < T - 20
    assert rec.trace["lstm"].time.values.tolist() == near(events, 2, 1)


def test_given_steps(model, x, tmp_path):
    around = es.Around(9, 4, steps=EVENTS)
    drive(model, x, tmp_path / "run.zarr", around, lambda *_: None)
    check(es.open_trace(tmp_path / "run.zarr"), model, x, near(EVENTS, 9, 4))


def test_a_cell_in_a_loop(x, tmp_path):
    torch.manual_seed(6)
    cell, h = torch.nn.GRUCell(D, U), torch.zeros(B, U)
    with es.recording(cell, along="time") as whole:
        for x_t in x:
            h = cell(x_t, h)
    path, h = tmp_path / "run.zarr", torch.zeros(B, U)
    with es.recording(cell, store=path, along="time", around=es.Around(12, 5)) as rec:
        for t, x_t in enumerate(x):
            h = cell(x_t, h)
            if t in (30, 100, 101):
                rec.event()
    got, steps = es.open_trace(path)["grucell"].to_dataset(), near([30, 100, 101], 12, 5)
    xr.testing.assert_allclose(got, whole.trace["grucell"].to_dataset().sel(time=steps))


@pytest.mark.parametrize("told", [True, False])
def test_a_layer_whose_steps_come_later(x, told, tmp_path):
    """Steps of a cell are handed over some hundred at once, those of a layer with each call."""
    torch.manual_seed(6)
    both = torch.nn.ModuleDict({"layer": torch.nn.GRU(D, U), "cell": torch.nn.GRUCell(U, 4)})

    def loop(rec=None):
        a, b = torch.zeros(1, B, U), torch.zeros(B, 4)
        for first in range(0, T, 5):
            y, a = both["layer"](x[first : first + 5], a)
            for y_t in y:
                b = both["cell"](y_t, b)
            if rec is not None and first in (10, 150):
                rec.event(first)

    with es.recording(both, along="time") as whole:
        loop()
    around = es.Around(0, 1) if told else es.Around(0, 1, steps=[10, 150])
    with es.recording(both, store=tmp_path / "run.zarr", along="time", around=around) as rec:
        loop(rec if told else None)
    got = es.open_trace(tmp_path / "run.zarr")
    for path in ("layer", "cell"):
        expected = whole.trace[path].to_dataset().sel(time=[10, 11, 150, 151])
        assert got[path].time.values.tolist() == [10, 11, 150, 151]
        xr.testing.assert_allclose(got[path].to_dataset(), expected, atol=1e-6)


def test_readable_after_a_flush_and_kept_after_an_error(model, x, tmp_path):
    path, lengths = tmp_path / "run.zarr", []

    def tell(rec, first, chunk, y):
        if first == 40:
            rec.event(50)
            rec.flush()
            lengths.append(es.open_trace(path, incomplete="trim")["first"].sizes["time"])
        if first == 100:
            rec.event()
            1 / 0  # noqa: B018

    with pytest.raises(ZeroDivisionError):
        drive(model, x, path, es.Around(5, 15), tell)
    assert lengths == [55 - 45]  # what is near no event yet may be near the next
    with pytest.raises(IncompleteTraceError):
        es.open_trace(path)
    kept = es.open_trace(path, incomplete="trim")["first"].time.values.tolist()
    assert kept == [t for t in near([50, 119], 5, 15) if t < 120]


def test_reductions_alone(model, x, tmp_path):
    path = tmp_path / "run.zarr"
    rec = drive(model, x, path, None, lambda *_: None, reduce=Moments(), full=False)
    xr.testing.assert_identical(
        es.open_reductions(path)["first/h/moments"].to_dataset(),
        rec.reductions["first/h/moments"].to_dataset(),
    )
    assert rec.trace.identical(rec.reductions)


def test_what_cannot_be(model, x, tmp_path):
    def late(rec, first, chunk, y):
        if first == 60:
            with pytest.raises(SelectionError, match=r"event\(39\): expected .* 60 to 79"):
                rec.event(39)
            with pytest.raises(SelectionError, match=r"event\(80\): expected"):
                rec.event(80)
            with pytest.raises(SelectionError, match="say how"):
                rec.score(chunk, y)
            with pytest.raises(SelectionError, match="say what to make of the steps"):
                _ = rec.reductions

    drive(model, x, tmp_path / "a.zarr", es.Around(1, 1), late)

    def all_kept(rec, first, chunk, y):
        with pytest.raises(SelectionError, match="all steps are kept"):
            rec.event()

    drive(model, x[:40], tmp_path / "b.zarr", None, all_kept)

    def given(rec, first, chunk, y):
        with pytest.raises(SelectionError, match="were given already"):
            rec.event()

    drive(model, x[:40], tmp_path / "c.zarr", es.Around(1, 1, steps=[3]), given)
    with pytest.raises(SelectionError, match="around= is for recordings that are written"):
        drive(model, x, None, es.Around(1, 1), late)
