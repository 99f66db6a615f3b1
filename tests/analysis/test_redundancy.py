"""Units that are alike: planted groups, and NumPy's correlation."""

import sys

import numpy as np
import pytest

import mutations
from everystate.analysis.redundancy import correlation, redundancy, spare_units
from everystate.errors import MissingDependencyError
from everystate.testing import importorskip


def pooled(layer, name="h"):
    rows = layer[name].values.reshape(-1, 5)
    return rows[np.isfinite(rows).all(axis=1)]


def test_correlation_is_that_of_numpy(make_layer):
    layer = make_layer("LSTM")
    ours = correlation(layer).correlation.values
    assert ours == pytest.approx(np.corrcoef(pooled(layer), rowvar=False), abs=1e-12)
    with mutations.must_be_noticed("c taken for h"):
        assert ours == pytest.approx(np.corrcoef(pooled(layer, "c"), rowvar=False), abs=1e-6)
    with mutations.must_be_noticed("padding counted as zeros"):
        padded = pooled(layer.fillna(0.0))
        assert ours == pytest.approx(np.corrcoef(padded, rowvar=False), abs=1e-6)
    with mutations.must_be_noticed("the mean kept"):
        h = pooled(layer) + 1.0
        size = np.sqrt((h * h).sum(axis=0))
        assert ours == pytest.approx(h.T @ h / np.outer(size, size), abs=1e-6)


def planted(make_layer, noise=0.01):
    """Units 4 and 1 say what 2 says, one of them with the other sign; 0 and 3 are their own."""
    layer = make_layer("GRU")
    rng = np.random.default_rng(1)
    for unit, scale in ((4, 3.0), (1, -0.2)):
        extra = noise * abs(scale) * rng.normal(size=layer["h"].shape[:2])
        layer["h"][..., unit] = scale * layer["h"][..., 2] + 0.7 + extra
    return layer


def test_planted_groups_are_found(make_layer):
    importorskip("scipy")
    found = redundancy(planted(make_layer))
    assert found.group.values.tolist() == [1, 0, 0, 2, 0]
    assert found["size"].values.tolist() == [1, 3, 3, 1, 3]
    assert spare_units(found) == 2
    for fault, other in {
        "signs kept": np.maximum(correlation(planted(make_layer)).correlation.values, 0),
        "more noise": correlation(planted(make_layer, noise=2.0)).correlation.values,
    }.items():
        with mutations.must_be_noticed(fault):
            alike = abs(other) >= 0.95
            assert [alike[u].sum() for u in range(5)] == found["size"].values.tolist()


def test_every_two_of_a_group_are_alike(make_layer):
    """A chain: each is like its neighbour, but not the first like the last."""
    importorskip("scipy")
    layer = make_layer("GRU", lengths=None)
    t = np.arange(41.0) * 2 * np.pi / 41
    for unit, phase in enumerate((0.0, 0.25, 0.5, 0.75, 1.0)):
        layer["h"][..., unit] = np.sin(t + phase)
    r = correlation(layer).correlation.values
    found = redundancy(layer, alike=0.96)
    for group in set(found.group.values.tolist()):
        inside = np.flatnonzero(found.group.values == group)
        assert abs(r[np.ix_(inside, inside)]).min() >= 0.96
    assert spare_units(found) == 2  # single linkage would have joined all five


def test_units_that_never_move_are_in_no_group(make_layer):
    importorskip("scipy")
    layer = planted(make_layer)
    layer["h"][..., 0] = 0.3
    layer["h"][..., 3] = 1e6
    found = redundancy(layer)
    assert found.group.values.tolist() == [-1, 0, 0, -1, 0]
    assert found["size"].values.tolist() == [0, 3, 3, 0, 3]
    assert np.isnan(correlation(layer).correlation.values[0]).all()


def test_without_scipy_the_extra_is_named(make_layer, monkeypatch):
    for name in [m for m in sys.modules if m.split(".")[0] == "scipy"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "scipy", None)
    with pytest.raises(MissingDependencyError, match=r"redundancy needs scipy.*everystate\[analys"):
        redundancy(make_layer("GRU"))
