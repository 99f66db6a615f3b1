"""Decimation against plain loops: nothing extreme may be lost."""

import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

import mutations
from everystate.testing import importorskip
from everystate.views import decimation
from everystate.views.decimation import bucket_size, coarsen, decimate


def series(steps=53, units=4, seed=5):
    values = np.random.default_rng(seed).normal(size=(steps, units)).astype(np.float32)
    return xr.DataArray(values, dims=("time", "unit"))


def oracle(values, size):
    """Each bucket's lowest and highest value in order, unit by unit."""
    units = []
    for unit in values.values.T:
        row = []
        for start in range(0, len(unit), size):
            bucket = [v for v in unit[start : start + size] if not np.isnan(v)]
            if not bucket:
                row += [np.nan, np.nan]
                continue
            low, high = bucket.index(min(bucket)), bucket.index(max(bucket))
            row += [bucket[k] for k in sorted((low, high))] if low != high else [bucket[low]] * 2
        units.append(row)
    return np.array(units)


@pytest.mark.parametrize("size", [2, 7, 53, 60])
def test_extremes_are_those_of_each_bucket_in_order(size):
    values = series()
    values[3:12, 1] = np.nan
    values[20, 2] = np.inf
    found = decimate(values, size).extremes
    np.testing.assert_array_equal(found, oracle(values, size))
    with mutations.must_be_noticed("lowest first, whatever the order"):
        pairs = oracle(values, size).reshape(4, -1, 2)
        np.testing.assert_array_equal(found, np.sort(pairs, axis=-1).reshape(4, -1))
    with mutations.must_be_noticed("means for extremes"):
        np.testing.assert_array_equal(found, oracle(values * 0.99, size))
    if size < values.sizes["time"]:  # the one bucket of all steps cannot be shifted
        with mutations.must_be_noticed("buckets shifted by a step"):
            np.testing.assert_array_equal(found, oracle(values.roll(time=1), size))


def test_buckets_of_one_step_keep_every_value():
    values = series()
    np.testing.assert_array_equal(decimate(values, 1).extremes, values.values.T)


def test_blocks_do_not_show(monkeypatch):
    values = series(steps=101)
    whole = decimate(values, 6)
    monkeypatch.setattr(decimation, "BLOCK_VALUES", 50)
    parts = decimate(values, 6)
    for name in ("extremes", "mean", "low", "high"):
        np.testing.assert_array_equal(getattr(whole, name), getattr(parts, name))


@pytest.mark.parametrize(("fine", "together"), [(1, 5), (3, 2), (4, 7), (3, 20)])
def test_a_coarser_level_is_what_decimating_by_it_gives(fine, together):
    values = series(steps=101)
    values[3:30, 1] = np.nan
    values[60, 2] = -np.inf
    found, expected = coarsen(decimate(values, fine), together), decimate(values, fine * together)
    np.testing.assert_array_equal(found.extremes, expected.extremes)
    for name in ("low", "high", "count"):
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name))
    np.testing.assert_allclose(found.mean, expected.mean, atol=1e-6)
    assert found.extremes.dtype == found.mean.dtype == np.float32
    with mutations.must_be_noticed("a bucket fewer in each"):
        other = coarsen(decimate(values, fine), together - 1)
        np.testing.assert_array_equal(other.extremes, expected.extremes)


def test_band_is_the_widest_of_the_bucket():
    values = series(steps=20, units=11)
    values[4, 3] = np.nan
    found = decimate(values, 6)
    for bucket in range(4):
        steps = values.values[6 * bucket : 6 * bucket + 6].astype(float)
        assert found.mean[bucket] == pytest.approx(np.nanmean(steps), abs=1e-6)
        low, high = np.nanquantile(steps, (0.1, 0.9), axis=1)
        assert found.low[bucket] == pytest.approx(low.min(), abs=1e-6)
        assert found.high[bucket] == pytest.approx(high.max(), abs=1e-6)
        with mutations.must_be_noticed("quantiles of all values of the bucket together"):
            assert found.low[bucket] == pytest.approx(np.nanquantile(steps, 0.1), abs=1e-6)


def test_without_a_number_there_is_none_and_no_warning(recwarn):
    found = decimate(series() * np.nan, 10)
    assert np.isnan(found.extremes).all()
    assert np.isnan(found.mean).all()
    assert not recwarn.list


@pytest.mark.parametrize("dtype", ["float16", "float64", "int64", "bool"])
def test_any_number_becomes_single_precision(dtype):
    found = decimate((series() > 0).astype(dtype), 5)
    assert found.extremes.dtype == np.float32
    assert set(np.unique(found.extremes)) == {0.0, 1.0}


def test_what_single_precision_cannot_hold_is_infinite(recwarn):
    assert np.isinf(decimate(series().astype(np.float64) * 1e300, 5).extremes).all()
    assert not recwarn.list


def test_lazy_values_are_read_block_by_block():
    importorskip("dask")
    values = series(steps=101)
    found = decimate(values.chunk({"time": 10}), 6)
    np.testing.assert_array_equal(found.extremes, decimate(values, 6).extremes)


@given(st.integers(1, 5000), st.integers(1, 600).map(lambda half: 2 * half))
@settings(max_examples=200, deadline=None)
def test_buckets_fit_the_columns(steps, columns):
    size = bucket_size(steps, columns)
    buckets = -(-steps // size)
    assert (buckets if size == 1 else 2 * buckets) <= columns
    assert size == 1 or steps > columns


@given(st.integers(0, 2**32 - 1), st.integers(2, 40))
@settings(max_examples=50, deadline=None)
def test_the_range_of_every_unit_survives(seed, size):
    values = series(steps=97, units=3, seed=seed)
    found = decimate(values, size).extremes
    np.testing.assert_array_equal(found.max(axis=1), values.max("time"))
    np.testing.assert_array_equal(found.min(axis=1), values.min("time"))
