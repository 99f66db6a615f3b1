"""The shape of a diagnosis: order, text, HTML and JSON."""

import json

import pytest

from everystate.analysis.finding import Diagnosis, Finding, Plot
from everystate.errors import SelectionError

WORSE = Finding(
    "growing-state",
    "warning",
    "enc/<b>",
    "|c| & more.",
    {"slope": 0.5, "units": [3, 1]},
    "slope = ...",
    "It is short.",
    Plot("over_units", "c", (3, 1), (10, 20), "x"),
)
MILD = Finding("still-units", "info", "dec", "1 of 5 units never moves.")
FOUND = Diagnosis((WORSE, MILD), ("redundant-units: needs scipy.",))


def test_it_is_a_sequence():
    assert len(FOUND) == 2
    assert list(FOUND) == [WORSE, MILD]
    assert FOUND[1] is MILD
    assert FOUND[:1] == (WORSE,)
    assert WORSE in FOUND
    assert Diagnosis() == Diagnosis()


def test_severities_are_ordered():
    assert FOUND.worst == "warning"
    assert Diagnosis().worst is None
    assert FOUND.at_least("info") == (WORSE, MILD)
    assert FOUND.at_least("warning") == (WORSE,)
    assert FOUND.at_least("error") == ()
    with pytest.raises(SelectionError, match="severity='fatal', expected one of"):
        FOUND.at_least("fatal")


def test_it_prints_the_sentences():
    assert repr(FOUND).splitlines() == [
        "warning: layer enc/<b>: |c| & more.",
        "    But: It is short.",
        "info: layer dec: 1 of 5 units never moves.",
        "left out: redundant-units: needs scipy.",
    ]
    assert repr(Diagnosis()) == "Nothing was found."


def test_names_from_a_model_are_escaped_in_html():
    html = FOUND._repr_html_()
    assert "<td>enc/&lt;b&gt;</td><td>|c| &amp; more.</td>" in html
    assert "<b>" not in html
    assert "Nothing was found" in Diagnosis()._repr_html_()


def test_it_is_plain_for_programs():
    found = json.loads(json.dumps(FOUND.to_dict()))
    assert found["worst"] == "warning"
    assert found["left_out"] == ["redundant-units: needs scipy."]
    first = found["findings"][0]
    assert first["evidence"] == {"slope": 0.5, "units": [3, 1]}
    assert first["plot"] == {
        "name": "over_units",
        "variable": "c",
        "units": [3, 1],
        "window": [10, 20],
        "row": "x",
    }
