"""Openness of gates over time, against plain counting step by step."""

import math

import numpy as np
import pytest

import mutations
from everystate.analysis.openness import openness

ENDS = {**dict.fromkeys("ifo", (0, 1)), **dict.fromkeys("rz", (0, 1)), "g": (-1, 1), "n": (-1, 1)}


def oracle(layer, name, edge=0.1):
    low, high = ENDS[name]
    found = []
    for t in range(layer.sizes["time"]):
        there = [float(v) for v in layer[name].values[:, t].ravel() if math.isfinite(v)]
        left = sum(v < low + edge for v in there) / len(there)
        right = sum(v > high - edge for v in there) / len(there)
        found.append((sum(there) / len(there), left, right))
    return np.array(found)


def check(found, name, expected):
    one = found.sel(variable=name)
    ours = np.stack([one[part].values for part in ("mean", "left", "right")], axis=-1)
    assert ours == pytest.approx(expected, rel=1e-9, abs=1e-12)


@pytest.mark.parametrize("cell", ["LSTM", "GRU"])
def test_it_agrees_with_counting_step_by_step(make_layer, cell):
    layer = make_layer(cell)
    found = openness(layer)
    for name in "ifgo" if cell == "LSTM" else "rzn":
        check(found, name, oracle(layer, name))
        with mutations.must_be_noticed("edge at 0.2"):
            check(found, name, oracle(layer, name, edge=0.2))
        with mutations.must_be_noticed("time shifted"):
            check(found, name, np.roll(oracle(layer, name), 1, axis=0))
        with mutations.must_be_noticed("padding counted"):
            check(found, name, oracle(layer.fillna(0.5), name))
        with mutations.must_be_noticed("left and right swapped"):
            check(found, name, oracle(layer, name)[:, [0, 2, 1]])


def test_a_gate_that_shuts_at_a_known_step(make_layer):
    layer = make_layer("LSTM", lengths=None)
    layer["o"][:] = 0.5
    layer["o"][:, 23:, :2] = 0.01
    left = openness(layer).left.sel(variable="o").values
    assert left[:23].tolist() == [0.0] * 23
    assert left[23:] == pytest.approx([0.4] * 18)


def test_a_gate_without_ends_has_a_mean_only(make_layer):
    found = openness(make_layer("LSTM", activation="relu")).sel(variable="g")
    assert found["mean"].notnull().all()
    assert found.left.isnull().all()
    assert found.right.isnull().all()
