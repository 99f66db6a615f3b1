"""The report as a file: where it goes, what it refuses, and what no name in it may become."""

import subprocess
import sys
from html.parser import HTMLParser

import numpy as np
import pytest
import xarray as xr

import everystate as es
from everystate.errors import (
    InputError,
    MissingDependencyError,
    SelectionError,
    TraceFormatError,
    TraceWriteError,
)
from everystate.testing import importorskip

importorskip("bokeh")
importorskip("jinja2")


class Fetched(HTMLParser):
    """Collects what a page would fetch by its markup."""

    def __init__(self):
        super().__init__()
        self.found = []

    def handle_starttag(self, tag, attrs):
        named = dict(attrs)
        places = [named.get("src"), named.get("href") if tag != "a" else None]
        self.found += [p for p in places if p and not p.startswith(("data:", "#"))]


def fetched(html):
    parser = Fetched()
    parser.feed(html)
    return parser.found


@pytest.fixture(scope="module")
def trace(make_layer, make_trace):
    return make_trace({"enc/lstm": make_layer("LSTM", features=2), "dec": make_layer("GRU")})


@pytest.fixture(scope="module")
def html(trace, tmp_path_factory):
    return es.report(trace, tmp_path_factory.mktemp("report") / "r.html").read_text()


@pytest.fixture
def drawn(html, monkeypatch):
    """The page is not drawn anew: what is tested is where it goes."""
    monkeypatch.setattr("everystate.views.page.render", lambda *_: html)


def test_one_file_is_written_in_place_of_an_older_one(trace, html, tmp_path):
    path = tmp_path / "run.html"
    path.write_text("an older report")
    assert es.report(trace, str(path), title="Run 3") == path
    assert [p.name for p in tmp_path.iterdir()] == ["run.html"]
    assert "<title>Run 3</title>" in path.read_text()


def test_the_page_has_the_summary_and_every_layer(html):
    assert html.startswith("<!DOCTYPE html>")
    assert "<title>States of Net</title>" in html
    assert "enc/lstm" in html
    assert "forget gate f saturated" in html


def test_the_default_is_report_html(trace, drawn, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert es.report(trace).name == "report.html"
    assert (tmp_path / "report.html").is_file()


def test_nothing_is_taken_from_a_host(html):
    assert "default-src 'none'" in html
    assert fetched(html) == []
    assert fetched(html + '<img src="//cdn.example/x.png">') == ["//cdn.example/x.png"]


def test_the_page_says_what_it_leaves_out(make_layer, make_trace, tmp_path):
    layer = make_layer("GRU", steps=12_345, rows=3, batch=["a", "b", "c"])
    layer["h"][1, 3, 2] = np.inf
    html = es.report(make_trace({"gru": layer}), tmp_path / "r.html", row="b").read_text()
    assert "12,345 steps drawn as 988 columns" in html
    assert "the lowest and the highest value of 25 steps" in html
    assert "The pictures show row b of 3 rows" in html
    assert "<strong>gru</strong> holds 1 NaN or infinite values" in html


def test_a_short_record_is_not_said_to_be_decimated(html):
    assert "steps drawn as" not in html
    assert "NaN or infinite values within" not in html


def test_a_folder_or_a_missing_one_is_refused_before_any_work(tmp_path):
    with pytest.raises(TraceWriteError, match=r"it is a folder\. Name a file"):
        es.report(None, tmp_path)
    with pytest.raises(TraceWriteError, match=r"nowhere is no folder\. Create it first"):
        es.report(None, tmp_path / "nowhere" / "r.html")


def test_what_the_system_refuses_is_told_and_nothing_is_left(trace, drawn, tmp_path, monkeypatch):
    def full(self, *args, **kwargs):
        raise OSError(28, "No space left on device")

    old = tmp_path / "r.html"
    old.write_text("an older report")
    monkeypatch.setattr("pathlib.Path.replace", full)
    with pytest.raises(TraceWriteError, match=r"cannot write the report to .*: No space left"):
        es.report(trace, old)
    assert [p.name for p in tmp_path.iterdir()] == ["r.html"]
    assert old.read_text() == "an older report"


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"row": 9}, SelectionError, "row=9 is not in the trace"),
        ({"marks": {"x": ("a", "b")}}, InputError, "'a' is not on the time axis"),
        ({"series": [1.0, 2.0]}, InputError, "60 steps were recorded"),
    ],
)
def test_bad_options_are_refused_and_nothing_is_written(trace, tmp_path, options, error, message):
    with pytest.raises(error, match=message):
        es.report(trace, tmp_path / "r.html", **options)
    assert not list(tmp_path.iterdir())


def test_something_else_is_refused(tmp_path):
    with pytest.raises(TraceFormatError, match=r"Open the file first: es\.open_trace"):
        es.report("run.zarr", tmp_path / "r.html")


@pytest.mark.parametrize("missing", ["bokeh", "jinja2"])
def test_a_missing_package_is_named_with_what_brings_it(missing):
    code = f"""
import sys
sys.modules[{missing!r}] = None
import everystate as es, xarray as xr
try:
    es.report(xr.DataTree(), "/tmp/r.html")
except es.errors.{MissingDependencyError.__name__} as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "which is not installed: pip install 'everystate[report]'" in done.stdout
    assert missing in done.stdout


def test_poor_layers_have_a_place_on_the_page(make_layer, make_trace, tmp_path, recwarn):
    layer = make_layer("LSTM")
    poor = {
        "one step": layer.isel(time=[0]),
        "only gates": layer.drop_vars(["h", "c"]),
        "all NaN": xr.full_like(layer[["h"]], np.nan),
    }
    html = es.report(make_trace(poor), tmp_path / "r.html").read_text()
    assert all(f">{name}</a>" in html for name in poor)
    assert [str(w.message) for w in recwarn] == []


def test_a_layer_of_inputs_only_beside_others(make_layer, make_trace, tmp_path):
    layer = make_layer("LSTM", features=3)
    html = es.report(make_trace({"a": layer, "b": layer[["inputs"]]}), tmp_path / "r.html")
    assert 'href="#block1">a</a>' in html.read_text()


def test_time_may_be_labelled_by_words(make_layer, make_trace, tmp_path):
    layer = make_layer("LSTM", time=[f"word{k}" for k in range(60)])
    found = es.diagnose(make_trace({"enc": layer}))
    path = es.report(make_trace({"enc": layer}), tmp_path / "r.html", findings=found)
    assert path.stat().st_size > 1e6


def test_marks_beyond_the_record_are_refused_before_any_work(make_layer, make_trace, tmp_path):
    trace = make_trace({"gru": make_layer("GRU")})
    with pytest.raises(InputError, match=r"mark 'a': 5000 to 6000 is beyond .* from 0 to 59\."):
        es.report(trace, tmp_path / "r.html", marks={"a": (5_000, 6_000)})
    assert list(tmp_path.iterdir()) == []
