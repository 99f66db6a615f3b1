"""Geometry: states laid out in known planes, and a plain singular value decomposition."""

import numpy as np
import pytest
import xarray as xr

import mutations
from everystate.analysis.geometry import participation_ratio, trajectory
from everystate.errors import AnalysisError, SelectionError
from everystate.testing import importorskip


def valid_rows(layer, name):
    values = layer[name].values.reshape(-1, layer.sizes["unit"])
    return values[np.isfinite(values).all(axis=1)]


def oracle(layer, name, count):
    x = valid_rows(layer, name)
    _, s, v = np.linalg.svd(x - x.mean(axis=0), full_matrices=False)
    v = v[:count]
    v = v * np.sign(v[np.arange(count), np.abs(v).argmax(axis=1)])[:, None]
    path = (layer[name].values - x.mean(axis=0)) @ v.T
    return path, (s**2 / (s**2).sum())[:count]


def check(found, expected):
    path, explained = expected
    assert found.trajectory.values == pytest.approx(path, rel=1e-6, abs=1e-9, nan_ok=True)
    assert found.explained.values == pytest.approx(explained, rel=1e-9)


@pytest.mark.parametrize(("cell", "name"), [("LSTM", "c"), ("GRU", "h"), ("SimpleRNN", "h")])
def test_trajectory_agrees_with_singular_vectors(make_layer, cell, name):
    layer = make_layer(cell, lengths=(41, 17, 30))
    found = trajectory(layer, name, components=2)
    assert found.trajectory.dims == ("batch", "time", "component")
    check(found, oracle(layer, name, 2))
    with mutations.must_be_noticed("padding counted as zeros"):
        check(found, oracle(layer.fillna(0.0), name, 2))
    with mutations.must_be_noticed("no mean taken off"):
        x = valid_rows(layer, name)
        assert np.allclose(
            found.trajectory.values + x.mean(axis=0) @ found.loading.values.T,
            found.trajectory.values,
            equal_nan=True,
        )
    with mutations.must_be_noticed("components swapped"):
        path, explained = oracle(layer, name, 2)
        check(found, (path[..., ::-1], explained[::-1]))
    if cell == "LSTM":
        with mutations.must_be_noticed("h taken for c"):
            check(found, oracle(layer, "h", 2))


def test_a_path_in_a_known_plane():
    t = np.linspace(0, 40, 500)
    rng = np.random.default_rng(1)
    q, _ = np.linalg.qr(rng.normal(size=(6, 6)))
    path = np.stack([5 * np.cos(t), 2 * np.sin(3 * t)], axis=1)
    h = xr.DataArray((path @ q[:2] + 7.0)[None], dims=("batch", "time", "unit"))
    found = trajectory(xr.Dataset({"h": h}), components=3)
    assert found.explained.values[:2].sum() == pytest.approx(1.0)
    assert found.explained.values[2] == pytest.approx(0.0, abs=1e-12)
    radius = np.sqrt((found.trajectory.isel(component=slice(2)) ** 2).sum("component")).values[0]
    centred = path - path.mean(axis=0)
    assert radius == pytest.approx(np.sqrt((centred**2).sum(axis=1)))


def test_a_reference_fixes_the_space(make_layer):
    reference, other = make_layer("LSTM", lengths=None), make_layer("LSTM", lengths=None, seed=8)
    found = trajectory(other, "c", components=2, reference=reference)
    own = trajectory(reference, "c", components=2)
    assert np.array_equal(found.loading, own.loading)
    expected = (other["c"].values - own["mean"].values) @ own.loading.values.T
    assert found.trajectory.values == pytest.approx(expected)
    with mutations.must_be_noticed("its own space"):
        assert trajectory(other, "c", components=2).trajectory.values == pytest.approx(expected)


def ratio(x):
    values = np.linalg.eigvalsh(np.cov(x.T))
    return values.sum() ** 2 / (values**2).sum()


def test_participation_ratio_agrees_with_eigenvalues(make_layer):
    layer = make_layer("LSTM", lengths=(41, 17, 30))
    layer["c"] = layer["c"] * [1.0, 2.0, 3.0, 4.0, 5.0]
    found = participation_ratio(layer)
    assert found["variable"].values.tolist() == ["h", "c"]

    def check(names, x_of=lambda layer, name: valid_rows(layer, name)):
        expected = [ratio(x_of(layer, name)) for name in names]
        assert found.participation_ratio.values == pytest.approx(expected)

    check("hc")
    assert found["columns"].values.tolist() == [5, 5]
    with mutations.must_be_noticed("h and c swapped"):
        check("ch")
    with mutations.must_be_noticed("padding counted as zeros"):
        check("hc", lambda layer, name: valid_rows(layer.fillna(0.0), name))
    with mutations.must_be_noticed("units scaled alike"):
        check("hc", lambda layer, name: valid_rows(layer, name) / valid_rows(layer, name).std(0))


@pytest.mark.parametrize("dimensions", [1, 3, 7])
def test_participation_ratio_of_known_dimensions(dimensions):
    rng = np.random.default_rng(2)
    q, _ = np.linalg.qr(rng.normal(size=(9, 9)))
    h = rng.normal(size=(2, 30_000, dimensions)) @ q[:dimensions] + 3.0
    layer = xr.Dataset({"h": (("batch", "time", "unit"), h)})
    assert participation_ratio(layer).participation_ratio.item() == pytest.approx(
        dimensions, rel=0.01
    )


def test_states_that_do_not_move(make_layer):
    layer = make_layer("SimpleRNN", lengths=None)
    layer["h"][:] = 0.3
    assert participation_ratio(layer).participation_ratio.isnull().all()
    with pytest.raises(AnalysisError, match="do not move"):
        trajectory(layer)
    assert not participation_ratio(make_layer("LSTM")[["f"]]).data_vars


def test_values_that_are_not_finite_are_left_out(make_layer):
    layer = make_layer("GRU", lengths=None)
    broken = layer.copy(deep=True)
    broken["h"][1, 5, 2] = np.inf
    rest = layer.copy(deep=True)
    rest["h"][1, 5] = np.nan
    for measure in (participation_ratio, lambda x: trajectory(x)[["explained"]]):
        xr.testing.assert_allclose(measure(broken), measure(rest))


def test_lazy_on_dask(make_layer):
    importorskip("dask")
    layer = make_layer("LSTM")
    chunked = layer.chunk({"time": 10})
    found = trajectory(chunked, "c")
    assert found.trajectory.chunks is not None
    xr.testing.assert_allclose(found, trajectory(layer, "c"))
    assert participation_ratio(chunked).participation_ratio.chunks is not None
    xr.testing.assert_allclose(participation_ratio(chunked), participation_ratio(layer))


def test_errors(make_layer):
    layer = make_layer("GRU")
    for wrong in (0, 6):
        with pytest.raises(SelectionError, match=f"components={wrong}, there are 5 columns"):
            trajectory(layer, components=wrong)
    with pytest.raises(AnalysisError, match="1 steps have finite values"):
        trajectory(layer.isel(batch=[0], time=[3]))
