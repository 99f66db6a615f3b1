"""Affiliation: against the definition written as loops over steps."""

import numpy as np
import pytest

import mutations
from everystate.analysis.affiliation import affiliation


def runs(flags):
    found, start = [], None
    for t, flag in enumerate([*flags, False]):
        if flag and start is None:
            start = t
        if not flag and start is not None:
            found.append(list(range(start, t)))
            start = None
    return found


def oracle(alarm, labels, *, strict=False, everywhere=False):
    events = runs(labels)
    precisions, recalls = [], []
    for event in events:
        zone = []
        for t in range(len(labels)):
            nearest = [min(abs(t - e) for e in other) for other in events]
            if everywhere or nearest.index(min(nearest)) == events.index(event):
                zone.append(t)
        away = {z: min(abs(z - e) for e in event) for z in zone}
        hits = [z for z in zone if alarm[z]]
        if not hits:
            recalls.append(0.0)
            continue

        def as_far(distances, d):
            return np.mean([other > d if strict else other >= d for other in distances])

        precisions.append(np.mean([as_far(away.values(), away[a]) for a in hits]))
        worth = []
        for e in event:
            d = min(abs(e - a) for a in hits)
            worth.append(as_far([abs(e - z) for z in zone], d))
        recalls.append(np.mean(worth))
    return (np.mean(precisions) if precisions else np.nan), np.mean(recalls)


@pytest.fixture(scope="module")
def series():
    rng = np.random.default_rng(4)
    labels = np.zeros(90, bool)
    labels[10:13] = labels[40:48] = labels[70] = True
    return rng.random(90) < 0.08, labels


def test_affiliation_agrees_with_its_definition(series):
    ours = affiliation(*series)
    assert ours == pytest.approx(oracle(*series))
    with mutations.must_be_noticed("ties not counted"):
        assert ours == pytest.approx(oracle(*series, strict=True))
    with mutations.must_be_noticed("no zones"):
        assert ours == pytest.approx(oracle(*series, everywhere=True))
    with mutations.must_be_noticed("alarms and labels swapped"):
        assert ours == pytest.approx(oracle(*series[::-1]))
    with mutations.must_be_noticed("alarms one step late"):
        assert ours == pytest.approx(oracle(np.roll(series[0], 1), series[1]))


def test_nearer_alarms_are_worth_more():
    labels = np.zeros(100, bool)
    labels[50:55] = True
    values = []
    for late in (0, 3, 10, 30):
        alarm = np.zeros(100, bool)
        alarm[54 + late] = True
        values.append(affiliation(alarm, labels))
    assert values == sorted(values, reverse=True)
    assert values[0][0] == 1.0


def test_random_alarms_are_worth_about_half():
    rng = np.random.default_rng(5)
    labels = np.zeros(2000, bool)
    labels[900:910] = True
    precisions = [affiliation(rng.random(2000) < 0.01, labels)[0] for _ in range(40)]
    assert np.mean(precisions) == pytest.approx(0.5, abs=0.03)


def test_without_alarms_and_without_events():
    labels = np.array([0, 1, 1, 0], bool)
    precision, recall = affiliation(np.zeros(4, bool), labels)
    assert np.isnan(precision)
    assert recall == 0.0
    assert np.isnan(affiliation(labels, np.zeros(4, bool))).all()
