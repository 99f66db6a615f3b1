"""Thresholds: the rate they state is the rate they keep; and stretches of alarm."""

import numpy as np
import pytest
import xarray as xr

import mutations
from everystate.analysis.thresholds import effective_samples, stretches, threshold
from everystate.errors import AnalysisError, SelectionError


def series(values):
    return xr.DataArray(values, dims=("batch", "time")[-np.ndim(values) :])


def rate_kept(threshold_of, alpha, n=59, rounds=40_000):
    """Share of new scores beyond the threshold, over many baselines of a heavy-tailed score."""
    rng = np.random.default_rng(1)
    scores = np.sort(rng.standard_t(2, size=(rounds, n)), axis=1)
    new = rng.standard_t(2, size=rounds)
    return (new > threshold_of(scores, alpha)).mean()


@pytest.mark.parametrize("alpha", [0.02, 0.05, 0.3])
def test_the_stated_rate_is_kept_for_exchangeable_scores(alpha):
    def ours(scores, alpha):
        # Which rank is taken is asked once; that rank of every baseline is then the threshold.
        rank = int(threshold(series(np.arange(59.0)), alpha).value)
        return scores[:, rank]

    def check(threshold_of):
        rate = rate_kept(threshold_of, alpha)
        assert rate <= alpha + 3 * np.sqrt(alpha / 40_000)
        assert rate > alpha - 1 / 60 - 3 * np.sqrt(alpha / 40_000)

    check(ours)
    with mutations.must_be_noticed("one rank lower"):
        check(lambda scores, a: scores[:, int(threshold(series(np.arange(59.0)), a).value) - 1])
    if alpha < 0.1:
        with mutations.must_be_noticed("the plain quantile of the baseline"):
            check(lambda scores, a: np.quantile(scores, 1 - a, axis=1))


def test_the_rank_by_hand():
    scores = series(np.random.default_rng(2).permutation(np.arange(99.0)))
    assert threshold(scores, 0.01).value == 98.0  # ceil(100 * 0.99) = 99th of 99
    assert threshold(scores, 0.1).value == 89.0
    assert threshold(scores, 0.5).value == 49.0
    found = threshold(scores, 0.1)
    assert (found.false_alarm_rate, found.samples) == (0.1, 99)


def test_ragged_rows_count_as_far_as_they_go():
    values = np.arange(60.0).reshape(2, 30)
    values[1, 9:] = np.nan
    assert threshold(series(values), 0.1).samples == 39
    assert threshold(series(values), 0.1).value == threshold(series(np.arange(39.0)), 0.1).value


def test_what_no_baseline_can_promise():
    assert threshold(series(np.arange(99.0)), 0.01).value == 98.0
    with pytest.raises(AnalysisError, match=r"98 scores .* rate of 0.01: it takes 99"):
        threshold(series(np.arange(98.0)), 0.01)
    for rate in (0.0, 1.0, -0.1):
        with pytest.raises(SelectionError, match="expected between 0 and 1"):
            threshold(series(np.arange(98.0)), rate)


@pytest.mark.parametrize("rho", [0.0, 0.5, 0.9])
def test_effective_samples_of_an_autoregression(rho):
    rng = np.random.default_rng(3)
    n, noise = 40_000, rng.normal(size=40_000)
    values = np.zeros(n)
    for t in range(1, n):
        values[t] = rho * values[t - 1] + noise[t]
    expected = n * (1 - rho) / (1 + rho)
    assert effective_samples(values) == pytest.approx(expected, rel=0.12)
    with mutations.must_be_noticed("correlations counted once, not twice"):
        once = n / (1 + (n / expected - 1) / 2)
        assert effective_samples(values) == pytest.approx(once if rho else n / 2, rel=0.12)


def test_effective_samples_of_little():
    assert effective_samples(np.array([1.0, 2.0])) == 2.0
    assert effective_samples(np.full(50, 3.0)) == 1.0
    alternating = np.array([1.0, -1.0] * 40)
    assert effective_samples(alternating) == 80.0  # never more than there are


def test_a_smooth_score_has_few_effective_samples():
    smooth = series(np.sin(np.linspace(0, 12, 500)) + np.linspace(0, 0.1, 500))
    assert threshold(smooth, 0.05).effective_samples < 25


def test_stretches_by_hand():
    alarm = [0, 1, 1, 0, 1, 0, 0, 0, 1]
    assert stretches(alarm) == [(1, 3), (4, 5), (8, 9)]
    assert stretches(alarm, gap=1) == [(1, 5), (8, 9)]
    assert stretches(alarm, gap=2) == [(1, 5), (8, 9)]
    assert stretches(alarm, gap=3) == [(1, 9)]
    assert stretches([0, 0]) == []
    assert stretches([1, 1]) == [(0, 2)]
