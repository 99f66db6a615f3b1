"""Anomaly over time: planted anomalies, causality, ragged rows, and a plain loop."""

import sys

import numpy as np
import pytest
import xarray as xr

import mutations
from everystate.analysis.anomaly import METHODS, fit_detector, top_contributors
from everystate.errors import AnalysisError, MissingDependencyError, SelectionError
from everystate.testing import importorskip

importorskip("sklearn")


@pytest.fixture(scope="module")
def layer():
    """An LSTM layer of 2 rows, 300 steps and 5 units, whose states are correlated noise."""
    rng = np.random.default_rng(21)
    shape, dims = (2, 300, 5), ("batch", "time", "unit")
    mix = rng.normal(size=(5, 5)) + 2 * np.eye(5)
    variables = {
        name: (dims, rng.normal(size=shape) @ mix * scale)
        for name, scale in (("h", 0.1), ("c", 4.0), ("f", 0.2))
    }
    coords = {"time": np.arange(300), "batch": [0, 1], "unit": np.arange(5)}
    return xr.Dataset(variables, coords, {"cell": "LSTM", "direction": "forward"})


@pytest.fixture(scope="module", params=METHODS)
def detector(layer, request):
    return fit_detector(layer.isel(time=slice(200)), request.param, explained=0.8)


def distances(detector, layer):
    """Squared distance, divided by the columns, of each step: (batch, time)."""
    table = np.concatenate([layer["h"].values, layer["c"].values], axis=-1)
    flat = table.reshape(-1, table.shape[-1]).astype(float)
    return detector.distance.parts(flat).mean(axis=1).reshape(table.shape[:2])


def looped(squares, window, ahead=0):
    found = np.empty_like(squares)
    for row in range(squares.shape[0]):
        for t in range(squares.shape[1]):
            first = max(0, t + ahead - window + 1)
            found[row, t] = np.sqrt(squares[row, first : t + ahead + 1].mean())
    return found


@pytest.mark.parametrize("window", [1, 7])
def test_scores_agree_with_a_loop(detector, layer, window):
    found = detector.score(layer, window=window)
    squares = distances(detector, layer)
    assert found.score.values == pytest.approx(looped(squares, window), rel=1e-5)
    parts = found.contribution.mean("column").values
    assert np.sqrt(parts) == pytest.approx(found.score.values, rel=1e-5)
    assert found.contribution.dtype == np.float32
    alone = detector.score(layer, window=window, contributions=False)
    assert list(alone.data_vars) == ["score"]
    assert alone.score.values == pytest.approx(found.score.values, rel=1e-5)
    with mutations.must_be_noticed("one step shifted"):
        shifted = np.roll(looped(squares, window), 1, axis=1)
        assert found.score.values == pytest.approx(shifted, rel=1e-5)
    with mutations.must_be_noticed("rows swapped"):
        assert found.score.values == pytest.approx(looped(squares[::-1], window), rel=1e-5)


def test_a_score_knows_nothing_of_later_steps(detector, layer):
    changed = layer.copy(deep=True)
    changed["c"][:, 150:] = 99.0

    def check(score):
        before, after = score(layer), score(changed)
        assert np.array_equal(before[:, :150], after[:, :150])
        assert (before[:, 150:] != after[:, 150:]).all()

    check(lambda x: detector.score(x, window=20).score.values)
    with mutations.must_be_noticed("a window that ends one step later"):
        check(lambda x: looped(distances(detector, x), 20, ahead=1))


def test_a_planted_anomaly_is_found_where_it_is(detector, layer):
    live = layer.isel(time=slice(200, None)).copy(deep=True)
    live["c"][1, 40:46, 3] += 60.0
    found = detector.score(live, window=3)
    row, step = np.unravel_index(found.score.values.argmax(), found.score.shape)
    assert row == 1
    assert 40 <= step < 48
    top = top_contributors(found.isel(batch=1, time=slice(40, 46)), count=3)
    assert top.share_of_variable.sel(name="c") > 0.5
    if detector.method in ("mahalanobis", "nearest"):
        assert (top["variable"].values[0], top["unit"].values[0]) == ("c", 3)
    assert (top.share.values[:-1] >= top.share.values[1:]).all()


def test_the_parts_of_units_and_variables_are_shares_of_all(detector, layer):
    top = top_contributors(detector.score(layer), count=100)
    assert top.share.sum() == pytest.approx(1.0)
    assert top.share_of_variable.sum() == pytest.approx(1.0)
    for name in ("h", "c"):
        assert top.share_of_variable.sel(name=name) == pytest.approx(
            top.share.values[top["variable"].values == name].sum()
        )


def test_ragged_rows(detector, layer):
    ragged = layer.assign_coords(length=("batch", [300, 120]))
    ragged = ragged.where(ragged.time < ragged.length)
    for window in (1, 9):
        found = detector.score(ragged, window=window)
        assert found.score.notnull().sum("time").values.tolist() == [300, 120]
        whole = detector.score(layer, window=window)
        alone = detector.score(ragged, window=window, contributions=False)
        assert alone.score.values == pytest.approx(found.score.values, rel=1e-5, nan_ok=True)
        assert np.array_equal(found.score[1, :120], whole.score[1, :120])
        assert found.contribution[1, 120:].isnull().all()


def test_padding_is_not_fitted(layer):
    ragged = layer.assign_coords(length=("batch", [300, 120]))
    padded = ragged.where(ragged.time < ragged.length, 77.0)
    rows = [layer.isel(batch=0, drop=True), layer.isel(batch=1, time=slice(120), drop=True)]
    same = fit_detector(xr.concat(rows, "time"))
    assert fit_detector(padded).distance.whiten == pytest.approx(same.distance.whiten)


def test_what_is_not_finite_is_as_far_out_as_can_be(detector, layer):
    broken = layer.copy(deep=True)
    broken["h"][0, 50, 2] = np.nan
    broken["c"][1, 70] = np.inf
    score = detector.score(broken, window=4).score.values
    assert np.isinf(score[0, 50:54]).all()
    assert np.isinf(score[1, 70:74]).all()
    assert np.isfinite(np.delete(score[0], range(50, 54))).all()
    top = top_contributors(detector.score(broken))
    assert np.isfinite(top.share).all()


def test_lazy_on_dask(detector, layer):
    importorskip("dask")
    chunked = layer.chunk({"time": 70, "batch": 1})
    for window in (1, 100):  # wider than a chunk
        found = detector.score(chunked, window=window)
        assert found.score.chunks is not None
        assert found.contribution.chunks is not None
        expected = detector.score(layer, window=window)
        assert found.score.values == pytest.approx(expected.score.values, rel=1e-6)


@pytest.mark.parametrize("cell", ["GRU", "SimpleRNN", "MyCell"])
def test_other_cells(make_layer, cell):
    made = make_layer("SimpleRNN" if cell == "MyCell" else cell, lengths=None)
    made = made.rename(h="state_0") if cell == "MyCell" else made
    made.attrs["cell"] = cell
    variables = ("h", "gates") if cell == "GRU" else "states"
    score = fit_detector(made, variables=variables).score(made).score
    assert 0.5 < float((score**2).mean()) < 1.5  # its own baseline: 1 on average, but for shrinkage


def test_a_detector_says_what_it_is_in_a_line(layer):
    detector = fit_detector(layer, "nearest", ("h", "f"))
    assert repr(detector) == "Detector(variables=('h', 'f'), method='nearest')"


def test_a_layer_without_rows(layer, detector):
    alone = detector.score(layer.isel(batch=1, drop=True))
    assert alone.score.dims == ("time",)
    assert np.array_equal(alone.score, detector.score(layer).score[1])


def node(direction, layer, path):
    layer = layer.assign_attrs(direction=direction)
    tree = xr.DataTree.from_dict({path: layer, path.rsplit("/", 1)[0] + "/backward": layer})
    return tree[path]


def test_causal_is_what_has_seen_no_later_step(layer):
    detector = fit_detector(layer)
    assert detector.score(layer).attrs["causal"] == 1
    assert detector.score(layer.assign_attrs(direction="backward")).attrs["causal"] == 0
    for path, causal in [
        ("/lstm/forward", 1),
        ("/lstm/layer_0/forward", 1),
        ("/lstm/layer_1/forward", 0),
        ("/lstm/layer_1/backward", 0),
    ]:
        direction = path.rsplit("/", 1)[1]
        assert detector.score(node(direction, layer, path)).attrs["causal"] == causal


def test_a_missing_package_names_the_extra(layer, monkeypatch):
    for name in ("sklearn.covariance", "sklearn.neighbors", "sklearn.decomposition"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(MissingDependencyError, match=r"needs sklearn.*everystate\[analysis\]"):
        fit_detector(layer)
    with pytest.raises(MissingDependencyError, match="a score of anomaly needs sklearn"):
        fit_detector(layer, "residual")


def test_errors(layer):
    detector = fit_detector(layer)
    with pytest.raises(AnalysisError, match=r"10 columns, .* the baseline has 10"):
        detector.score(layer.assign_coords(unit=[0, 1, 2, 3, 9]))
    with pytest.raises(AnalysisError, match="the layer has 8 columns"):
        detector.score(layer.isel(unit=slice(4)))
    with pytest.raises(SelectionError, match="holds"):
        detector.score(layer[["h"]])
    with pytest.raises(SelectionError, match="window=0"):
        detector.score(layer, window=0)
    with pytest.raises(SelectionError, match="method='pca', expected one of mahalanobis"):
        fit_detector(layer, "pca")
    with pytest.raises(AnalysisError, match=r"has 3 steps .* needs 4"):
        fit_detector(layer.isel(batch=[0], time=slice(3)), "nearest", neighbours=4)
    with pytest.raises(AnalysisError, match="nothing to attribute"):
        top_contributors(detector.score(layer) * np.nan)
