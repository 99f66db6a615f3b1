"""Distances from a baseline: against plain formulas, and their parts add up."""

import numpy as np
import pytest

import mutations
from everystate.analysis.distances import Mahalanobis, Nearest, Residual, scaling
from everystate.testing import importorskip

importorskip("sklearn")


@pytest.fixture(scope="module")
def data():
    """A correlated baseline of 90 states with 4 columns, and 7 other states."""
    rng = np.random.default_rng(11)
    mix = rng.normal(size=(4, 4)) * [1.0, 3.0, 0.2, 7.0]
    mean = np.array([3.0, -1.0, 0.5, 20.0])
    return rng.normal(size=(90, 4)) @ mix + mean, rng.normal(size=(7, 4)) @ mix * 2 + mean


def ledoit_wolf(z):
    """The covariance shrunk to a multiple of the identity, from the paper's four sums."""
    n, p = z.shape
    s = z.T @ z / n
    mu = np.trace(s) / p
    d2 = ((s - mu * np.eye(p)) ** 2).sum() / p
    b2 = min(d2, sum(((np.outer(row, row) - s) ** 2).sum() / p for row in z) / n**2)
    return b2 / d2 * mu * np.eye(p) + (1 - b2 / d2) * s


def squared(x, baseline, covariance=ledoit_wolf, mean=None):
    mean = baseline.mean(0) if mean is None else mean
    std = baseline.std(0)
    inverse = np.linalg.inv(covariance((baseline - mean) / std))
    z = (x - mean) / std
    return np.array([row @ inverse @ row for row in z])


def test_mahalanobis_agrees_with_its_formula(data):
    baseline, x = data
    ours = Mahalanobis.fit(baseline).parts(x).sum(axis=1)

    def check(expected):
        assert ours == pytest.approx(expected, rel=1e-9)

    check(squared(x, baseline))
    with mutations.must_be_noticed("covariance without shrinkage"):
        check(squared(x, baseline, lambda z: z.T @ z / len(z)))
    with mutations.must_be_noticed("columns taken for independent"):
        check(squared(x, baseline, lambda z: np.eye(4)))
    with mutations.must_be_noticed("covariance for its inverse"):
        check(squared(x, baseline, lambda z: np.linalg.inv(ledoit_wolf(z))))
    with mutations.must_be_noticed("no mean taken off"):
        check(squared(x, baseline, mean=np.zeros(4)))


def test_each_column_has_the_part_of_the_symmetric_root(data):
    baseline, x = data
    parts = Mahalanobis.fit(baseline).parts(x)
    z = (x - baseline.mean(0)) / baseline.std(0)
    inverse = np.linalg.inv(ledoit_wolf((baseline - baseline.mean(0)) / baseline.std(0)))
    # The symmetric root by Denman-Beavers iteration, which needs no eigenvectors.
    root, other = inverse, np.eye(4)
    for _ in range(40):
        root, other = (root + np.linalg.inv(other)) / 2, (other + np.linalg.inv(root)) / 2

    def check(expected):
        assert parts == pytest.approx(expected, rel=1e-6)

    check((z @ root) ** 2)
    with mutations.must_be_noticed("Cholesky's root, which favours the first column"):
        check((z @ np.linalg.cholesky(inverse)) ** 2)


def test_a_single_column_that_moves_gets_the_blame():
    rng = np.random.default_rng(5)
    baseline = rng.normal(size=(400, 6)) * [1, 2, 3, 4, 5, 6]
    x = baseline.mean(0) + np.eye(6)[4] * 40.0
    for distance in (Mahalanobis.fit(baseline), Nearest.fit(baseline)):
        parts = distance.parts(x[None])[0]
        assert parts.argmax() == 4
        assert parts[4] / parts.sum() > 0.7


def test_outliers_in_the_baseline_do_not_hide_others():
    rng = np.random.default_rng(6)
    clean = rng.normal(size=(300, 3))
    dirty = np.concatenate([clean, rng.normal(size=(40, 3)) + np.array([15.0, -15.0, 15.0])])
    x = np.array([[12.0, -12.0, 12.0]])
    plain = Mahalanobis.fit(dirty).parts(x).sum()
    robust = Mahalanobis.fit(dirty, robust=True).parts(x).sum()
    truth = Mahalanobis.fit(clean).parts(x).sum()
    assert plain < 0.1 * truth
    assert 0.5 * truth < robust < 2.0 * truth


def nearest(x, baseline, k):
    std = baseline.std(0)
    found = []
    for row in x:
        squares = sorted((((row - other) / std) ** 2 for other in baseline), key=lambda s: s.sum())
        found.append(sum(squares[:k]) / k)
    return np.array(found)


@pytest.mark.parametrize("k", [1, 3])
def test_nearest_agrees_with_a_plain_search(data, k):
    baseline, x = data
    parts = Nearest.fit(baseline, neighbours=k).parts(x)
    assert parts == pytest.approx(nearest(x, baseline, k), rel=1e-9)
    with mutations.must_be_noticed("one neighbour more"):
        assert parts == pytest.approx(nearest(x, baseline, k + 1), rel=1e-9)
    with mutations.must_be_noticed("the unit of a column doubled"):
        assert parts == pytest.approx(nearest(x, baseline * [1, 2, 1, 1], k), rel=1e-9)


def residual(x, baseline, keep):
    mean, std = baseline.mean(0), baseline.std(0)
    _, _, v = np.linalg.svd((baseline - mean) / std)
    z = (x - mean) / std
    return (z @ v[keep:].T @ v[keep:]) ** 2


def test_residual_agrees_with_the_components_left_out(data):
    baseline, x = data
    variance = np.linalg.svd((baseline - baseline.mean(0)) / baseline.std(0))[1] ** 2
    explained = float(variance[:2].sum() / variance.sum()) - 1e-9  # two components, just
    parts = Residual.fit(baseline, explained=explained).parts(x)
    assert parts == pytest.approx(residual(x, baseline, 2), rel=1e-9)
    with mutations.must_be_noticed("one component more"):
        assert parts == pytest.approx(residual(x, baseline, 3), rel=1e-9)


def test_residual_sees_what_leaves_the_plane_only():
    rng = np.random.default_rng(8)
    plane = rng.normal(size=(2, 5))
    baseline = rng.normal(size=(200, 2)) @ plane
    model = Residual.fit(baseline, explained=0.999)
    far_within = 30.0 * plane[0]
    normal = np.linalg.svd(plane)[2][-1]
    inside, outside = model.parts(np.stack([far_within, normal])).sum(axis=1)
    assert inside < 1e-9 < 1e-3 < outside


def test_a_unit_that_never_moved_is_far_out_when_it_does():
    rng = np.random.default_rng(9)
    baseline = rng.normal(size=(200, 3))
    baseline[:, 1] = 0.7
    mean, std = scaling(baseline)
    assert mean[1] == pytest.approx(0.7)
    assert std[1] == pytest.approx(1e-3 * np.sqrt((baseline.std(0) ** 2).mean()))
    x = np.array([[0.0, 0.7, 0.0], [0.0, 0.8, 0.0], [0.0, 0.7 + 1e-9, 0.0]])
    for model in (Mahalanobis.fit(baseline), Nearest.fit(baseline)):
        still, moved, rounded = model.parts(x).sum(axis=1)
        assert moved > 100 * still
        assert rounded == pytest.approx(still, rel=1e-2)
    assert scaling(np.full((5, 2), 3.0))[1].tolist() == [1.0, 1.0]
