"""Growth: known lines and levels, Kendall's distribution, plain loops."""

from itertools import permutations

import numpy as np
import pytest

import mutations
from everystate.analysis.growth import growth, trend

MEASURES = ("trend", "growth", "reached", "largest", "excess", "left_at", "steps")


def oracle(layer, state, row, trained_on, flip=False, stride=1):
    values = [u for u in layer[state].values[row] if np.isfinite(u).all()]
    m = [sum(abs(v) for v in u) / len(u) for u in values]
    m = m[::-1] if flip else m
    start = [x for t, x in enumerate(m) if t * stride < trained_on]
    later = m[len(start) :]
    parts = [sum(p) / len(p) for p in np.array_split(later, 8)]
    pairs = [int(b > a) - int(b < a) for k, a in enumerate(parts) for b in parts[k + 1 :]]
    reached = max(start)
    within = max(t for t, x in enumerate(m) if x <= reached)
    left = np.nan if within == len(m) - 1 else (within + 1) * stride
    return [
        sum(pairs) / 28,
        parts[-1] / parts[0],
        reached,
        max(later),
        max(parts) / reached,
        left,
        (len(m) - 1) * stride + 1,
    ]


def check(found, row, expected):
    assert [found[n].values[row] for n in MEASURES] == pytest.approx(expected, nan_ok=True)


@pytest.mark.parametrize("direction", ["forward", "backward"])
def test_it_agrees_with_plain_loops(make_layer, direction):
    layer, flip = make_layer("LSTM", direction=direction), direction == "backward"
    found = growth(layer, trained_on=7, shortest=2)
    for row in range(3):
        expected = oracle(layer, "c", row, 7, flip)
        check(found, row, expected)
        with mutations.must_be_noticed("time backwards"):
            check(found, row, oracle(layer, "c", row, 7, not flip))
        with mutations.must_be_noticed("h taken for c"):
            check(found, row, oracle(layer, "h", row, 7, flip))
        with mutations.must_be_noticed("another start"):
            check(found, row, oracle(layer, "c", row, 9, flip))
        with mutations.must_be_noticed("signs kept"):
            check(found, row, oracle(layer + 5, "c", row, 7, flip))


def test_a_stride_counts_steps_of_the_model(make_layer):
    layer = make_layer("GRU", lengths=None).isel(time=slice(None, None, 2))
    check(growth(layer, 8, shortest=2), 1, oracle(layer, "h", 1, 8, stride=2))
    with mutations.must_be_noticed("recorded steps for steps"):
        check(growth(layer, 8, shortest=2), 1, oracle(layer, "h", 1, 8))


def test_a_line_and_a_level(make_layer):
    layer = make_layer("LSTM", lengths=None)
    layer["c"][0] = -np.arange(1.0, 42)[:, None]
    layer["c"][1] = 3.0
    layer["c"][2] = np.where(np.arange(41) < 20, 1.0, 0.5)[:, None]
    found = growth(layer, trained_on=9, shortest=2)
    assert found.trend.values.tolist()[:2] == [1.0, 0.0]
    assert found.trend.values[2] < 0
    assert found.reached.values.tolist() == [9.0, 3.0, 1.0]
    assert found.largest.values.tolist() == [41.0, 3.0, 1.0]
    assert found.growth.values == pytest.approx([39.5 / 11.5, 1.0, 0.5])
    assert found.excess.values == pytest.approx([39.5 / 9, 1.0, 1.0])
    assert found.left_at.values[0] == 9
    assert np.isnan(found.left_at.values[1:]).all()


def test_the_chance_of_a_trend_that_the_notes_state():
    ranks = np.array(list(permutations(range(8))))
    score = sum(np.sign(ranks[:, k] - ranks[:, j]) for k in range(8) for j in range(k))
    assert score[:: 8 * 7] == pytest.approx([28 * trend(row) for row in ranks[:: 8 * 7]])
    assert (score >= 0.7 * 28).mean() == pytest.approx(0.0071, abs=5e-5)


def test_short_rows_have_no_growth(make_layer):
    layer = make_layer("LSTM", lengths=(41, 17, 30))
    assert growth(layer).trend.isnull().all()
    found = growth(layer, trained_on=10, shortest=17)
    assert found.trend.notnull().values.tolist() == [True, False, True]  # 7 steps after the start
    assert found.steps.values.tolist() == [41, 17, 30]
    assert growth(layer, trained_on=41, shortest=2).trend.isnull().all()


def test_from_zero_any_growth_is_endless(make_layer):
    layer = make_layer("LSTM", lengths=None)
    layer["c"][:] = np.maximum(0.0, np.arange(41.0) - 20)[:, None]
    found = growth(layer, trained_on=9, shortest=2).isel(batch=0)
    assert found.growth.item() == found.excess.item() == np.inf
