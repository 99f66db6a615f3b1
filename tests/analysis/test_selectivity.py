"""Selectivity: against counting pairs, and cells that were planted."""

import numpy as np
import pytest
import xarray as xr

import mutations
from everystate.analysis.selectivity import selectivity
from everystate.errors import AnalysisError
from everystate.testing import importorskip

importorskip("scipy")


@pytest.fixture
def layer(make_layer):
    """Values with ties, of rows that end early."""
    return make_layer("LSTM", lengths=(41, 17, 30)).round(1)


def by_pairs(x, y):
    with_, without = x[y].tolist(), x[~y].tolist()
    wins = sum((a > b) - (a < b) for a in with_ for b in without)
    return wins / (len(with_) * len(without))


def average_ranks(x):
    return np.array([(x < v).sum() + ((x == v).sum() + 1) / 2 for v in x])


def test_a_truth_value_agrees_with_counting_pairs(layer):
    labels = np.random.default_rng(14).random((3, 41)) < 0.3
    found = selectivity(layer, labels, ("h", "c"), shifts=3, least_shift=5)
    inside = np.arange(41) < np.array([[41], [17], [30]])
    y = labels[inside]

    def check(y):
        expected = [by_pairs(layer[n].values[inside][:, u], y) for n in "hc" for u in range(5)]
        assert found.selectivity.values == pytest.approx(expected)

    check(y)
    with mutations.must_be_noticed("label turned round"):
        check(~y)
    with mutations.must_be_noticed("one step late"):
        check(np.roll(y, 1))


def test_a_quantity_agrees_with_the_correlation_of_ranks(layer):
    labels = np.random.default_rng(15).integers(0, 9, size=(3, 41))
    found = selectivity(layer, labels, "c", shifts=3, least_shift=5)
    inside = np.arange(41) < np.array([[41], [17], [30]])
    y = labels[inside].astype(float)

    def check(rank):
        x = layer["c"].values[inside]
        expected = [np.corrcoef(rank(x[:, u]), rank(y))[0, 1] for u in range(5)]
        assert found.selectivity.values == pytest.approx(expected)

    check(average_ranks)
    with mutations.must_be_noticed("values for ranks"):
        check(lambda x: x)


@pytest.fixture(scope="module")
def quotes():
    """A unit that is on inside quotes and one that counts the line, among 30 of slow noise."""
    rng = np.random.default_rng(16)
    steps = 3000
    noise = np.cumsum(rng.normal(size=(steps, 30)), axis=0)
    noise = noise - np.stack([np.convolve(c, np.ones(201) / 201, "same") for c in noise.T], axis=1)
    h = noise / noise.std(axis=0)
    quoted = (rng.random(steps // 50) < 0.4).repeat(50)
    column = np.arange(steps) % 71
    h[:, 7] = 2.5 * quoted + rng.normal(size=steps)
    h[:, 21] = np.tanh((column - 35) / 30) + 0.2 * rng.normal(size=steps)
    return xr.Dataset({"h": (("time", "unit"), h)}), quoted, column


@pytest.mark.parametrize("which", ["quoted", "column"])
def test_planted_cells_are_found_and_no_others(quotes, which):
    layer, quoted, column = quotes
    labels, cell = (quoted, 7) if which == "quoted" else (column, 21)
    found = selectivity(layer, labels, least_shift=80)
    assert found["unit"].values[np.abs(found.selectivity.values).argmax()] == cell
    assert found.selectivity.values[cell] > 0.85
    assert found.p_value.values[cell] == pytest.approx(1 / 201)
    assert (np.delete(found.p_value.values, cell) > 0.01).all()


def test_the_best_of_many_units_is_no_evidence(quotes):
    """p-values are of the best of all units: without that correction noise would look selective."""
    layer, _, _ = quotes
    noise = layer.isel(unit=[u for u in range(30) if u not in (7, 21)])
    rng = np.random.default_rng(17)
    best, uncorrected = [], []
    for _ in range(40):
        labels = (rng.random(60) < 0.4).repeat(50)
        found = selectivity(noise, labels, shifts=39, least_shift=50)
        best.append(found.p_value.values.min())
        h, y = noise["h"].values, labels
        own = max(abs(by_means(h, y)))
        single = [abs(by_means(h, np.roll(y, k))[0]) for k in found["shift"].values]
        uncorrected.append((1 + sum(s >= own for s in single)) / 40)

    def check(values):
        assert np.mean(np.array(values) <= 0.1) < 0.3

    check(best)
    with mutations.must_be_noticed("one unit's chance for that of all"):
        check(uncorrected)


def by_means(h, y):
    return (h[y].mean(axis=0) - h[~y].mean(axis=0)) / h.std(axis=0)


def test_a_unit_that_does_not_move_tells_nothing(quotes):
    layer, quoted, column = quotes
    layer = layer.copy(deep=True)
    layer["h"][:, 3] = 0.5
    for labels in (quoted, column):
        assert selectivity(layer, labels, shifts=2).selectivity.values[3] == 0.0


def test_classes_are_asked_for_one_by_one(quotes):
    layer, quoted, _ = quotes
    names = np.where(quoted, "speech", "narration")
    with pytest.raises(AnalysisError, match="Of several classes, ask for one"):
        selectivity(layer, names)
    one = selectivity(layer, names == "speech", shifts=3)
    assert one.equals(selectivity(layer, quoted, shifts=3))
