"""Labels beside states: order, shapes, and what does not count."""

import numpy as np
import pytest

import mutations
from everystate.analysis.labels import labelled_states, p_value, shifts_of
from everystate.errors import AnalysisError


def test_samples_go_row_by_row(make_layer):
    layer = make_layer("LSTM", lengths=(41, 17, 30))
    labels = np.arange(3 * 41).reshape(3, 41)
    x, y = labelled_states(layer, labels, ("c", "h"))

    def check(labels):
        k = 0
        for row, length in enumerate((41, 17, 30)):
            for t in range(length):
                assert y[k] == labels[row, t]
                expected = [*layer["c"].values[row, t], *layer["h"].values[row, t]]
                assert np.array_equal(x.values[k], expected)
                k += 1
        assert len(x) == y.size == k

    check(labels)
    with mutations.must_be_noticed("labels one step late"):
        check(np.roll(labels, 1, axis=1))
    with mutations.must_be_noticed("time before rows"):
        check(labels.reshape(41, 3).T)


def test_one_label_a_step_holds_for_every_row(make_layer):
    layer = make_layer("GRU", lengths=(41, 17, 30))
    _, y = labelled_states(layer, np.arange(41), "h")
    assert y.tolist() == [*range(41), *range(17), *range(30)]


def test_steps_without_a_label_or_a_finite_state_do_not_count(make_layer):
    layer = make_layer("GRU", lengths=None)
    layer["h"][0, 5, 1] = np.inf
    labels = np.arange(41.0)
    labels[7] = np.nan
    _, y = labelled_states(layer, labels, "h")
    left = [t for t in range(41) if t != 7]
    assert y.tolist() == [*(t for t in left if t != 5), *left, *left]


def test_noughts_and_ones_are_truth_values(make_layer):
    layer = make_layer("GRU", lengths=None)
    for labels, dtype in (([0, 1] * 20 + [0], bool), ([0, 2] * 20 + [0], int)):
        assert labelled_states(layer, np.array(labels), "h")[1].dtype == dtype
    assert labelled_states(layer, np.array([0.0, 1.0] * 20 + [0.0]), "h")[1].dtype == float


def test_labels_that_do_not_fit(make_layer):
    layer = make_layer("GRU")
    with pytest.raises(AnalysisError, match=r"labels have shape \(3,\), the steps \(3, 41\)"):
        labelled_states(layer, [1, 2, 3], "h")
    with pytest.raises(AnalysisError, match="all of the 88 steps that count have the same label"):
        labelled_states(layer, np.ones(41), "h")


def test_shifts():
    found = shifts_of(100, 1000, least=20, seed=0)
    assert sorted(found) == list(range(20, 81))
    assert len(shifts_of(100, 7, least=20, seed=0)) == 7
    with pytest.raises(AnalysisError, match="100 steps are too few to shift labels by at least 51"):
        shifts_of(100, 7, least=51, seed=0)


def test_p_value_counts_the_one_it_is_of():
    controls = np.array([0.1, 0.5, 0.9])
    assert p_value([0.5, 1.0, 0.0], controls).tolist() == [0.75, 0.25, 1.0]
