"""The example on anomalies: its data, its faults, its table."""

import re
from itertools import pairwise

import numpy as np
import pytest
from safetensors.numpy import load_file


def rows(printed):
    """Numbers of the table's rows, by the name of the score."""
    found = {}
    for line in printed.splitlines():
        match = re.fullmatch(r"(\S.{40}\S?) +(.*)", line)
        if match and re.match(r"[\d.]+ ", match[2]):
            found[match[1].strip()] = [float(v.rstrip("%")) for v in match[2].split()]
    return found


@pytest.fixture
def series(example_module):
    return example_module("anomaly", "series")


def test_the_series_is_what_the_readme_says(series):
    raw = np.loadtxt(series.DATA, delimiter=",", skiprows=1)
    assert raw.shape == (7040, 9)
    x = series.load_channels()
    assert x.shape == (3520, 9)
    assert x[series.FIT].mean(axis=0) == pytest.approx(np.zeros(9), abs=1e-4)
    assert x[series.FIT].std(axis=0) == pytest.approx(np.ones(9), abs=1e-4)
    standing, walking = x[100:500].std(axis=0), x[series.TEST].std(axis=0)
    assert np.median(standing / walking) < 0.15  # it begins with standing


def test_faults_are_where_the_labels_are_and_nowhere_else(series):
    x = series.load_channels()
    for seed in range(3):
        planted = series.plant(x, seed)
        assert set(planted.places) == set(series.FAULTS)
        changed = (planted.x != x).any(axis=1)
        assert not (changed & ~planted.labels).any()
        assert not changed[: series.TEST.start].any()
        assert planted.labels.sum() == 6 * 48
        for start, stop in planted.places.values():
            assert changed[start:stop].mean() > 0.3
        edges = sorted(planted.places.values())
        gaps = [b[0] - a[1] for a, b in pairwise(edges)]
        assert min(gaps) >= 48


def test_each_fault_does_what_it_says(series):
    x = series.load_channels()
    at = np.arange(3000, 3048)

    def broken(fault):
        y = x.copy()
        series.FAULTS[fault](y, at)
        return y[at]

    assert np.array_equal(broken("swapped")[:, 3:6], x[at, 6:9])
    assert np.array_equal(broken("swapped")[:, 6:9], x[at, 3:6])
    assert (broken("frozen")[:, :3] == x[2999, :3]).all()
    assert np.array_equal(broken("frozen")[:, 3:], x[at, 3:])
    assert broken("weak")[:, :3] == pytest.approx(x[at, :3] / 3)
    assert np.array_equal(broken("backwards"), x[at][::-1])
    assert np.array_equal(broken("late")[:, 6:], x[at - 16, 6:])
    assert np.array_equal(broken("lost")[::3], x[at[::3] - 1])
    assert np.array_equal(broken("lost")[1::3], x[at[1::3]])


def test_training_writes_what_the_example_reads(run_example, examples, tmp_path):
    run_example(
        "anomaly/seq2seq.py", "--epochs", "1", "--stride", "16", "--output", "w.safetensors"
    )
    new = load_file(tmp_path / "w.safetensors")
    shipped = load_file(examples / "anomaly" / "seq2seq.safetensors")
    assert {n: a.shape for n, a in new.items()} == {n: a.shape for n, a in shipped.items()}


def test_daphnet(run_example, tmp_path):
    printed = run_example("anomaly/daphnet.py", "--rounds", "1", "--report", "r.html")
    assert "6 events; chance: average precision 0.39" in printed
    table = rows(printed)
    states = table["h and c after each window, nearest"]
    raw = table["raw windows, nearest (no network)"]
    simple = table["moving z-score (no network)"]
    assert len(table) >= 11
    assert states[0] > raw[0] > simple[0]  # average precision
    assert states[2] > raw[2] >= simple[2]  # faults found, of 6
    assert "frozen" in printed.split("what each fault shows in")[1]
    report = (tmp_path / "r.html").read_text()
    assert "Daphnet S06R02E0 with planted faults" in report
    assert "are unlike the baseline: the score reaches" in report


def test_blood_pressure_where_no_network_is_needed(run_example):
    printed = run_example("anomaly/blood_pressure.py", "--stride", "16", "--steps", "5000")
    assert "1 events" in printed
    table = rows(printed)
    without = table.pop("raw windows, Mahalanobis (no network)")
    assert without[2] == 1
    assert without[0] > max(row[0] for row in table.values())
    assert table["h and c after each window, nearest"][2] == 0
    assert "the mean |c| is at most 4.6 in the first 184 steps" in printed  # es.diagnose
