"""Saturated shares against plain counting."""

import numpy as np
import pytest

import mutations
from everystate.analysis.saturation import saturation

EDGES = {"i": (0.1, 0.9), "f": (0.1, 0.9), "o": (0.1, 0.9), "g": (-0.9, 0.9)}
EDGES |= {"r": (0.1, 0.9), "z": (0.1, 0.9), "n": (-0.9, 0.9)}


def oracle(layer, name, unit, valid, edges=None):
    low, high = edges or EDGES[name]
    values = [v for row in valid(layer[name], unit) for v in row]
    return (
        sum(v < low for v in values) / len(values),
        sum(v > high for v in values) / len(values),
    )


def check(found, name, expected):
    shares = found.sel(variable=name)
    ours = list(zip(shares.left.values, shares.right.values, strict=True))
    assert ours == [pytest.approx(pair, abs=1e-12) for pair in expected]


@pytest.mark.parametrize("cell", ["LSTM", "GRU"])
def test_shares_agree_with_counting(make_layer, valid, cell):
    layer = make_layer(cell)
    found = saturation(layer)
    assert set(found["variable"].values) == set("ifgo" if cell == "LSTM" else "rzn")
    for name in found["variable"].values:
        check(found, name, [oracle(layer, name, unit, valid) for unit in range(5)])
        with mutations.must_be_noticed("left and right swapped"):
            check(found, name, [oracle(layer, name, unit, valid)[::-1] for unit in range(5)])
        with mutations.must_be_noticed("edge at 0.2"):
            edges = (EDGES[name][0] + 0.1, EDGES[name][1] - 0.1)
            check(found, name, [oracle(layer, name, unit, valid, edges) for unit in range(5)])
        with mutations.must_be_noticed("units in another order"):
            check(found, name, [oracle(layer, name, unit, valid) for unit in (1, 0, 2, 3, 4)])
        with mutations.must_be_noticed("padding counted"):
            full = layer.fillna(0.5)
            check(found, name, [oracle(full, name, unit, valid) for unit in range(5)])


def test_a_wider_edge_counts_more(make_layer, valid):
    layer = make_layer("LSTM")
    found = saturation(layer, edge=0.2)
    check(found, "f", [oracle(layer, "f", unit, valid, (0.2, 0.8)) for unit in range(5)])


def test_an_activation_without_ends_does_not_saturate(make_layer):
    layer = make_layer("LSTM", activation="relu", recurrent_activation="hard_sigmoid")
    assert list(saturation(layer)["variable"].values) == ["i", "f", "o"]
    layer = make_layer("LSTM", activation="sigmoid")
    layer["g"] = abs(layer["g"])
    below = saturation(layer).left.sel(variable="g", unit=0).item()
    assert below == np.mean(layer["g"].values[..., 0][~np.isnan(layer["g"].values[..., 0])] < 0.1)


def test_a_unit_without_values_has_no_share(make_layer):
    layer = make_layer("GRU")
    layer["z"][..., 4] = np.nan
    found = saturation(layer).sel(variable="z")
    assert np.isnan(found.left.values).tolist() == [False, False, False, False, True]
