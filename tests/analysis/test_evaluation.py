"""Evaluation: average precision from its definition, controls that work, and delays by hand."""

import numpy as np
import pytest
import xarray as xr

import mutations
from everystate.analysis.evaluation import evaluate_alarms, evaluate_score
from everystate.errors import AnalysisError, SelectionError
from everystate.testing import importorskip

importorskip("sklearn")


def series(values):
    return xr.DataArray(values, dims=("batch", "time")[-np.ndim(values) :])


def average_precision(score, labels):
    """The sum of precision over the steps of recall, by a loop over thresholds."""
    total, recall_before = 0.0, 0.0
    for threshold in sorted(set(score), reverse=True):
        raised = [s >= threshold for s in score]
        hits = sum(r and y for r, y in zip(raised, labels, strict=True))
        recall = hits / sum(labels)
        total += (recall - recall_before) * hits / sum(raised)
        recall_before = recall
    return total


@pytest.fixture(scope="module")
def case():
    """A score with ties, somewhat higher in two labelled stretches."""
    rng = np.random.default_rng(6)
    labels = np.zeros(160, bool)
    labels[30:40] = labels[100:108] = True
    return np.round(rng.normal(size=160) + 1.2 * labels, 1), labels


def test_average_precision_agrees_with_its_definition(case):
    score, labels = case
    found = evaluate_score(series(score), labels)
    assert found.average_precision.item() == pytest.approx(average_precision(score, labels))
    assert found.chance.item() == 18 / 160
    pairs = [(a > b) + (a == b) / 2 for a in score[labels] for b in score[~labels]]
    assert found.roc_auc.item() == pytest.approx(np.mean(pairs))
    with mutations.must_be_noticed("score turned round"):
        assert found.average_precision.item() == pytest.approx(average_precision(-score, labels))
    with mutations.must_be_noticed("labels one step late"):
        late = average_precision(score, np.roll(labels, 1))
        assert found.average_precision.item() == pytest.approx(late)


def test_no_point_adjustment(case):
    """One high step within each event must not count as the whole event."""
    _, labels = case
    score = np.zeros(160)
    score[[30, 100]] = 1.0
    found = evaluate_score(series(score), labels).average_precision.item()
    with mutations.must_be_noticed("events counted as found at all their steps"):
        assert found == pytest.approx(1.0)
    assert found == pytest.approx(2 / 18 + (16 / 18) * (18 / 160))


def test_the_control_shifts_labels_against_scores(case):
    score, labels = case
    found = evaluate_score(series(score), labels, shifts=1000)
    assert sorted(found["shift"].values) == list(range(1, 160))
    for by in (1, 7, 81):
        expected = average_precision(score, np.roll(labels, by))
        assert found.shifted.sel(shift=by).item() == pytest.approx(expected)
    beaten = (found.shifted.values >= found.average_precision.item()).sum()
    assert found.p_value.item() == pytest.approx((1 + beaten) / 160)
    few = evaluate_score(series(score), labels, shifts=20, seed=3)
    assert few.sizes["shift"] == 20


def test_a_smooth_score_that_knows_nothing_is_not_called_good():
    """p-values of smooth noise are spread evenly; those of shuffled steps would not be."""
    rng = np.random.default_rng(7)
    labels = np.zeros(600, bool)
    labels[200:240] = True
    p_values, shuffled = [], []
    for _ in range(40):
        score = np.convolve(rng.normal(size=660), np.ones(61) / 61, mode="valid")
        found = evaluate_score(series(score), labels, shifts=39)
        p_values.append(found.p_value.item())
        own = found.average_precision.item()
        others = [average_precision_fast(score, rng.permutation(labels)) for _ in range(19)]
        shuffled.append((1 + sum(o >= own for o in others)) / 20)

    def check(values):
        assert np.mean(np.array(values) <= 0.1) < 0.25

    check(p_values)
    with mutations.must_be_noticed("steps shuffled one by one"):
        check(shuffled)


def average_precision_fast(score, labels):
    hits = labels[np.argsort(-score)]
    return float((np.cumsum(hits) / np.arange(1, hits.size + 1))[hits].mean())


def test_steps_without_a_score_do_not_count(case):
    score, labels = case
    rows = np.stack([score, score])
    rows[1, 50:] = np.nan
    both = evaluate_score(series(rows), np.stack([labels, labels]))
    joined = average_precision([*score, *score[:50]], [*labels, *labels[:50]])
    assert both.average_precision.item() == pytest.approx(joined)


def test_an_infinite_score_is_the_highest(case):
    score, labels = case
    score = score.copy()
    score[35] = np.inf
    found = evaluate_score(series(score), labels).average_precision.item()
    assert found == pytest.approx(average_precision(score, labels))


@pytest.fixture(scope="module")
def alarms():
    """Two rows: events of 4, 3 and 2 steps; found late, found after their end, and missed."""
    labels = np.zeros((2, 30), bool)
    labels[0, 5:9] = labels[0, 20:23] = labels[1, 12:14] = True
    alarm = np.zeros((2, 30), bool)
    alarm[0, [7, 8, 9]] = alarm[0, 24] = alarm[0, [1, 2]] = alarm[1, 28] = True
    return series(alarm), labels


def test_events_delays_and_false_alarms_by_hand(alarms):
    found = evaluate_alarms(*alarms, tolerance=2)
    assert found.found.values.tolist() == [True, True, False]
    assert found.delay.values[:2].tolist() == [2.0, 4.0]
    assert np.isnan(found.delay.values[2])
    places = [found[name].values.tolist() for name in ("row", "start", "stop")]
    assert places == [[0, 0, 1], [5, 20, 12], [9, 23, 14]]
    # Counted are 60 - (6 + 5 + 4) steps; in alarm are 1, 2 and row 1's 28.
    assert found.false_alarm_rate.item() == pytest.approx(3 / 45)
    assert found.false_alarms.item() == 2
    assert found.precision.item() == pytest.approx(2 / 7)
    assert found.recall.item() == pytest.approx(2 / 9)


def test_without_tolerance_what_comes_after_is_false(alarms):
    found = evaluate_alarms(*alarms)
    assert found.found.values.tolist() == [True, False, False]
    assert found.false_alarms.item() == 4
    assert found.false_alarm_rate.item() == pytest.approx(5 / 51)


def test_affiliation_is_averaged_over_rows(alarms):
    from everystate.analysis.affiliation import affiliation

    alarm, labels = alarms
    found = evaluate_alarms(alarm, labels)
    rows = np.array([affiliation(alarm.values[k], labels[k]) for k in range(2)])
    assert found.affiliation_precision.item() == pytest.approx(rows[:, 0].mean())
    assert found.affiliation_recall.item() == pytest.approx(rows[:, 1].mean())
    with mutations.must_be_noticed("rows run together"):
        together = affiliation(alarm.values.ravel(), labels.ravel())
        assert found.affiliation_precision.item() == pytest.approx(together[0])


def test_no_alarm_at_all(alarms):
    found = evaluate_alarms(alarms[0] & False, alarms[1])
    assert not found.found.any()
    assert np.isnan(found.precision)
    assert (found.recall.item(), found.false_alarms.item()) == (0.0, 0)


def test_labels_that_do_not_fit(alarms):
    alarm, labels = alarms
    with pytest.raises(AnalysisError, match=r"labels have shape \(30,\), the steps \(2, 30\)"):
        evaluate_alarms(alarm, labels[0])
    with pytest.raises(AnalysisError, match="no event to find"):
        evaluate_alarms(alarm, labels & False)
    with pytest.raises(SelectionError, match="tolerance=-1"):
        evaluate_alarms(alarm, labels, tolerance=-1)
    for hopeless in (labels & False, labels | True):
        with pytest.raises(AnalysisError, match="of the 60 steps with a score are labelled"):
            evaluate_score(alarm.astype(float), hopeless)


def test_labels_in_another_order_of_dimensions(alarms):
    alarm, labels = alarms
    turned = series(labels).transpose("time", "batch")
    assert evaluate_alarms(alarm, turned).equals(evaluate_alarms(alarm, labels))
