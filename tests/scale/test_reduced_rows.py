"""`record_many(reduce=)`: what is made of each sequence, a row for each, against the oracle."""

import numpy as np
import pytest
import xarray as xr

import everystate as es
import mutations
from everystate.analysis.reducers import (
    Autocorrelation,
    Covariance,
    Histogram,
    Moments,
    Quantiles,
    Range,
    Saturation,
    TopSteps,
    reduced,
)
from everystate.errors import (
    CorruptTraceError,
    EverystateWarning,
    IncompleteTraceError,
    SelectionError,
    TraceFormatError,
    TraceNotFoundError,
    TraceWriteError,
)
from everystate.scale import Batching, record_many
from everystate.storage.shared.manifest import MARKS
from everystate.testing import importorskip

LENGTHS = (7, 12, 3, 12, 1, 9, 12, 5, 7, 7, 11)
KINDS = {
    "moments": Moments(),
    "range": Range(),
    "lags": Autocorrelation((1, 3)),
    "top": TopSteps(4, context=2),
    "histogram": Histogram(bins=5),
    "covariance": Covariance(2),
}
SELECT = es.Select(variables=("c", "f"))


@pytest.fixture
def record(threads, weights, tmp_path):
    def record(inputs, load_model=weights, store=tmp_path / "run.zarr", **options):
        defaults = {"batching": Batching(rows=2, batch=3), "client": threads, "select": SELECT}
        return record_many(load_model, inputs, store, **{**defaults, "reduce": KINDS, **options})

    return record


def check(figures: xr.DataTree, expected, rows=range(11)) -> None:
    """Compare with definitions, in float64, of what the oracle says of each sequence alone."""
    for name in ("c", "f"):
        layer = figures[f"lstm/{name}"]
        assert layer["moments"]["mean"].dims == ("batch", "unit")
        for k, row in enumerate(rows):
            x = expected[row][name]
            found = {kind: layer[kind].to_dataset().isel(batch=k) for kind in KINDS}
            assert (found["moments"]["count"] == len(x)).all()
            np.testing.assert_allclose(found["moments"]["mean"], x.mean(axis=0), atol=1e-12)
            np.testing.assert_allclose(found["moments"]["std"], x.std(axis=0), atol=1e-12)
            np.testing.assert_allclose(found["range"]["min"], x.min(axis=0), atol=1e-12)
            cov = np.cov(x.T, bias=True)
            np.testing.assert_allclose(found["covariance"]["covariance"], cov, atol=1e-12)
            order = np.argsort(-abs(x).max(axis=1), kind="stable")[:4]
            ranks = len(order)
            np.testing.assert_array_equal(found["top"].step[:ranks], order)
            assert np.isnan(found["top"].step[ranks:]).all()
            np.testing.assert_allclose(found["top"].context[:ranks, 2], x[order], atol=1e-12)
            counts = np.histogram(x[:, 3], bins=5, range=(-1, 1))[0]
            np.testing.assert_array_equal(found["histogram"].histogram[3], counts)
            d = x - x.mean(axis=0)
            if len(x) > 3:
                r = (d[:-3] * d[3:]).mean(axis=0) / (d**2).mean(axis=0)
                np.testing.assert_allclose(found["lags"].autocorrelation[1], r, atol=1e-10)
            else:
                assert np.isnan(found["lags"].autocorrelation[1]).all()


@pytest.mark.parametrize("full", [True, False], ids=["beside the trace", "in its place"])
@pytest.mark.parametrize(
    "batching",
    [Batching(), Batching(rows=2, batch=3), Batching(rows=4, pad=True), Batching(memory=900)],
    ids=["default", "small", "padded", "in chunks"],
)
def test_each_row_is_made_of_its_sequence(record, sequences, expected, tmp_path, batching, full):
    record(sequences, batching=batching, full=full)
    figures = es.open_reductions(tmp_path / "run.zarr")
    check(figures, expected)
    assert figures["/"].length.values.tolist() == list(LENGTHS)
    assert set(figures["lstm"].attrs) >= {"cell", "weights_sha256"}
    for fault, wrong in {
        "rows swapped": [expected[1], expected[0], *expected[2:]],
        "a step of padding": [
            {n: np.concatenate([a, a[-1:]]) for n, a in each.items()} for each in expected
        ],
    }.items():
        with mutations.must_be_noticed(fault):
            check(figures, wrong)
    if full:
        trace = es.open_trace(tmp_path / "run.zarr")
        np.testing.assert_allclose(trace["lstm"].c[3, :12], expected[3]["c"], atol=1e-12)
        assert [node.path for node in trace.leaves] == ["/lstm"]
    else:
        with pytest.raises(TraceFormatError, match=r"reductions alone.*es\.open_reductions"):
            es.open_trace(tmp_path / "run.zarr")


def test_the_steps_between_are_none(record, sequences, expected, tmp_path):
    select = es.Select(variables="c", every=2, window=(1, None))
    record(sequences, select=select, full=False)
    figures = es.open_reductions(tmp_path / "run.zarr")
    for row, length in enumerate(LENGTHS):
        x = expected[row]["c"][1::2]
        found = figures["lstm/c/moments"]["mean"][row]
        wanted = x.mean(axis=0) if length > 1 else np.full(5, np.nan)
        np.testing.assert_allclose(found, wanted, atol=1e-12)
        if length > 1:
            top = figures["lstm/c/top"].step[row, 0]
            assert top == 1 + 2 * int(abs(x).max(axis=1).argmax())


def test_a_shard_done_again_is_the_same(record, sequences, expected, tmp_path):
    record(sequences, full=False)
    path = tmp_path / "run.zarr"
    whole = es.open_reductions(path).load()
    assert record(sequences, full=False).shards == 0
    marks = sorted((path / MARKS).iterdir())
    marks[2].unlink()
    figures = path / "everystate.reductions/figures.zarr"
    chunk = figures / "lstm/c/moments/mean/c/2/0"
    damaged = chunk.read_bytes()[::-1]
    chunk.write_bytes(damaged)
    assert record(sequences, full=False).shards == 1
    again = es.open_reductions(path).load()
    for node in whole.subtree:
        xr.testing.assert_identical(again[node.path].to_dataset(), node.to_dataset())
    chunk.write_bytes(damaged)
    with pytest.raises(CorruptTraceError, match="'mean' of /lstm/c/moments is damaged"):
        es.open_reductions(path).load()
    chunk.unlink()
    with pytest.raises(CorruptTraceError, match="lacks the file c/2/0"):
        es.open_reductions(path)


def test_what_is_done_so_far(record, sequences, expected, tmp_path):
    record(sequences)
    path = tmp_path / "run.zarr"
    for mark in sorted((path / MARKS).iterdir())[1:]:
        mark.unlink()
    root = path / "zarr.json"
    root.write_text(root.read_text().replace('"complete": 1', '"complete": 0'))
    with pytest.raises(IncompleteTraceError, match="1 of 6 shards are done"):
        es.open_reductions(path)
    check(es.open_reductions(path, incomplete="trim"), expected, rows=range(2))


def test_failed_sequences_have_none(record, sequences, expected, tmp_path):
    odd = [*sequences[:5], np.zeros((9, 8)), *sequences[6:]]
    with pytest.warns(EverystateWarning, match="1 of 11"):
        record(odd)
    figures = es.open_reductions(tmp_path / "run.zarr")
    rows = [row for row in range(11) if row != 5]
    check(figures.isel(batch=rows), expected, rows=rows)
    assert np.isnan(figures["lstm/c/moments"]["count"][5]).all()
    assert figures["/"].length.values[5] == 0


def test_lazily_on_an_object_store(record, sequences, expected, weights):
    importorskip("fsspec")
    record(sequences, store="memory://reduced.zarr", full=False)
    figures = es.open_reductions("memory://reduced.zarr")
    check(figures, expected)
    lazy = figures.chunk({"batch": 4})["lstm/c/moments"]["mean"]
    assert lazy.chunks is not None
    spread = lazy.std("batch").compute()
    wanted = np.std([each["c"].mean(axis=0) for each in expected], axis=0)
    np.testing.assert_allclose(spread, wanted, atol=1e-12)


def test_quantiles_of_short_sequences_are_exact(record, sequences, expected, tmp_path):
    importorskip("datasketches")
    record(sequences, reduce=Quantiles(q=(0.5,)), select=es.Select(variables="c"), full=False)
    found = es.open_reductions(tmp_path / "run.zarr")["lstm/c/quantiles"]
    for row, values in enumerate(expected):
        x = np.sort(values["c"], axis=0)
        wanted = x[int(np.ceil(len(x) / 2)) - 1]
        np.testing.assert_allclose(found["quantiles"][row, 0], wanted, atol=1e-12)


def test_the_same_as_of_the_trace(record, sequences, tmp_path):
    record(sequences, reduce=Moments())
    trace = es.open_trace(tmp_path / "run.zarr")
    alone = trace["lstm"].c.isel(batch=[3], time=slice(0, 12))
    (moments,) = reduced(alone, Moments())
    found = es.open_reductions(tmp_path / "run.zarr")["lstm/c/moments"].to_dataset()
    for name in moments.data_vars:
        np.testing.assert_array_equal(found[name][3], moments[name])


class Text:
    def update(self, block, first_step):
        pass

    def result(self):
        return xr.Dataset({"said": ("x", np.array(["a"]))})


class Each:
    """Keeps all that it is shown."""

    def __init__(self):
        self.kept = []

    def update(self, block, first_step):
        self.kept += [float(step.sum()) for step in block]

    def result(self):
        return xr.Dataset({"each": ("shown", np.array(self.kept))})


def test_a_result_that_grows_needs_room(record, sequences, tmp_path, monkeypatch):
    monkeypatch.setattr("everystate.scale.rows.ENOUGH", 12)
    record(sequences, reduce=Each)
    found = es.open_reductions(tmp_path / "run.zarr")["lstm/c/each"]
    assert found["each"].shape == (len(LENGTHS), 12)
    assert np.isfinite(found["each"]).sum("shown").values.tolist() == list(LENGTHS)
    monkeypatch.setattr("everystate.scale.rows.ENOUGH", 10)
    grown = [rf"row {k} has shape \({n},\)" for k, n in enumerate(LENGTHS) if n > 10]
    message = rf"each of ({'|'.join(grown)}).* made of 10 steps"  # whichever comes first
    with pytest.raises(SelectionError, match=message):
        record(sequences, reduce=Each, store=tmp_path / "other.zarr")


def test_a_reducer_that_says_nothing_of_what_is_recorded_says_so(record, sequences, tmp_path):
    kinds = {"moments": Moments(), "saturation": Saturation()}
    with pytest.warns(EverystateWarning, match=r"saturation has no result.* nothing of lstm/c\."):
        record(sequences, reduce=kinds, select=es.Select(variables="c"))
    assert [*es.open_reductions(tmp_path / "run.zarr")["lstm/c"]] == ["moments"]


def test_what_is_refused(record, sequences, tmp_path):
    record(sequences)
    for other in ({"reduce": Moments()}, {"full": False}, {"reduce": None}):
        with pytest.raises(TraceWriteError, match=r"was begun with .*reduce="):
            record(sequences, **other)
    other = {"store": tmp_path / "other.zarr"}
    with pytest.raises(SelectionError, match="full=False keeps no steps"):
        record(sequences, reduce=None, full=False, **other)
    with pytest.raises(SelectionError, match="expected a reducer"):
        record(sequences, reduce=3, **other)
    with pytest.raises(SelectionError, match="reducers may give numbers only"):
        record(sequences, reduce=Text, **other)
    with pytest.raises(TypeError, match="'redcue'"):
        record(sequences, redcue=Moments(), **other)
    record(sequences, reduce=None, store=tmp_path / "plain.zarr")
    with pytest.raises(TraceNotFoundError, match="without reductions"):
        es.open_reductions(tmp_path / "plain.zarr")
