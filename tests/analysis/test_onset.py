"""Since when: plain windows."""

import numpy as np
import pytest

import mutations
from everystate.analysis.onset import since


def oracle(values, limit, width):
    width = min(width, len(values))
    ends = range(len(values) - width + 1)
    there = [[v for v in values[s : s + width] if np.isfinite(v)] for s in ends]
    fine = [not known or sum(known) / len(known) >= limit for known in there]
    for s in ends:
        if all(fine[s:]):
            above = (t for t in range(s, len(values)) if values[t] >= limit)
            return next(above) if any(there[s:]) else None
    return None


@pytest.mark.parametrize("seed", range(6))
def test_it_agrees_with_plain_windows(seed):
    rng = np.random.default_rng(seed)
    values = np.where(np.arange(60) < 10 * seed, 0.2, 0.6) + rng.normal(scale=0.15, size=60)
    values[rng.integers(60, size=5)] = np.nan
    for width in (1, 4, 9):
        assert since(values, 0.45, width) == oracle(values, 0.45, width)
    with mutations.must_be_noticed("another width"):
        assert [since(values, 0.45, w) for w in (1, 4, 9)] == [oracle(values, 0.45, 60)] * 3


def test_a_dip_at_the_end_is_the_end_of_it():
    assert since(np.array([1.0, 1.0, 0.0]), 0.5, 1) is None
    assert since(np.array([0.0, 1.0, 1.0]), 0.5, 1) == 1
    assert since(np.array([1.0, 1.0]), 0.5, 9) == 0


def test_a_jump_is_found_exactly():
    assert since(np.full(60, 0.6), 0.3, 20) == 0
    for jump in (1, 17, 40):
        values = np.where(np.arange(60) < jump, 0.0, 0.6)
        assert since(values, 0.3, 20) == jump
        with mutations.must_be_noticed("one step late"):
            assert since(np.roll(values, 1), 0.3, 20) == jump


def test_nothing_known_is_nothing_said():
    assert since(np.array([]), 0.5, 3) is None
    assert since(np.array([np.nan, np.nan]), 0.5, 1) is None
