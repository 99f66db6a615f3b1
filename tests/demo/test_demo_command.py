"""``everystate demo`` from end to end, in a process of its own where no framework can be loaded."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

import everystate as es
from everystate.cli.main import app
from everystate.testing import importorskip

FRAMEWORKS = ("torch", "tensorflow", "keras", "jax")


def everystate(*arguments, **options):
    """Run the command as an installed script would."""
    command = [sys.executable, "-c", "from everystate.cli.main import app; app()", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, **options)


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    importorskip("bokeh")
    folder = tmp_path_factory.mktemp("demo")
    for name in FRAMEWORKS:
        (folder / f"{name}.py").write_text("raise ImportError('the demo needs no framework')\n")
    environment = {**os.environ, "PYTHONPATH": str(folder), "COLUMNS": "100"}
    done = everystate("demo", "--output", "out", cwd=folder, env=environment)
    assert done.returncode == 0, done.stderr
    return folder / "out", done.stdout


def test_the_poisoned_frameworks_cannot_be_imported(demo):
    folder = demo[0].parent
    environment = {**os.environ, "PYTHONPATH": str(folder)}
    done = subprocess.run(
        [sys.executable, "-c", "import torch"], capture_output=True, text=True, env=environment
    )
    assert "the demo needs no framework" in done.stderr


def test_it_writes_a_trace_and_a_report_and_names_them_last(demo):
    output, printed = demo
    layer = es.open_trace(output / "run.zarr")["encoder"]
    assert layer.c.shape == (1, 7501, 64)
    assert set("hcifgo") < set(layer.data_vars)
    page = (output / "report.html").read_text()
    for shown in ("labelled anomaly", "c out of its normal range", "arterial blood pressure"):
        assert shown in page
    assert sorted(path.name for path in output.iterdir()) == ["report.html", "run.zarr"]
    last = printed.rstrip().splitlines()[-2:]
    assert "report.html" in last[0]
    assert "run.zarr" in last[1]


def test_the_verdicts_come_first(demo):
    output, printed = demo
    verdicts = printed.index("Verdicts on one pass, told that it was trained on 184 steps")
    assert verdicts < printed.index("The encoder in one pass")
    said = " ".join(printed[verdicts:].split())
    page = (output / "report.html").read_text()
    for verdict in (
        "the mean |c| is at most 4.6 in the first 184 steps, as trained on, and reaches 174 within",
        "beyond all of the training from its step",
        "unit 6 has a half-life of 46,147 steps, the training windows were 184",
        "61 % of tanh(c) are within 0.01 of -1 or 1 from step 277 on",
    ):
        assert verdict in said
        assert verdict in page


def test_it_says_what_is_seen_and_what_is_not_shown(demo):
    printed = " ".join(demo[1].split())
    for said in (
        "Labelled anomaly: steps 4,187 to 4,198",
        "c is out of its normal range from step 1,350 to the end",
        "one series, one labelled event, one trained network",
        "forget gate of unit 3",
    ):
        assert said in printed


def test_json_is_one_document_with_the_numbers_and_the_files(found, tmp_path, monkeypatch):
    importorskip("bokeh")
    monkeypatch.setattr("everystate.demo.run.run", lambda stage: found)
    done = CliRunner().invoke(app, ["demo", "--json", "--output", str(tmp_path / "out")])
    assert done.exit_code == 0, done.output
    document = json.loads(done.stdout)
    assert document["labelled"] == [4187, 4199]
    assert document["stretches"][-1]["steps"] == [1200, 7501]
    assert document["counter"]["unit"] == found.counter.unit
    scores = document["scores"]
    assert list(scores) == list(found.methods)
    assert scores["reconstruction error"]["alarm_at_the_label"] is True
    assert scores["h of the one pass"]["in_alarm"] == []
    assert [Path(path).exists() for path in document["files"].values()] == [True, True]


def test_a_folder_that_cannot_be_made_is_refused_before_the_work(tmp_path):
    (tmp_path / "taken").write_text("")
    done = everystate("demo", "--output", str(tmp_path / "taken"))
    assert done.returncode == 1
    assert "error: cannot make the folder" in done.stderr
    assert done.stdout == ""
