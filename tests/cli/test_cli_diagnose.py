"""``diagnose``: sentences, JSON, exit codes."""

from pathlib import Path

import numpy as np
import pytest

import everystate as es
from everystate.testing import importorskip


@pytest.fixture
def shut(run, trace):
    """Path of a trace whose output gates shut."""
    other = es.open_trace(trace).load()
    other["encoder"].o[:] = 0.01 + 0.005 * np.sin(np.arange(30))[:, None]
    return es.save_trace(other, "shut.zarr")


def test_it_says_what_is_wrong(run, shut):
    done = run("diagnose", shut)
    assert (done.code, done.err) == (0, "")
    first, but, *_ = done.out.splitlines()
    assert first == (
        "warning: layer encoder: 100 % of the output gates o are below 0.05: they show the rest of "
        "the model nothing."
    )
    assert but.startswith("    But: ")


@pytest.mark.parametrize(("level", "code"), [("info", 4), ("warning", 4), ("error", 0)])
def test_it_fails_on_what_it_is_asked_to(run, shut, level, code):
    assert run("diagnose", shut, "--fail-on", level).code == code


def test_as_json(run, shut):
    done = run("diagnose", shut, "--json", "--fail-on", "warning", "--trained-on", "5")
    assert done.code == 4
    document = done.json
    assert document["worst"] == "warning"
    first = document["findings"][0]
    assert (first["kind"], first["layer"]) == ("saturated-gates", "encoder")
    assert first["evidence"]["share"] == 1.0
    assert first["plot"]["name"] == "over_units"


def test_beside_a_baseline_it_is_usual(run, shut):
    done = run("diagnose", shut, "--baseline", shut, "--fail-on", "warning")
    assert done.code == 0


def test_thresholds(run, shut):
    assert "saturated-gates" not in run("diagnose", shut, "--threshold", "edge=0.001", "--json").out
    for wrong in ("edge", "edge=x", "egde=0.1"):
        done = run("diagnose", shut, "--threshold", wrong)
        assert done.code == 2
        assert "expected NAME=VALUE" in " ".join(done.err.split())
    done = run("diagnose", shut, "--threshold", "edge=7")
    assert done.code == 1
    assert "threshold edge=7.0, expected between 0 and 1" in done.err


def test_the_report_says_it_first(run, shut, trace):
    importorskip("bokeh")
    assert run("report", shut, "-o", "run.html").code == 0
    said = "100 % of the output gates o are below 0.05"
    assert said in Path("run.html").read_text()
    assert run("report", shut, "-o", "run.html", "--threshold", "edge=0.001").code == 0
    assert said not in Path("run.html").read_text()
    assert run("report", shut, "-o", "run.html", "--baseline", trace).code == 0
    assert "(0 % in the baseline)" in Path("run.html").read_text()


def test_what_is_no_trace(run, weights):
    done = run("diagnose", weights)
    assert done.code == 1
    assert "Record it first: everystate record" in done.err
    assert run("diagnose", "x.zarr", "--fail-on", "fatal").code == 2
    assert run("diagnose", "x.zarr", "--trained-on", "0").code == 2
