"""``summary``, ``report``, ``compare`` and ``info`` on traces, whole and otherwise."""

import json
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

import everystate as es
from everystate.testing import importorskip


@pytest.fixture
def changed(run, trace):
    """Path of a trace that differs from `trace` at step 17, unit 2 of c, by 0.5 (scaled)."""
    other = es.open_trace(trace).load()
    place = {"batch": 0, "time": 17, "unit": 2}
    c = other["encoder"].c
    before = float(c[place])
    c[place] = before + 0.5 * (1 + abs(before))
    return es.save_trace(other, "changed.zarr")


# summary


def test_summary_is_a_table(run, trace):
    done = run("summary", trace)
    assert (done.code, done.err) == (0, "")
    lines = {line[:24].strip(): line[24:].strip() for line in done.out.splitlines()}
    assert lines["cell"] == "LSTM"
    assert lines["steps"] == "30"


def test_summary_as_json(run, trace):
    figures = run("summary", trace, "--json").json
    table = es.summary(es.open_trace(trace)).to_dict("index")
    assert list(figures) == ["encoder"]
    assert figures["encoder"]["cell"] == "LSTM"
    assert figures["encoder"]["c_max"] == pytest.approx(table["encoder"]["c_max"])


# report


def test_report_is_named_after_the_trace(run, trace):
    importorskip("bokeh")
    done = run("report", trace)
    assert (done.code, done.out) == (0, "wrote run.html\n")
    assert "encoder" in Path("run.html").read_text()


def test_report_where_and_with_the_title_that_is_asked_for(run, trace):
    importorskip("bokeh")
    done = run("report", trace, "-o", "other.html", "--title", "A <b>title", "--json")
    assert done.json == {"report": "other.html", "bytes": Path("other.html").stat().st_size}
    assert "A &lt;b&gt;title" in Path("other.html").read_text()


def test_report_into_a_folder_that_is_not_there(run, trace):
    done = run("report", trace, "-o", "no/where.html")
    assert done.code == 1
    assert "cannot write the report to no/where.html" in done.err


# compare


def test_the_same_trace(run, trace):
    done = run("compare", trace, trace)
    assert (done.code, done.err) == (0, "")
    assert done.out.endswith("All values compared are the same within 0.0001.\n")


def test_where_two_traces_part(run, trace, changed):
    done = run("compare", trace, changed)
    assert done.code == 3
    assert "They part in encoder, step 17: c, row 0, unit 2: " in done.out
    assert done.err == ""


def test_a_tolerance_that_allows_for_it(run, trace, changed):
    assert run("compare", trace, changed, "--tolerance", "0.6").code == 0
    done = run("compare", trace, changed, "--tolerance", "0.3")
    assert done.code == 3


def test_compare_as_json(run, trace, changed):
    done = run("compare", trace, changed, "--json")
    assert done.code == 3
    document = done.json
    first = document["first"]
    assert not document["same"]
    assert (first["layer"], first["variable"]) == ("encoder", "c")
    assert (first["step"], first["row"], first["unit"]) == (17, 0, 2)
    assert document["layers"]["encoder"]["c"] == first["error"] > 0.2
    assert document["layers"]["encoder"]["h"] == 0
    assert document["structure"] == []
    assert run("compare", trace, trace, "--json").json["first"] is None


def test_traces_of_other_layers_and_sizes(run, trace, weights, two_stacks, data):
    run("record", two_stacks, "data.npy", "-o", "two.zarr", "--layers", "encoder", "--every", "2")
    done = run("compare", trace, "two.zarr")
    assert done.code == 3
    assert "encoder: time has size 30 in A, 15 in B, only the steps that both" in done.out
    np.save("one.npy", np.zeros((30, 1)))
    run("record", two_stacks, "one.npy", "-o", "dec.zarr", "--layers", "decoder")
    done = run("compare", trace, "dec.zarr")
    assert done.code == 3
    assert done.out == (
        "layers in A only: encoder\n"
        "layers in B only: decoder\n"
        "No values were compared: no variable is in both traces with equal sizes.\n"
    )


def test_traces_of_another_batch(run, trace, weights):
    np.save("two.npy", np.zeros((2, 30, 2)))
    assert run("record", weights, "two.npy", "-o", "two.zarr").code == 0
    done = run("compare", trace, "two.zarr")
    assert (done.code, done.err) == (3, "")
    size, *_, layer, verdict = done.out.splitlines()
    assert size == "encoder: batch has size 1 in A, 2 in B"
    assert layer.split("  ")[0] == "encoder"
    assert layer.endswith("not compared")
    assert verdict.startswith("No values were compared: no variable")
    assert run("compare", trace, "two.zarr", "--json").json["layers"] == {"encoder": {}}


@pytest.mark.parametrize("tolerance", ["-1", "nan"])
def test_a_tolerance_that_means_nothing(run, trace, tolerance):
    done = run("compare", trace, trace, f"--tolerance={tolerance}")
    assert done.code == 2
    assert "expected 0 or more." in done.err


def test_layers_are_paired_by_name(run, trace, folder):
    other = es.open_trace(trace).load()
    renamed = {"/": other.to_dataset(), "/lstm": other["encoder"].to_dataset()}
    es.save_trace(xr.DataTree.from_dict(renamed), "renamed.zarr")
    assert run("compare", trace, "renamed.zarr").code == 3
    assert run("compare", trace, "renamed.zarr", "--layer", "encoder=lstm").code == 0
    assert run("compare", trace, "renamed.zarr", "--layer", "encoder").code == 2
    done = run("compare", trace, "renamed.zarr", "--layer", "encoder=gru")
    assert (done.code, done.out) == (1, "")
    assert "no layer 'gru' in B, which has ['lstm']" in done.err


# info


def test_versions(run):
    done = run("info", "--json")
    assert done.json["versions"]["everystate"] == version("everystate")
    assert done.json["versions"]["zarr"] == version("zarr")
    assert done.json["extras"]["bokeh"] == "report"
    assert not {"pytest", "mypy"} & set(done.json["versions"])
    assert "zarr " in run("info").out


def test_the_layers_of_a_weights_file(run, two_stacks, weights):
    done = run("info", weights)
    assert done.code == 0
    assert "encoder  LSTM(2, 3)" in done.out
    assert "not recurrent: head.weight" in done.out
    assert run("info", two_stacks, "--json").json == {
        "model": "two.safetensors",
        "layers": ["decoder", "encoder"],
        "stacks": {"decoder": "LSTM(1, 3)", "encoder": "LSTM(2, 3)"},
        "other_tensors": {},
    }


def test_the_contents_of_a_trace(run, trace):
    done = run("info", trace)
    assert "model: weights.safetensors\n" in done.out
    assert "batch 1, time 30, unit 3" in done.out
    document = run("info", trace, "--json").json
    assert document["attributes"]["everystate_schema"] == 1
    assert document["layers"]["encoder"]["cell"] == "LSTM"


# Traces that are none, or not whole


@pytest.mark.parametrize("command", ["summary", "report", "info"])
def test_what_is_no_trace(run, folder, command):
    done = run(command, "nothing.zarr")
    assert (done.code, done.out) == (1, "")
    assert done.err.startswith("everystate: error: nothing.zarr: there is nothing at this path")
    Path("foreign").mkdir()
    Path("foreign/zarr.json").write_text(json.dumps({"zarr_format": 3, "node_type": "group"}))
    done = run(command, "foreign")
    assert (done.code, done.out) == (1, "")
    assert "foreign" in done.err
    assert "Traceback" not in done.err


@pytest.mark.parametrize(
    ("name", "model"),
    [("weights.safetensors", "weights.safetensors"), ("my_net.py", "my_net:model")],
)
def test_a_model_is_to_be_recorded_first(run, weights, name, model):
    done = run("summary", name)
    assert (done.code, done.out) == (1, "")
    assert f"Record it first: everystate record {model} DATA -o run.zarr" in done.err


def test_comparing_with_what_is_no_trace(run, trace):
    done = run("compare", trace, "nothing.zarr")
    assert done.code == 1
    assert "nothing.zarr: there is nothing at this path" in done.err


def test_a_newer_trace(run, trace):
    path = Path(trace, "zarr.json")
    path.write_text(path.read_text().replace('"everystate_schema": 1', '"everystate_schema": 9'))
    done = run("summary", trace)
    assert done.code == 1
    assert "schema" in done.err
    assert "9" in done.err


def test_a_damaged_trace(run, trace):
    chunk = next(p for p in Path(trace, "encoder", "c").rglob("*") if p.parent.name != "c")
    chunk = chunk if chunk.is_file() else next(p for p in chunk.rglob("*") if p.is_file())
    content = bytearray(chunk.read_bytes())
    content[len(content) // 2] ^= 0xFF
    chunk.write_bytes(bytes(content))
    done = run("summary", trace)
    assert (done.code, done.out) == (1, "")
    assert done.err.startswith("everystate: error: ")
    assert "run.zarr" in done.err
