"""The demo's scores and alarms, against answers worked out by hand or by a plain loop."""

import numpy as np
import pytest

from everystate.demo.alarms import Alarms, alarms, distance_to_nearest


def nearest_by_loop(points, normal):
    std = normal.std(axis=0)
    return np.array([min(np.sqrt((((p - n) / std) ** 2).mean()) for n in normal) for p in points])


def test_distance_to_nearest_agrees_with_a_loop():
    rng = np.random.default_rng(3)
    normal = rng.normal(size=(7, 3)) * [1.0, 5.0, 0.2] + [4.0, -3.0, 0.5]
    points = rng.normal(size=(11, 3)) * [2.0, 9.0, 0.7]
    expected = nearest_by_loop(points, normal)
    assert distance_to_nearest(points, normal) == pytest.approx(expected, rel=1e-9)
    # The comparison notices a feature left unscaled.
    assert distance_to_nearest(points, normal * [1, 1, 2]) != pytest.approx(expected, rel=1e-3)


def test_a_normal_point_is_at_distance_zero():
    normal = np.random.default_rng(4).normal(size=(50, 6))
    assert distance_to_nearest(normal, normal) == pytest.approx(np.zeros(50), abs=1e-6)


@pytest.fixture
def found():
    score = np.array([9.0, 9.0, 1.0, 0.0, 2.0, 5.0, 4.0, 0.0, 0.0, 0.0, 3.0, 0.0])
    return Alarms(score, threshold=1.5, begin=3)


def test_alarms_ignore_what_was_fitted(found):
    assert np.flatnonzero(found.raised).tolist() == [4, 5, 6, 10]
    assert found.peak == 5


def test_alarm_ranges_join_over_small_gaps_only(found):
    assert found.ranges(gap=1) == [(4, 7), (10, 11)]
    assert found.ranges(gap=3) == [(4, 7), (10, 11)]
    assert found.ranges(gap=4) == [(4, 11)]
    assert Alarms(found.score, threshold=10.0, begin=3).ranges(gap=4) == []


def test_share_counts_outside_the_event_only(found):
    # Counted are steps 3 and 7 to 11, six in all; step 10 alone is in alarm.
    assert found.share(outside=(4, 7)) == pytest.approx(1 / 6)
    assert found.within((6, 8))
    assert not found.within((7, 10))


def test_the_threshold_is_the_largest_held_out_score():
    score = np.array([50.0, 1.0, 2.0, 6.0, 1.0, 0.0, 8.0])
    found = alarms(score, slice(2, 5), length=1)
    assert (found.threshold, found.begin) == (6.0, 5)
    assert np.flatnonzero(found.raised).tolist() == [6]
