"""Analyses of a trace of many sequences: by Dask, chunk by chunk, never loaded as a whole."""

import numpy as np
import pytest
import xarray as xr

import everystate as es
from everystate.analysis.drift import drift
from everystate.analysis.layer import not_finite
from everystate.analysis.memory import half_life
from everystate.analysis.reducers import Moments, Quantiles, reduced
from everystate.analysis.saturation import saturation
from everystate.analysis.spread import spread
from everystate.scale import Batching, record_many
from everystate.storage.checked import _CheckedArray
from everystate.testing import importorskip

importorskip("dask")

ROWS, STEPS = 40, 150


@pytest.fixture
def store(threads, weights, tmp_path):
    x = np.random.default_rng(0).normal(size=(ROWS, STEPS, 3))
    lengths = np.random.default_rng(1).integers(100, STEPS + 1, ROWS)
    source = es.scale.Arrays(x, lengths)
    record_many(weights, source, tmp_path / "run.zarr", client=threads, batching=Batching(rows=4))
    return tmp_path / "run.zarr"


@pytest.fixture
def read(monkeypatch):
    """Return how many values of states and gates each read of the store asked for."""
    sizes = []
    get = _CheckedArray.__getitem__

    def counted(self, key):
        found = get(self, key)
        if np.ndim(found) == 3:
            sizes.append(np.size(found))
        return found

    monkeypatch.setattr(_CheckedArray, "__getitem__", counted)
    return sizes


@pytest.mark.parametrize("measure", [saturation, spread, not_finite, half_life, drift])
def test_a_measure_reads_a_chunk_at_a_time(store, read, measure):
    whole = measure(es.open_trace(store)["lstm"].to_dataset().load())
    read.clear()
    lazy = es.open_trace(store).chunk({"batch": 4})["lstm"].to_dataset()
    found = measure(lazy)
    assert sum(read) == 0
    found = found.compute(scheduler="synchronous")
    assert read
    assert max(read) <= 4 * STEPS * 5
    xr.testing.assert_allclose(found, whole, rtol=1e-12)


def test_one_pass_reads_blocks(store, read, monkeypatch):
    monkeypatch.setattr("everystate.analysis.reducers.run.BLOCK_BYTES", 8 * 5 * 64)
    c = es.open_trace(store)["lstm"].c
    moments, quantiles = reduced(c, Moments(), Quantiles((0.5,)))
    assert max(read) <= 5 * 64
    values = c.values.reshape(-1, 5)
    np.testing.assert_allclose(moments["mean"], np.nanmean(values, 0), rtol=1e-10)
    rank = np.nanmean(np.where(np.isnan(values), np.nan, values <= quantiles.quantiles.values), 0)
    np.testing.assert_allclose(rank, 0.5, atol=2 * quantiles.rank_error.item())
