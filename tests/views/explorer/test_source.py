"""What the explorer shows of a variable, against decimating all of it at once."""

import numpy as np
import pytest
import xarray as xr

import mutations
from everystate.views.decimation import decimate
from everystate.views.explorer import source as module
from everystate.views.explorer.source import Source, difference, reader


@pytest.fixture
def values(monkeypatch):
    monkeypatch.setattr(module, "DIRECT", 2_000)
    monkeypatch.setattr(module, "LEVEL_VALUES", 4_000)
    return np.random.default_rng(2).normal(size=(5_003, 7)).cumsum(axis=0).astype(np.float32)


def source_of(values):
    return Source(lambda first, last: values[first:last], *values.shape)


def finished(source):
    while source.work():
        pass
    return source


def test_a_short_stretch_is_read_as_it_is(values):
    shown = source_of(values).stretch(4_000, 4_100, 1000)
    assert (shown.first, shown.size) == (4_000, 1)
    np.testing.assert_array_equal(shown.values.extremes, values[4_000:4_100].T)
    np.testing.assert_array_equal(shown.middles, np.arange(4_000, 4_100))
    with mutations.must_be_noticed("a step later"):
        np.testing.assert_array_equal(shown.values.extremes, values[4_001:4_101].T)


@pytest.mark.parametrize(("first", "last"), [(0, 5_003), (900, 4_321), (3_000, 5_003)])
def test_a_long_stretch_is_decimated_as_if_it_were_read(values, first, last):
    source = finished(source_of(values))
    shown = source.stretch(first, last, 100)
    assert shown.size % source.size == 0
    assert shown.first <= first < shown.first + source.size
    assert shown.values.extremes.shape[1] <= 100
    end = -(-last // source.size) * source.size
    expected = decimate(xr.DataArray(values[shown.first : end], dims=("time", "unit")), shown.size)
    np.testing.assert_array_equal(shown.values.extremes, expected.extremes)
    np.testing.assert_allclose(shown.values.mean, expected.mean, atol=1e-5)
    assert shown.ends[0] == shown.first - 0.5


def test_what_was_not_read_yet_is_missing_and_nothing_is_read_as_a_whole(values):
    longest = 0

    def read(first, last):
        nonlocal longest
        longest = max(longest, last - first)
        return values[first:last]

    source = Source(read, *values.shape)
    assert source.done == 0
    source.work()
    assert 0 < source.done < 1
    shown = source.stretch(0, 5_003, 200).values.extremes
    assert np.isnan(shown).any()
    assert np.isfinite(shown[:, 0]).all()
    finished(source)
    assert source.done == 1
    assert np.isfinite(source.stretch(0, 5_003, 200).values.extremes).all()
    assert longest <= source.block


def test_a_record_that_grows_keeps_what_was_read(values):
    source = Source(lambda first, last: values[first:last], 3_000, 7)
    finished(source)
    source.steps = 5_003
    assert source.done < 1
    finished(source)
    shown = source.stretch(0, 5_003, 5_003)
    expected = decimate(xr.DataArray(values, dims=("time", "unit")), shown.size)
    np.testing.assert_array_equal(shown.values.extremes, expected.extremes)


def test_a_difference_is_this_minus_the_other(make_layer):
    layer = make_layer("GRU").isel(batch=0)
    read = difference(reader(layer, "h"), reader(layer, "z"))
    np.testing.assert_array_equal(read(5, 9), layer.h.values[5:9] - layer.z.values[5:9])
