"""Probes: planted labels are read, others are not, and no tested step is near a fitted one."""

import numpy as np
import pytest
import xarray as xr

import mutations
from everystate.analysis import probes
from everystate.analysis.probes import Split, probe
from everystate.errors import AnalysisError, SelectionError
from everystate.testing import importorskip

importorskip("sklearn")

QUICK = Split(shifts=5, gap=20)


def smooth(rng, steps, columns):
    noise = rng.normal(size=(steps + 30, columns))
    return np.stack([np.convolve(c, np.ones(31) / 5, mode="valid") for c in noise.T], axis=1)


@pytest.fixture(scope="module")
def layer():
    """Slow states of 2 rows, 700 steps and 6 units; two of them add up to what labels come from."""
    rng = np.random.default_rng(12)
    h = np.stack([smooth(rng, 700, 6), smooth(rng, 700, 6)])
    return xr.Dataset({"h": (("batch", "time", "unit"), h)}, attrs={"cell": "SimpleRNN"})


@pytest.fixture(scope="module")
def hidden(layer):
    h = layer["h"].values
    return 2 * h[..., 1] - h[..., 4]


def test_a_class_is_read(layer, hidden):
    found = probe(layer, hidden > 0.3, split=QUICK)
    assert found.attrs["kind"] == "classes"
    assert found.score > 0.95
    assert found.control.max() < 0.75
    assert found.p_value == pytest.approx(1 / 6)
    assert found.chance == 0.5
    weight = found.weight.values
    assert weight[1] / weight[4] == pytest.approx(-2.0, rel=0.35)
    assert np.abs(np.delete(weight, [1, 4])).max() < 0.2 * weight[1]


def test_a_quantity_is_read(layer, hidden):
    found = probe(layer, 3 * hidden + 7, split=QUICK)
    assert found.attrs["kind"] == "quantity"
    assert found.score > 0.99
    assert found.control.max() < 0.3
    std = layer["h"].values.reshape(-1, 6).std(axis=0)
    assert found.weight.values == pytest.approx([0, 6 * std[1], 0, 0, -3 * std[4], 0], abs=0.1)


@pytest.mark.parametrize("names", [("slow", "fast", "none"), (3, 5, 9)])
def test_several_classes(layer, hidden, names):
    labels = np.array(names)[np.digitize(hidden, [-1.0, 1.0])]
    found = probe(layer, labels, split=QUICK)
    assert found.score > 0.85
    assert found.chance == pytest.approx(1 / 3)
    assert found["class"].values.tolist() == sorted(names)
    assert found.weight.dims == ("class", "column")


def test_unrelated_labels_are_not_read_though_random_splits_read_them(layer):
    """The reason for stretches: slow states tell which step it is, and so any slow label."""
    other = smooth(np.random.default_rng(13), 1400, 1)[:, 0].reshape(2, 700) > 0

    def check(score):
        assert score < 0.65

    found = probe(layer, other, split=Split(shifts=19, gap=30))
    check(found.score)
    assert found.p_value > 0.05
    from sklearn.model_selection import cross_val_score
    from sklearn.neighbors import KNeighborsClassifier

    with mutations.must_be_noticed("steps split at random"):
        shuffled = np.random.default_rng(0).permutation(1400)
        x, y = layer["h"].values.reshape(-1, 6)[shuffled], other.ravel()[shuffled]
        check(cross_val_score(KNeighborsClassifier(1), x, y).mean())


def test_what_is_tested_is_not_next_to_what_was_fitted():
    def check(folds, gap):
        tested = []
        for fit, test in folds:
            assert np.abs(fit[:, None] - test).min() > gap
            tested += test.tolist()
        assert tested == list(range(103))

    check(probes._folds(103, 5, 9), 9)
    with mutations.must_be_noticed("a gap one step shorter"):
        check(probes._folds(103, 5, 8), 9)


def test_the_score_by_hand():
    y = np.array(["a", "a", "a", "b"])
    said = np.array(["a", "a", "b", "b"])
    assert probes._score(y, said, classes=True) == pytest.approx((2 / 3 + 1) / 2)
    y, said = np.array([1.0, 2.0, 3.0]), np.array([1.0, 2.5, 3.0])
    assert probes._score(y, said, classes=False) == pytest.approx(1 - 0.25 / 2)


def test_a_class_that_is_absent_from_what_is_fitted(layer):
    labels = np.zeros((2, 700), bool)
    labels[0, 5:60] = True  # in the first stretch only
    found = probe(layer, labels, split=QUICK)
    assert found.score <= 0.5  # it cannot be known


def test_more_steps_than_asked_for_are_thinned(layer, hidden):
    found = probe(layer, hidden, split=Split(samples=300, shifts=3, gap=20))
    assert found.score > 0.95
    assert (found["shift"] % 5 == 0).all()  # every fifth of 1,400


@pytest.mark.parametrize("cell", ["LSTM", "GRU", "SimpleRNN"])
def test_ragged_rows_and_every_cell(make_layer, cell):
    made = make_layer(cell, lengths=(41, 17, 30))
    labels = made["h"].isel(unit=2).values > 0
    labels = np.where(np.isfinite(made["h"].isel(unit=2).values), labels, False)
    found = probe(made, labels, split=Split(folds=4, gap=3, shifts=3))
    assert found.score > 0.75


def test_errors(layer, hidden):
    with pytest.raises(SelectionError, match="folds=1"):
        probe(layer, hidden, split=Split(folds=1))
    with pytest.raises(AnalysisError, match="cannot be parted into 2 stretches with 800"):
        probe(layer, hidden, split=Split(folds=2, gap=800))
    with pytest.raises(AnalysisError, match="shape"):
        probe(layer, hidden[:, :5])
