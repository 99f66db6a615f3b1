"""Change points: planted levels are found, and none where there is none."""

import numpy as np
import pytest
import xarray as xr

import mutations
from everystate.testing import importorskip

importorskip("ruptures")

from everystate.analysis.changes import changes

DIMS = ("batch", "time", "unit")


def noise(seed, share=0.0, steps=1200, units=6):
    rng = np.random.default_rng(seed)
    c = rng.normal(size=(2, steps, units))
    for t in range(1, steps):
        c[:, t] += share * c[:, t - 1]
    return c


def layer(c, **attrs):
    return xr.Dataset({"c": (DIMS, c)}, attrs={"cell": "LSTM", **attrs})


@pytest.mark.parametrize("share", [0.0, 0.8])
def test_planted_changes_are_found(share):
    c = noise(0, share)
    deviation = c[1].std(axis=0)
    c[1, 500:, 2] += 3 * deviation[2]
    c[1, 500:, 5] -= 3 * deviation[5]
    c[1, 900:, [0, 3]] += 4 * deviation[[0, 3], None]
    found = changes(layer(c), row=1)
    assert found["at"].values == pytest.approx([500, 900], abs=2 * found.attrs["bucket"])
    moved = found.moved.values
    assert set(np.flatnonzero(abs(moved[0]) > 1).tolist()) == {2, 5}
    assert np.sign(moved[0][[2, 5]]).tolist() == [1, -1]
    assert np.flatnonzero(abs(moved[1]) > 1).tolist() == [0, 3]
    with mutations.must_be_noticed("the other row"):
        assert changes(layer(c), row=0).sizes["change"] == 2


def test_the_shift_is_in_standard_deviations_of_the_unit():
    c = noise(1)
    c[0, 600:, 3] += 4.0
    found = changes(layer(c))
    looked_at = c[0, 120:, 3]
    expected = (c[0, 600:, 3].mean() - c[0, 120:600, 3].mean()) / looked_at.std()
    assert found["at"].values.tolist() == [600]
    assert found.moved.values[0, 3] == pytest.approx(expected, rel=0.02)
    with mutations.must_be_noticed("deviation of the new level only"):
        assert found.moved.values[0, 3] == pytest.approx(expected * looked_at.std(), rel=0.02)


@pytest.mark.parametrize("size", [0.003, 0.05])
def test_a_straight_ramp_is_told_from_a_level(size):
    c = noise(2)
    c[0, :, 1] += size * np.arange(1200)
    c[0, :, 4] -= size * np.arange(1200)
    c[0, 600:, 3] += 4.0
    found = changes(layer(c))
    assert np.flatnonzero((abs(found.moved) >= 0.5).any("change")).tolist() == [1, 3, 4]
    at, t = found["at"].values, np.arange(120, 1200)
    for unit in (1, 3, 4):  # squares that a line and the levels leave of the single steps
        x = c[0, 120:, unit]
        line = ((x - np.polyval(np.polyfit(t, x, 1), t)) ** 2).sum()
        levels = sum(((part - part.mean()) ** 2).sum() for part in np.split(x, at - 120))
        assert found.straight.values[unit] == (line < levels) == (unit != 3)
    with mutations.must_be_noticed("a level for a ramp"):
        assert found.straight.values[3]


@pytest.mark.parametrize("share", [0.0, 0.5, 0.9])
def test_noise_of_any_memory_has_no_change(share):
    for seed in range(8):
        assert changes(layer(noise(seed, share))).sizes["change"] == 0


def test_a_fast_wave_and_a_start_from_zero_are_no_change():
    t = np.arange(1200)
    wave = np.sin(t[:, None] * np.array([0.3, 0.21, 0.1])) + 0.1 * noise(2, units=3)[0]
    start = np.minimum(1.0, t / 60)[:, None]
    assert changes(layer((wave * start)[None])).sizes["change"] == 0


def test_a_backward_layer_is_read_from_its_end():
    c = noise(3)
    c[0, :700] += 3.0  # the level after the change, as the layer reads
    found = changes(layer(c, direction="backward"))
    assert found["at"].values == pytest.approx([699], abs=2 * found.attrs["bucket"])
    assert (found.moved.values > 0).all()


def test_padding_and_lost_values():
    c = noise(4)
    c[0, 400:] += 3.0
    c[0, 800:] = np.nan
    c[0, 300, 1] = np.inf
    found = changes(layer(c))
    assert found["at"].values == pytest.approx([400], abs=2 * found.attrs["bucket"])
    c[0, :, 1] = np.nan  # a unit without values does not hide the others
    assert changes(layer(c)).sizes["change"] == 1
    assert np.isnan(changes(layer(c)).moved.values[0, 1])


@pytest.mark.parametrize("steps", [0, 1, 5, 39])
def test_short_rows_have_no_change(steps):
    assert changes(layer(noise(5)[:, :steps])).sizes.get("change", 0) == 0
    still = np.zeros((1, 100, 3))
    assert changes(layer(still)).sizes["change"] == 0
    assert not changes(xr.Dataset()).data_vars
