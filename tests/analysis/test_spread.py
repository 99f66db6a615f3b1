"""Ranges against plain lists."""

import math

import numpy as np
import pytest

import mutations
from everystate.analysis.spread import spread


def oracle(values):
    finite = [float(v) for v in values.values.ravel() if math.isfinite(v)]
    return min(finite), max(finite)


def check(found, name, expected):
    row = found.sel(variable=name)
    assert (row["min"].item(), row["max"].item()) == pytest.approx(expected, rel=1e-12)


def test_ranges_are_those_of_all_finite_values(make_layer):
    layer = make_layer("LSTM")
    layer["c"][0, 5, 3] = np.inf
    layer["c"][2, 6, 1] = -40.0
    layer["h"][1, 4, -1] = 7.0
    found = spread(layer)
    for name in "hcifgo":
        check(found, name, oracle(layer[name]))
    with mutations.must_be_noticed("rows past their end counted as zeros"):
        check(found, "i", oracle(layer["i"].fillna(0.0)))
    with mutations.must_be_noticed("h taken for c"):
        check(found, "h", oracle(layer["c"]))
    with mutations.must_be_noticed("the last unit left out"):
        check(found, "h", oracle(layer["h"][..., :-1]))


def test_without_a_finite_value_there_is_no_range(make_layer):
    found = spread(make_layer("LSTM") * np.nan)
    assert np.isnan(found["min"]).all()
    assert np.isnan(found["max"]).all()
