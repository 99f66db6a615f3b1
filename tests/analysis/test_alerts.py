"""Alerts: planted stretches become findings, with the figures of detector and threshold."""

from dataclasses import replace

import numpy as np
import pytest
import xarray as xr

import mutations
from everystate import schema
from everystate.analysis.alerts import Watch, alerts
from everystate.analysis.anomaly import fit_detector
from everystate.analysis.thresholds import threshold
from everystate.errors import AnalysisError
from everystate.testing import importorskip

importorskip("sklearn")

WATCH = Watch(window=3, false_alarm_rate=0.002, gap=5)


@pytest.fixture(scope="module")
def parts():
    """Three traces of one layer with 2 rows and 5 units; the last has two planted stretches."""
    rng = np.random.default_rng(41)
    dims, names = ("batch", "time", "unit"), {"batch": ["a", "b"], "unit": np.arange(5)}
    made = []
    for k in range(3):
        variables = {
            name: (dims, rng.normal(size=(2, 700, 5)) * s) for name, s in (("h", 0.2), ("c", 3.0))
        }
        made.append(
            xr.Dataset(
                variables,
                {**names, "time": 700 * k + np.arange(700)},
                {"cell": "LSTM", "direction": "forward"},
            )
        )
    made[2]["c"][0, 100:120, 3] += 25.0
    made[2]["h"][1, 400:408, 1] -= 3.0
    return tuple(map(trace_of, made))


def trace_of(layer, path="/encoder/lstm"):
    tree = xr.DataTree.from_dict({path: layer})
    tree.attrs[schema.SCHEMA_ATTR] = schema.SCHEMA_VERSION
    return tree


def test_a_stretch_of_one_step_is_a_step(parts):
    baseline, held_out, live = parts
    live = live.copy(deep=True)
    live["encoder/lstm"]["h"][0, 300, 2] += 9.0
    found = alerts(live, baseline, held_out, Watch(false_alarm_rate=0.002))
    single = [f for f in found if f.evidence["first"] == f.evidence["last"] == 1700]
    assert len(single) == 1
    assert "in row a, step 1700 is unlike" in single[0].message
    assert any("steps 1500 to 15" in f.message for f in found)


def test_planted_stretches_are_told_with_their_units(parts):
    baseline, held_out, live = parts
    found = alerts(live, baseline, held_out, WATCH)[:2]

    def check(expected):
        told = []
        for f in found:
            e = f.evidence
            near = round(e["first"] / 10) * 10, round((e["last"] - e["first"]) / 10) * 10
            told.append((e["row"], *near, f.plot.variable, f.plot.units[0]))
        assert sorted(told) == sorted(expected)

    check([("a", 1500, 20, "c", 3), ("b", 1800, 10, "h", 1)])
    with mutations.must_be_noticed("rows swapped"):
        check([("b", 1500, 20, "c", 3), ("a", 1800, 10, "h", 1)])
    with mutations.must_be_noticed("places for labels of time"):
        check([("a", 100, 20, "c", 3), ("b", 400, 10, "h", 1)])
    assert all(f.layer == "encoder/lstm" and f.severity == "warning" for f in found)
    assert "mostly by c[3]" in " ".join(f.message for f in found)
    assert found[0].plot.window == (found[0].evidence["first"], found[0].evidence["last"])


def test_the_figures_are_those_of_detector_and_threshold(parts):
    baseline, held_out, live = (part["encoder/lstm"] for part in parts)
    detector = fit_detector(baseline)
    limit = threshold(detector.score(held_out, window=3).score, 0.002)
    score = detector.score(live, window=3).score
    found = alerts(parts[2], parts[0], parts[1], WATCH)
    assert found[0].evidence["threshold"] == pytest.approx(limit.value)
    assert found[0].evidence["score"] == pytest.approx(float(score.max()))
    told = np.zeros(score.shape, bool)
    for f in found:
        row = ["a", "b"].index(f.evidence["row"])
        told[row, f.evidence["first"] - 1400 : f.evidence["last"] - 1400 + 1] = True
    assert not ((score.values > limit.value) & ~told).any()  # no alarm is kept quiet
    sizes = [f.evidence["score"] for f in found]
    assert sizes == sorted(sizes, reverse=True)


def test_only_the_highest_are_told_if_there_are_many(parts):
    many = Watch(false_alarm_rate=0.03, gap=0, count=4)
    found = alerts(parts[2], parts[0], parts[1], many)
    every = alerts(parts[2], parts[0], parts[1], replace(many, count=9999))
    assert len(found) == 4 < len(every)
    assert found.findings == every[:4]


def test_states_that_are_not_finite(parts):
    baseline, held_out, live = parts
    broken = live["encoder/lstm"].to_dataset().copy(deep=True)
    broken["h"][1, 650:, 2] = np.inf
    found = alerts(trace_of(broken), baseline, held_out, WATCH)
    assert found[0].evidence["first"] == 1400 + 650
    assert found[0].message.endswith(": values are not finite.")


def test_a_layer_without_rows_and_with_times(parts):
    times = np.datetime64("2026-01-01", "ns") + np.arange(700) * np.timedelta64(1, "m")
    alone = [
        trace_of(
            part["encoder/lstm"].to_dataset().isel(batch=0, drop=True).assign_coords(time=times)
        )
        for part in parts
    ]
    found = alerts(alone[2], alone[0], alone[1], WATCH)
    assert "row" not in found[0].evidence
    assert abs(found[0].plot.window[0] - times[100]) <= np.timedelta64(3, "m")
    assert found[0].evidence["first"].startswith("2026-01-01T01:4")


def test_normal_data_keep_the_rate(parts):
    baseline, held_out, _ = parts
    found = alerts(held_out, baseline, held_out, Watch(false_alarm_rate=0.01, gap=0, count=999))
    steps = sum(f.evidence["last"] - f.evidence["first"] + 1 for f in found)
    assert steps == 13  # of 1,400 scores, those above the 1,387th


def test_it_is_a_diagnosis_that_says_what_it_left_out(parts):
    baseline, held_out, live = parts
    more = live.assign(decoder=live["encoder/lstm"].copy())
    found = alerts(more, baseline, held_out, WATCH)
    assert found.worst == "warning"
    assert found.at_least("warning") == alerts(live, baseline, held_out, WATCH).findings != ()
    assert found.left_out == ("layer decoder is not in all three traces.",)
    assert "left out: layer decoder" in repr(found)


def test_no_common_layer(parts):
    other = trace_of(parts[2]["encoder/lstm"].to_dataset(), "/decoder")
    with pytest.raises(AnalysisError, match="no layer is in all three"):
        alerts(other, parts[0], parts[1])
