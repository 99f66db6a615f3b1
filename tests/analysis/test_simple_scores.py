"""Scores without a network: known answers."""

import numpy as np
import pytest

import mutations
from everystate.analysis.simple_scores import moving_z_score, past_windows, smooth, step_size


def test_past_windows_never_look_ahead():
    values = np.arange(1.0, 7.0)
    windows = past_windows(values, 3)
    assert windows.shape == (6, 3)
    assert windows[-1].tolist() == [4.0, 5.0, 6.0]
    assert windows[0].tolist() == [1.0, 1.0, 1.0]
    changed = values.copy()
    changed[4:] = 99.0
    assert np.array_equal(past_windows(changed, 3)[:4], windows[:4])


def test_moving_z_score_of_a_spike_and_of_a_constant():
    # One spike in n equal values: mean s/n, std s*sqrt(n-1)/n, hence z = sqrt(n-1).
    values = np.zeros(20)
    values[15] = 7.0
    assert moving_z_score(values, 10)[15] == pytest.approx(3.0)
    assert moving_z_score(np.full(9, 2.0), 4).tolist() == [0.0] * 9


def test_moving_z_score_of_several_channels():
    rng = np.random.default_rng(8)
    values = rng.normal(size=(40, 3)) * [1.0, 10.0, 0.1]
    found = moving_z_score(values, 6)

    def check(expected):
        assert found[5:] == pytest.approx(expected)

    def oracle(length):
        scores = []
        for t in range(5, 40):
            w = values[max(0, t - length + 1) : t + 1]
            scores.append(np.sqrt((((values[t] - w.mean(0)) / w.std(0)) ** 2).mean()))
        return np.array(scores)

    check(oracle(6))
    with mutations.must_be_noticed("a window one step longer"):
        check(oracle(7))


def test_step_size_by_hand():
    values = np.array([[0.0, 1.0], [3.0, 1.0], [3.0, 9.0]])
    found = step_size(values, [3.0, 4.0])
    assert found == pytest.approx([0.0, np.sqrt(1 / 2), np.sqrt(4 / 2)])
    assert step_size(np.array([5.0, 2.0])).tolist() == [0.0, 3.0]


def test_smooth_is_the_trailing_mean():
    assert smooth(np.array([3.0, 3.0, 9.0, 3.0]), 3).tolist() == [3.0, 3.0, 5.0, 5.0]
