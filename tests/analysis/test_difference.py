"""How far two recordings are apart: known noise, and plain sums."""

import numpy as np
import pytest
import xarray as xr

import mutations
from everystate.analysis.difference import difference
from everystate.errors import SelectionError


def root(values):
    there = values[np.isfinite(values)]
    return np.sqrt(np.mean(there**2))


def oracle(a, b, name):
    x, y = a[name].values, b[name].values
    y = np.where(np.isfinite(x), y, np.nan)
    steps, units = range(x.shape[1]), range(x.shape[2])
    rms = [root((x - y)[:, t]) for t in steps]
    return (
        rms,
        [rms[t] / root(y[:, t]) for t in steps],
        [root((x - y)[..., u]) / root(y[..., u]) for u in units],
    )


def check(found, name, expected):
    one = found.sel(variable=name)
    for part, values in zip(("rms", "over_time", "over_units"), expected, strict=True):
        assert one[part].values == pytest.approx(np.array(values), rel=1e-9)


def test_it_agrees_with_plain_sums(make_layer):
    a, b = make_layer("LSTM", seed=1), make_layer("LSTM", seed=2)
    b["c"] = 5 * b["c"]
    found = difference(a, b)
    for name in "hcif":
        check(found, name, oracle(a, b, name))
    with mutations.must_be_noticed("a and b swapped"):
        check(found, "c", oracle(b, a, "c"))
    with mutations.must_be_noticed("shifted by a step"):
        check(found, "c", oracle(a, b.roll(time=1), "c"))
    with mutations.must_be_noticed("padding counted"):
        check(found, "c", oracle(a.fillna(0.0), b.fillna(0.0), "c"))


def test_an_error_that_grows_is_seen_to(make_layer):
    b = make_layer("GRU", lengths=None)
    a = b.copy(deep=True)
    a["h"] = b["h"] + 1e-3 * np.arange(41.0)[:, None] * (np.arange(5) == 3)
    found = difference(a, b).sel(variable="h")
    assert found.rms.values == pytest.approx(1e-3 * np.arange(41) / np.sqrt(5))
    assert np.flatnonzero(found.over_units.values).tolist() == [3]


def test_labels_do_not_matter_and_sizes_do(make_layer):
    a, b = make_layer("GRU"), make_layer("GRU", seed=3)
    other = b.assign_coords(time=np.arange(41) + 1000, unit=list("abcde"))
    xr.testing.assert_allclose(difference(a, other), difference(a, b))
    with pytest.raises(SelectionError, match=r"h is .*'time': 41.* and .*'time': 40"):
        difference(a, b.isel(time=slice(40)))


def test_update_gates_are_compared_in_one_convention(make_layer):
    a = make_layer("GRU", update="keeps")
    b = a.assign(z=1 - a["z"]).assign_attrs(update="writes")
    assert difference(a, b).rms.sel(variable="z").max().item() == pytest.approx(0.0, abs=1e-12)
    with mutations.must_be_noticed("conventions mixed"):
        mixed = difference(a, b.assign_attrs(update="keeps"))
        assert mixed.rms.sel(variable="z").max().item() == pytest.approx(0.0, abs=1e-12)


def test_nothing_in_common(make_layer):
    assert not difference(make_layer("GRU")[["h"]], make_layer("LSTM")[["c"]]).data_vars
