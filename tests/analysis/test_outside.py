"""Values outside a baseline's range, by plain counting."""

import numpy as np
import pytest

import mutations
from everystate.analysis.outside import outside


def oracle(values, baseline, valid, margin=0.1):
    shares = []
    for unit in range(values.shape[-1]):
        usual = [v for row in valid(baseline, unit) for v in row]
        room = margin * (max(usual) - min(usual))
        here = [v for row in valid(values, unit) for v in row]
        out = [v < min(usual) - room or v > max(usual) + room for v in here]
        shares.append(sum(out) / len(out))
    return shares


def test_it_agrees_with_counting(make_layer, valid):
    layer, baseline = make_layer("LSTM", seed=1), make_layer("LSTM", seed=2, lengths=(9, 7, 8))
    found = outside(layer, baseline)
    for name in "hc":
        share = found["share"].sel(variable=name).values
        assert share == pytest.approx(oracle(layer[name], baseline[name], valid))
        assert share.max() > 0
        with mutations.must_be_noticed("no margin"):
            assert share == pytest.approx(oracle(layer[name], baseline[name], valid, margin=0.0))
        with mutations.must_be_noticed("baseline and recording swapped"):
            assert share == pytest.approx(oracle(baseline[name], layer[name], valid))
        with mutations.must_be_noticed("padding of the recording counted"):
            assert share == pytest.approx(oracle(layer[name].fillna(99), baseline[name], valid))


def test_a_known_departure(make_layer):
    baseline = make_layer("GRU", lengths=None)
    layer = baseline.copy(deep=True).isel(batch=[0])
    layer["h"][0, 30:, 1] = 50.0
    found = outside(layer, baseline).sel(variable="h")
    assert found["share"].values.tolist() == [0.0, 11 / 41, 0.0, 0.0, 0.0]
    assert found.over_time.values.tolist() == [0.0] * 30 + [0.2] * 11


def test_other_units_are_not_compared(make_layer):
    layer = make_layer("LSTM")
    assert not outside(layer, layer.isel(unit=[0, 1])).data_vars
    moved = layer.assign_coords(unit=np.arange(5) + 100)  # other labels: paired by place
    assert outside(moved, layer)["share"].sel(variable="h").values.tolist() == [0.0] * 5
