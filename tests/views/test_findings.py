"""Findings on the page: what is said of each, and which picture it leads to."""

import json

import numpy as np
import pytest
from bokeh.models import Range1d, Span

from everystate.analysis.finding import Finding, Plot
from everystate.testing import importorskip

importorskip("bokeh")

from everystate.views.findings import coded, shown_open, told
from everystate.views.prepare import prepare, row_of
from everystate.views.time_axis import TimeAxis
from everystate.views.view import View


@pytest.fixture(scope="module")
def views(make_layer):
    layer = make_layer("LSTM", unit=[f"u{k}" for k in range(7)], time=np.arange(60) * 10)
    row = row_of(layer)
    axis = TimeAxis.of(row["time"])
    x_range = Range1d(*axis.ends, name="time-0")
    return {"enc": View(prepare(row), axis, x_range, Span(), [], 3, layer)}


def finding(plot=None, layer="enc", **evidence):
    return Finding("stuck", "warning", layer, "It is stuck.", evidence, plot=plot)


def target(views, plot):
    return json.loads(told(finding(plot), views, 0).target)


def test_a_finding_leads_to_unit_and_stretch(views):
    found = target(views, Plot("heat_map", "c", ("u5", "u2"), (200, 290), 0))
    assert found == {
        **{"block": 3, "key": "v1", "picture": "heat_map-3-v1", "range": "time-0"},
        **{"least": 200.0, "stretch": [195.0, 295.0], "unit": "5"},
    }


@pytest.mark.parametrize(
    ("plot", "picture"),
    [
        (Plot("heat_map", "f"), "heat_map-3-gates"),
        (Plot("lines", "h"), "over_units-3-v0"),
        (Plot("over_units", "f"), "over_units-3-v3"),
        (Plot("saturation", "f"), "saturation-3"),
        (Plot("half_life", "f"), "half_life-3"),
    ],
)
def test_each_kind_of_picture_has_its_name(views, plot, picture):
    assert target(views, plot)["picture"] == picture


def test_without_a_picture_it_leads_to_the_layer(views):
    assert target(views, None) == {"block": 3}
    assert told(finding(layer="gone"), views, 0).target == "{}"
    assert "unit" not in target(views, Plot("lines", "h", ("u70",)))
    assert "picture" not in target(views, Plot("lines", "missing"))


def test_where_it_is_said_in_words(views):
    plot = Plot("lines", "h", tuple(f"u{k}" for k in range(7)), (200, 290), 1)
    one = told(finding(plot), views, 0)
    assert one.where == (
        "units u0, u1, u2, u3, u4 …; 200 to 290; best seen in row 1, while the pictures show row 0"
    )


def test_a_single_step_is_no_stretch(views):
    assert told(finding(Plot("lines", "h", window=(290, 290))), views, 0).where == "at 290"


def test_code_is_marked_and_names_are_escaped():
    assert coded("see `a<b` of <i>") == "see <code>a&lt;b</code> of &lt;i&gt;"
    assert coded("one ` alone") == "one ` alone"


def test_evidence_is_written_out(views):
    figures = {"share_shut": 0.381234, "units": list(range(12)), "from": 4300, "limit": None}
    figures["sizes"] = {"now": np.float32(2.5)}
    assert told(finding(**figures), views, 0).evidence == [
        ("share shut", "0.3812"),
        ("units", "0, 1, 2, 3, 4, 5, 6, 7 …"),
        ("from", "4,300"),
        ("limit", "None"),
        ("sizes", "now: 2.5"),
    ]


@pytest.mark.parametrize(
    ("severities", "at_once"),
    [
        ("", 0),
        ("info info info info", 4),
        ("error warning info info", 4),
        ("error warning info info info", 2),
        ("warning info warning info info info", 3),
    ],
)
def test_what_is_worth_knowing_only_is_folded_behind_what_is_wrong(severities, at_once):
    found = [Finding("a", severity, "enc", "It is.") for severity in severities.split()]
    assert shown_open(found) == at_once
