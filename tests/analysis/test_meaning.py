"""Meanings as findings: planted cells are named, with the figures of selectivity and probe."""

import numpy as np
import pytest
import xarray as xr

import mutations
from everystate import schema
from everystate.analysis.meaning import meanings
from everystate.analysis.probes import Split, probe
from everystate.analysis.selectivity import selectivity
from everystate.errors import SelectionError
from everystate.testing import importorskip

importorskip("sklearn")

SPLIT = Split(gap=60, shifts=3)


@pytest.fixture(scope="module")
def case():
    """Two layers of 1,200 steps: the second has a cell for quotes and one that counts backwards."""
    rng = np.random.default_rng(31)
    quoted = (rng.random(24) < 0.4).repeat(50)
    place = np.arange(1200) % 41
    lower, upper = rng.normal(size=(1, 1200, 5)), rng.normal(size=(1, 1200, 7))
    upper[0, :, 2] += 3 * quoted
    upper[0, :, 6] -= place / 5
    layer = {
        path: xr.Dataset({"h": (("batch", "time", "unit"), h)}, {"unit": np.arange(h.shape[-1])})
        for path, h in (("/lower", lower), ("/upper", upper))
    }
    trace = xr.DataTree.from_dict(layer)
    trace.attrs[schema.SCHEMA_ATTR] = schema.SCHEMA_VERSION
    return trace, {"quoted": quoted, "place": place}


def test_planted_cells_are_named(case):
    trace, labels = case
    found = meanings(trace, labels, shifts=39, split=SPLIT)

    def check(expected):
        assert {(f.layer, f.evidence["label"], f.evidence["unit"]) for f in found} == expected

    check({("upper", "quoted", 2), ("upper", "place", 6)})
    with mutations.must_be_noticed("labels swapped"):
        check({("upper", "quoted", 6), ("upper", "place", 2)})
    sizes = [abs(f.evidence["selectivity"]) for f in found]
    assert sizes == sorted(sizes, reverse=True)
    messages = {f.evidence["label"]: f.message for f in found}
    assert "h of unit 2 is higher where 'quoted' holds (+0.9" in messages["quoted"]
    assert "h of unit 6 is lower the larger 'place' is (-0.9" in messages["place"]
    assert {f.plot.units for f in found} == {(2,), (6,)}


def test_the_figures_are_those_of_selectivity_and_probe(case):
    trace, labels = case
    (found,) = meanings(trace, {"place": labels["place"]}, shifts=39, split=SPLIT)
    single = selectivity(trace["upper"], labels["place"], shifts=39, least_shift=60)
    read = probe(trace["upper"], labels["place"].astype(float), split=SPLIT)
    assert found.evidence["selectivity"] == single.selectivity.values[6]
    assert found.evidence["best_by_chance"] == single.strongest_by_chance.max()
    assert found.evidence["probe"] == read.score
    assert found.evidence["probe_control"] == read.control.max()


def test_noughts_and_ones_are_truth_values(case):
    trace, labels = case
    numbers = {"quoted": labels["quoted"].astype(int)}
    same = meanings(trace, {"quoted": labels["quoted"]}, shifts=39, split=SPLIT)
    assert meanings(trace, numbers, shifts=39, split=SPLIT) == same


def test_labels_that_no_unit_follows_make_no_finding(case):
    trace, _ = case
    other = (np.random.default_rng(32).random(24) < 0.5).repeat(50)
    found = meanings(trace, {"other": other}, shifts=99, at_most=0.01, split=SPLIT)
    assert (found.worst, repr(found)) == (None, "Nothing was found.")


def test_too_few_shifts_are_refused(case):
    trace, labels = case
    with pytest.raises(SelectionError, match=r"no p-value is below 0.1 with shifts=9"):
        meanings(trace, labels, shifts=9)
