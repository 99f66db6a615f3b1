"""Similarity: invariances, equivalent definitions, and layers of two traces."""

import numpy as np
import pytest
import xarray as xr

import mutations
from everystate import schema
from everystate.analysis.similarity import (
    MEASURES,
    cka,
    pwcca,
    similarity,
    similarity_matrix,
    svcca,
)
from everystate.errors import AnalysisError, SelectionError


@pytest.fixture(scope="module")
def pair():
    """Two sets of 4 and 6 columns that share two directions, and noise."""
    rng = np.random.default_rng(3)
    shared = rng.normal(size=(400, 2)) * [3.0, 1.0]
    x = shared @ rng.normal(size=(2, 4)) + rng.normal(size=(400, 4)) + 5.0
    y = shared @ rng.normal(size=(2, 6)) + rng.normal(size=(400, 6)) * 0.5 - 2.0
    return x, y


def hsic(x, y):
    """CKA by the Gram matrices of the samples, centred on both sides."""
    n = len(x)
    centre = np.eye(n) - np.ones((n, n)) / n
    k, m = centre @ x @ x.T @ centre, centre @ y @ y.T @ centre
    return np.trace(k @ m) / np.sqrt(np.trace(k @ k) * np.trace(m @ m))


def canonical(x, y):
    """Canonical correlations, and variables of x, from the textbook's eigenvectors."""
    x, y = x - x.mean(0), y - y.mean(0)
    xx, yy, xy = x.T @ x, y.T @ y, x.T @ y
    values, vectors = np.linalg.eig(np.linalg.solve(xx, xy) @ np.linalg.solve(yy, xy.T))
    order = np.argsort(-values.real)
    variables = x @ vectors.real[:, order]
    return np.sqrt(values.real[order]), variables / np.linalg.norm(variables, axis=0)


def test_cka_agrees_with_gram_matrices(pair):
    x, y = pair
    ours = cka(x, y)
    assert ours == pytest.approx(hsic(x, y))
    assert ours == pytest.approx(cka(y, x))
    with mutations.must_be_noticed("columns not centred"):
        uncentred = np.linalg.norm(y.T @ x) ** 2
        uncentred /= np.linalg.norm(x.T @ x) * np.linalg.norm(y.T @ y)
        assert ours == pytest.approx(uncentred)
    with mutations.must_be_noticed("one shifted by a step"):
        assert ours == pytest.approx(hsic(x, np.roll(y, 1, axis=0)))


def test_svcca_agrees_with_the_textbook(pair):
    x, y = pair
    ours = svcca(x, y, explained=1.0)
    rho, _ = canonical(x, y)
    assert ours == pytest.approx(rho.mean())
    with mutations.must_be_noticed("squares of the correlations"):
        assert ours == pytest.approx((rho**2).mean())


def test_svcca_keeps_the_leading_components(pair):
    x, y = pair

    def leading(x, share):
        u, s, _ = np.linalg.svd(x - x.mean(0), full_matrices=False)
        count = next(k for k in range(1, len(s) + 1) if (s[:k] ** 2).sum() >= share * (s**2).sum())
        return (u * s)[:, :count], count

    (a, k), (b, m) = leading(x, 0.9), leading(y, 0.9)
    assert (k, m) != (4, 6)  # some are left out
    rho, _ = canonical(a, b)
    assert svcca(x, y, 0.9) == pytest.approx(rho[: min(k, m)].mean())
    with mutations.must_be_noticed("all components kept"):
        assert svcca(x, y, 0.9) == pytest.approx(svcca(x, y, 1.0))


def test_pwcca_agrees_with_the_textbook(pair):
    x, y = pair
    rho, h = canonical(x, y)
    weights = [sum(abs(h[:, i] @ column) for column in (x - x.mean(0)).T) for i in range(4)]
    ours = pwcca(x, y)
    assert ours == pytest.approx(np.average(rho, weights=weights))
    with mutations.must_be_noticed("without weights"):
        assert ours == pytest.approx(rho.mean())
    with mutations.must_be_noticed("seen from the other side"):
        assert ours == pytest.approx(pwcca(y, x))


@pytest.mark.parametrize("measure", MEASURES)
def test_a_rotation_a_scale_and_a_shift_change_nothing(pair, measure):
    x, y = pair
    q, _ = np.linalg.qr(np.random.default_rng(4).normal(size=(6, 6)))
    same = MEASURES[measure](x, 0.01 * y @ q + 9.0)
    assert same == pytest.approx(MEASURES[measure](x, y))
    assert MEASURES[measure](x, x) == pytest.approx(1.0)
    unrelated = np.random.default_rng(5).normal(size=(400, 6))
    assert MEASURES[measure](x, unrelated) < 0.25


def test_a_linear_map_changes_nothing_for_cca_only(pair):
    x, y = pair
    stretched = y * [1.0, 100.0, 1.0, 1.0, 0.01, 1.0]
    assert svcca(x, stretched, 1.0) == pytest.approx(svcca(x, y, 1.0))
    assert pwcca(x, stretched) == pytest.approx(pwcca(x, y))
    assert abs(cka(x, stretched) - cka(x, y)) > 0.02


def test_too_few_samples_look_alike():
    """What the docstring warns of, as a number."""
    rng = np.random.default_rng(6)
    values = [cka(rng.normal(size=(60, 60)), rng.normal(size=(60, 60))) for _ in range(10)]
    assert np.mean(values) == pytest.approx(0.5, abs=0.05)


def test_units_that_do_not_move_or_repeat_others(pair):
    x, y = pair
    more = np.concatenate([y, y[:, :1], np.full((400, 1), 3.0)], axis=1)
    assert svcca(x, more, 1.0) == pytest.approx(svcca(x, y, 1.0))
    for measure in MEASURES.values():
        assert np.isnan(measure(x, np.ones((400, 3))))


def test_layers_meet_at_the_steps_they_share(make_layer):
    a, b = make_layer("LSTM"), make_layer("GRU", lengths=(20, 41, 35), seed=9)
    x, y = [], []
    for row in range(3):
        for t in range(min(a.length.values[row], b.length.values[row])):
            x.append(a["h"].values[row, t])
            y.append(b["h"].values[row, t])
    expected = cka(np.array(x), np.array(y))
    assert similarity(a, b) == pytest.approx(expected)
    turned = b.isel(time=slice(None, None, -1), batch=[2, 0, 1])
    assert similarity(a, turned) == pytest.approx(expected)
    with mutations.must_be_noticed("places for labels"):
        relabelled = turned.assign_coords(time=np.arange(41), batch=np.arange(3))
        assert similarity(a, relabelled.drop_vars("length")) == pytest.approx(expected)


def test_the_layers_of_two_traces(make_layer):
    def trace(**layers):
        tree = xr.DataTree.from_dict({f"/{path}": layer for path, layer in layers.items()})
        tree.attrs[schema.SCHEMA_ATTR] = schema.SCHEMA_VERSION
        return tree

    one = make_layer("LSTM", lengths=None)
    two = make_layer("LSTM", lengths=None, seed=10)
    a, b = trace(lower=one, upper=two), trace(only=two)
    found = similarity_matrix(a, b, "svcca")
    assert found.dims == ("layer", "other_layer")
    assert found.sel(layer="upper", other_layer="only").item() == pytest.approx(1.0)
    expected = similarity(one, two, "svcca")
    assert found.sel(layer="lower", other_layer="only").item() == pytest.approx(expected)
    own = similarity_matrix(a)
    assert np.diag(own) == pytest.approx([1.0, 1.0])
    assert own.values == pytest.approx(own.values.T)


def test_errors(make_layer):
    layer = make_layer("LSTM")
    with pytest.raises(SelectionError, match="measure='cca', expected one of cka, svcca, pwcca"):
        similarity(layer, layer, "cca")
    later = layer.assign_coords(time=np.arange(100, 141), length=("batch", [141, 141, 141]))
    with pytest.raises(AnalysisError, match="share 0 steps"):
        similarity(layer, later)
    with pytest.raises(AnalysisError, match="has dimensions"):
        similarity(layer, layer.isel(batch=0, drop=True))
