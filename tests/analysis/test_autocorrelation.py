"""Autocorrelation: processes of known memory, and the plain sum over pairs."""

import math

import numpy as np
import pytest
import xarray as xr

import mutations
from everystate.analysis.autocorrelation import decorrelation
from everystate.analysis.memory import half_life


def oracle(rows, lags):
    """The first lag at which the mean product of pairs has fallen to half of the mean square."""
    deviations = [[v - sum(row) / len(row) for v in row] for row in rows]

    def mean_product(k):
        products = [d[t] * d[t + k] for d in deviations for t in range(len(d) - k)]
        return sum(products) / len(products)

    r = [mean_product(k) / mean_product(0) for k in range(lags + 1)]
    below = [k for k in range(lags + 1) if r[k] < 0.5]
    if not below:
        return math.inf
    k = below[0]
    return k - 1 + (r[k - 1] - 0.5) / (r[k - 1] - r[k])


def smooth(layer, name="c", share=0.7):
    """Make a state remember, so that there is something to measure."""
    values = layer[name].values
    for t in range(1, values.shape[1]):
        values[:, t] = share * values[:, t - 1] + values[:, t]
    return layer


def test_it_agrees_with_the_sum_over_pairs(make_layer, valid):
    layer = smooth(make_layer("LSTM"))
    found = decorrelation(layer)
    assert (found.attrs["state"], found.attrs["lags"]) == ("c", 10)
    units = range(5)
    expected = [oracle(valid(layer["c"], u), 10) for u in units]
    assert found.half.values == pytest.approx(expected, rel=1e-6)
    with mutations.must_be_noticed("h taken for c"):
        assert found.half.values == pytest.approx(
            [oracle(valid(layer["h"], u), 10) for u in units], rel=1e-6
        )
    with mutations.must_be_noticed("one mean for all rows"):
        means = [[[v for row in valid(layer["c"], u) for v in row]] for u in units]
        assert found.half.values == pytest.approx([oracle(m, 10) for m in means], rel=1e-6)
    with mutations.must_be_noticed("padding counted as zeros"):
        padded = layer.fillna(0.0)
        assert found.half.values == pytest.approx(
            [oracle(valid(padded["c"], u), 10) for u in units], rel=1e-6
        )


@pytest.mark.parametrize("share", [0.8, 0.9, 0.95])
def test_a_leaky_unit_has_the_half_life_of_its_gate(share):
    rng = np.random.default_rng(3)
    c = rng.normal(size=(4, 20_000, 2))
    for t in range(1, c.shape[1]):
        c[:, t] = share * c[:, t - 1] + c[:, t]
    dims = ("batch", "time", "unit")
    f = xr.full_like(xr.DataArray(c, dims=dims), share)
    layer = xr.Dataset({"c": (dims, c), "f": f}, attrs={"cell": "LSTM"})
    by_gate = half_life(layer).half_life.values
    assert by_gate == pytest.approx(math.log(2) / -math.log(share))
    # 80,000 steps: the error of an estimate of r is about sqrt(2 * memory / steps), some per cent.
    assert decorrelation(layer).half.values == pytest.approx(by_gate, rel=0.06)
    with mutations.must_be_noticed("time constant for half-life"):
        assert decorrelation(layer).half.values == pytest.approx(by_gate / math.log(2), rel=0.06)


def test_a_sine_has_a_sixth_of_its_period():
    t = np.arange(1200.0)
    turn = np.stack([np.sin(2 * np.pi * t / 60), np.cos(2 * np.pi * t / 120)], axis=-1)
    layer = xr.Dataset({"h": (("time", "unit"), turn)})
    assert decorrelation(layer).half.values == pytest.approx([10, 20], rel=0.03)


def test_a_stride_counts_steps_of_the_model():
    t = np.arange(0, 1200, 5)
    layer = xr.Dataset({"h": (("time", "unit"), np.sin(2 * np.pi * t / 120)[:, None])}, {"time": t})
    assert decorrelation(layer).half.values == pytest.approx([20], rel=0.05)


def test_a_unit_that_never_falls_or_never_moves(make_layer):
    layer = make_layer("LSTM", lengths=None)
    layer["c"][..., 0] = 0.25
    layer["c"][..., 1] = np.arange(41.0)
    found = decorrelation(layer).half.values
    assert math.isnan(found[0])
    assert found[1] == pytest.approx(41 / 5, rel=0.05)  # the longest that can come out of a row
    assert np.isfinite(found[2:]).all()


def test_the_start_of_a_long_row_is_left_behind(make_layer):
    layer = smooth(make_layer("LSTM", lengths=None))
    late = layer.isel(time=slice(-20, None))
    assert decorrelation(layer, longest=20).half.values == pytest.approx(
        decorrelation(late).half.values
    )
    backward = layer.isel(time=slice(None, None, -1)).assign_attrs(direction="backward")
    assert decorrelation(backward, longest=20).half.values == pytest.approx(
        decorrelation(late).half.values
    )
    with mutations.must_be_noticed("the end left behind"):
        early = layer.isel(time=slice(0, 20))
        assert decorrelation(layer, longest=20).half.values == pytest.approx(
            decorrelation(early).half.values
        )
