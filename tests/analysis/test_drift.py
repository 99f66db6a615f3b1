"""Drift: known slopes, and plain least squares."""

import numpy as np
import pytest

import mutations
from everystate.analysis.drift import drift


def oracle(layer, state, row, stride=1, flip=False):
    values = layer[state].values[row]
    series = [np.mean(np.abs(step)) for step in values if np.isfinite(step).all()]
    at = np.arange(len(series)) * stride
    if flip:
        series = series[::-1]
    slope = np.polyfit(at, series, 1)[0]
    tenth = max(1, len(series) // 10)
    ratio = np.mean(series[-tenth:]) / np.mean(series[:tenth])
    return slope, np.mean(series), slope / np.mean(series), ratio


def check(found, expected):
    ours = np.stack([found[m].values for m in ("slope", "level", "relative", "ratio")], axis=-1)
    assert ours == pytest.approx(np.array(expected), rel=1e-9)


def test_drift_agrees_with_least_squares_row_by_row(make_layer):
    layer = make_layer("LSTM", lengths=(41, 17, 30))
    found = drift(layer, shortest=2)
    assert found.attrs["state"] == "c"
    check(found, [oracle(layer, "c", row) for row in range(3)])
    with mutations.must_be_noticed("h taken for c"):
        check(found, [oracle(layer, "h", row) for row in range(3)])
    with mutations.must_be_noticed("rows swapped"):
        check(found, [oracle(layer, "c", row) for row in (1, 0, 2)])
    with mutations.must_be_noticed("padding counted as zeros"):
        check(found, [oracle(layer.fillna(0.0), "c", row) for row in range(3)])
    with mutations.must_be_noticed("time backwards"):
        check(found, [oracle(layer, "c", row, flip=True) for row in range(3)])
    with mutations.must_be_noticed("signs kept"):
        check(found, [oracle(layer + 5, "c", row) for row in range(3)])


def test_a_backward_layer_drifts_in_the_order_it_reads(make_layer):
    layer = make_layer("GRU", direction="backward")
    found = drift(layer, shortest=2)
    assert found.attrs["state"] == "h"
    check(found, [oracle(layer, "h", row, flip=True) for row in range(3)])
    with mutations.must_be_noticed("order of the sequence for the order of reading"):
        check(found, [oracle(layer, "h", row) for row in range(3)])


def test_the_slope_counts_steps_of_the_model(make_layer):
    layer = make_layer("LSTM", lengths=None).isel(time=slice(None, None, 10))
    check(drift(layer, shortest=2), [oracle(layer, "c", row, stride=10) for row in range(3)])
    with mutations.must_be_noticed("recorded steps for steps"):
        check(drift(layer, shortest=2), [oracle(layer, "c", row) for row in range(3)])


def test_a_known_line(make_layer):
    layer = make_layer("LSTM", lengths=None)
    layer["c"][:] = -(2.0 + 0.25 * np.arange(41.0))[:, None]
    found = drift(layer, shortest=2).isel(batch=0)
    assert found.slope.item() == pytest.approx(0.25)
    assert found.level.item() == pytest.approx(7.0)
    assert found.ratio.item() == pytest.approx(
        (11.25 + 11.5 + 11.75 + 12) / (2 + 2.25 + 2.5 + 2.75)
    )


def test_values_that_are_not_finite_are_left_out(make_layer):
    layer = make_layer("LSTM", lengths=None)
    without = drift(layer.isel(unit=[0, 1, 2, 3]), shortest=2)
    layer["c"][..., 4] = np.inf
    check(
        drift(layer, shortest=2),
        np.stack([without[m] for m in ("slope", "level", "relative", "ratio")], -1),
    )


def test_rows_shorter_than_asked_have_no_drift(make_layer):
    layer = make_layer("LSTM", lengths=(41, 1, 17))
    for shortest, missing in [(2, [0, 1, 0]), (17, [0, 1, 0]), (18, [0, 1, 1]), (42, [1, 1, 1])]:
        found = drift(layer, shortest=shortest)
        for measure in ("slope", "level", "relative", "ratio"):
            assert np.isnan(found[measure].values).tolist() == missing
    assert drift(layer).slope.isnull().all()


def test_the_steps_of_the_model_make_the_length(make_layer):
    layer = make_layer("LSTM", lengths=None).isel(time=slice(None, None, 10))  # 0, 10, ..., 40
    assert drift(layer, shortest=41).slope.notnull().all()
    assert drift(layer, shortest=42).slope.isnull().all()
