"""Ranges against sorted plain lists."""

import math
import statistics

import numpy as np
import pytest

import mutations
from everystate.analysis.spread import spread


def oracle(values):
    ordered = sorted(float(v) for v in values.values.ravel() if math.isfinite(v))
    return ordered[0], statistics.median(ordered), ordered[-1]


def check(found, name, expected):
    row = found.sel(variable=name)
    ours = (row["min"].item(), row["quantiles"].sel(quantile=0.5).item(), row["max"].item())
    assert ours == pytest.approx(expected, rel=1e-12)


def test_range_and_median_are_those_of_all_finite_values(make_layer):
    layer = make_layer("LSTM")
    layer["c"][0, 5, 3] = np.inf
    layer["c"][2, 6, 1] = -40.0
    found = spread(layer)
    for name in "hcifgo":
        check(found, name, oracle(layer[name]))
    with mutations.must_be_noticed("rows past their end counted as zeros"):
        check(found, "i", oracle(layer["i"].fillna(0.0)))
    with mutations.must_be_noticed("h taken for c"):
        check(found, "h", oracle(layer["c"]))
    with mutations.must_be_noticed("the last unit left out"):
        check(found, "h", oracle(layer["h"][..., :-1]))


def test_quantiles_of_a_known_ramp(make_layer):
    layer = make_layer("GRU", lengths=None)[["h"]]
    layer["h"] = layer["h"] * 0 + np.linspace(0.0, 1.0, 41)[:, None]
    found = spread(layer, quantiles=(0.0, 0.25, 1.0)).quantiles.sel(variable="h")
    assert found.values == pytest.approx([0.0, 0.25, 1.0], abs=1e-2)
    assert found["quantile"].values.tolist() == [0.0, 0.25, 1.0]


def test_without_a_finite_value_there_is_no_range(make_layer):
    found = spread(make_layer("LSTM") * np.nan)
    assert np.isnan(found["min"]).all()
    assert np.isnan(found["quantiles"]).all()
