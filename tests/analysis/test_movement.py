"""Units that never move, built to be known."""

import numpy as np
import pytest

import mutations
from everystate.analysis.movement import movement


def oracle(values, valid):
    return [
        max(max(row) - min(row) for row in valid(values, unit)) for unit in range(values.shape[-1])
    ]


def test_travel_is_the_range_in_the_row_where_it_is_largest(make_layer, valid):
    layer = make_layer("LSTM")
    found = movement(layer)
    assert found.attrs["state"] == "h"
    expected = oracle(layer["h"], valid)
    assert found.travel.values == pytest.approx(expected, rel=1e-12)
    with mutations.must_be_noticed("c taken for h"):
        assert found.travel.values == pytest.approx(oracle(layer["c"], valid), rel=1e-6)
    with mutations.must_be_noticed("range over rows and steps together"):
        pooled = layer["h"].max(["batch", "time"]) - layer["h"].min(["batch", "time"])
        assert found.travel.values == pytest.approx(pooled.values, rel=1e-6)
    with mutations.must_be_noticed("padding counted as zeros"):
        padded = oracle((layer["h"] + 9).fillna(0.0), valid)
        assert found.travel.values == pytest.approx(padded, rel=1e-6)


def test_a_unit_that_stays_is_still_wherever_it_stays(make_layer):
    layer = make_layer("GRU")
    layer["h"][..., 1] = layer["h"][:, :1, 1].values  # another constant in each row
    layer["h"][..., 3] = layer["h"][:, :1, 3].values
    layer["h"][2, 7, 3] += 0.5  # moves once, in one row
    assert movement(layer).still.values.tolist() == [False, True, False, False, False]
    assert movement(layer, still_below=1.0).still.values.tolist() == [
        False,
        True,
        False,
        True,
        False,
    ]


def test_one_step_says_nothing_of_movement(make_layer):
    found = movement(make_layer("GRU").isel(time=[0]))
    assert np.isnan(found.travel).all()
    assert not found.still.any()


def test_without_h_the_first_state_is_taken(make_layer, valid):
    layer = make_layer("LSTM")[["c", "f"]]
    assert movement(layer).travel.values == pytest.approx(oracle(layer["c"], valid), rel=1e-12)
