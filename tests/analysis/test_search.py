"""Search: planted stretches are found, in the order of a plain double loop."""

import numpy as np
import pytest
import xarray as xr

import mutations
from everystate.analysis.search import same_units_on, similar_stretches
from everystate.errors import AnalysisError, SelectionError


@pytest.fixture
def layer(make_layer):
    return make_layer("LSTM", lengths=(41, 17, 30)).assign_coords(batch=["a", "b", "c"])


def profile(layer, query, names, scaled=True):
    x = np.concatenate([layer[n].values for n in names], axis=-1)
    q = np.concatenate([query[n].values for n in names], axis=-1)
    std = np.nanstd(x.reshape(-1, x.shape[-1]), axis=0) if scaled else 1.0
    found = {}
    for row in range(x.shape[0]):
        for t in range(x.shape[1] - len(q) + 1):
            off = (x[row, t : t + len(q)] - q) / std
            if np.isfinite(off).all():
                found[row, t] = np.sqrt((off**2).mean())
    return found


def greedy(values, count, apart):
    chosen = []
    for (row, t), value in sorted(values.items(), key=lambda item: item[1]):
        if all(row != r or abs(t - s) >= apart for r, s, _ in chosen):
            chosen.append((row, t, value))
    return chosen[:count]


def check(found, expected, name="distance"):
    assert [(r, s) for r, s, _ in expected] == list(
        zip(["abc".index(r) for r in found["row"].values], found.start.values, strict=True)
    )
    assert found[name].values == pytest.approx([v for *_, v in expected], abs=1e-7)


@pytest.mark.parametrize("names", ["hc", "f"])
def test_similar_stretches_agree_with_a_double_loop(layer, names):
    query = layer.isel(batch=2, time=slice(4, 11))
    found = similar_stretches(layer, query, tuple(names), count=6)
    check(found, greedy(profile(layer, query, names), 6, apart=4))
    assert (found["row"].values[0], found.start.values[0], found.stop.values[0]) == ("c", 4, 10)
    with mutations.must_be_noticed("query one step late"):
        late = layer.isel(batch=2, time=slice(5, 12))
        check(found, greedy(profile(layer, late, names), 6, apart=4))
    with mutations.must_be_noticed("columns not scaled"):
        check(found, greedy(profile(layer, query, names, scaled=False), 6, apart=4))
    with mutations.must_be_noticed("overlaps kept"):
        check(found, greedy(profile(layer, query, names), 6, apart=1))


def test_a_query_of_another_trace(layer, make_layer):
    other = make_layer("LSTM", lengths=None, seed=30)
    query = other.isel(batch=1, time=slice(20, 25))
    planted = layer.copy(deep=True)
    for name in ("h", "c"):
        planted[name][0, 30:35] = query[name].values + 0.001
    found = similar_stretches(planted, query, count=1)
    assert (found["row"].item(), found.start.item()) == ("a", 30)
    assert found.distance.item() < 0.01


def test_unrelated_states_are_about_the_root_of_two_away():
    h = np.random.default_rng(18).normal(size=(1, 300, 900))
    layer = xr.Dataset({"h": (("batch", "time", "unit"), h)})
    found = similar_stretches(layer, layer.isel(batch=0, time=[7]), count=300)
    assert found.distance.values[1:] == pytest.approx(np.sqrt(2), abs=0.15)
    assert found.distance.mean() == pytest.approx(np.sqrt(2), abs=0.03)


def test_units_on_agree_with_a_double_loop(layer):
    layer = abs(layer)
    query = layer.isel(batch=0, time=slice(10, 12))
    found = same_units_on(layer, query, "h", threshold=0.8, count=5)
    units = [u for u in range(5) if (query["h"].values[:, u] >= 0.8).all()]
    assert 0 < len(units) < 5
    assert found["unit"].values.tolist() == units

    def missing(units, threshold):
        values = {}
        for row, length in enumerate((41, 17, 30)):
            for t in range(length - 1):
                on = layer["h"].values[row, t : t + 2][:, units] >= threshold
                values[row, t] = 1 - on.mean()
        return sorted(values.values())[0], values

    values = missing(units, 0.8)[1]
    for row, start, missed in zip(
        found["row"].values, found.start.values, found.missing.values, strict=True
    ):
        assert missed == pytest.approx(values["abc".index(row), start])
    assert found.missing.values.tolist() == sorted(found.missing.values.tolist())
    assert found.missing.values[0] == 0.0
    with mutations.must_be_noticed("all units for those that are on"):
        assert found.missing.values[0] == missing(list(range(5)), 0.8)[0]


def test_a_planted_pattern_is_found():
    rng = np.random.default_rng(19)
    h = rng.uniform(-1, 0.2, size=(2, 300, 8))
    for row, start in ((0, 40), (0, 200), (1, 90)):
        h[row, start : start + 6, [2, 5]] = 0.9
    layer = xr.Dataset({"h": (("batch", "time", "unit"), h)})
    found = same_units_on(layer, layer.isel(batch=0, time=slice(40, 46)), count=3)
    places = set(zip(found["row"].values.tolist(), found.start.values.tolist(), strict=True))
    assert places == {(0, 40), (0, 200), (1, 90)}
    assert found["unit"].values.tolist() == [2, 5]


def test_a_layer_without_rows(layer):
    alone = layer.isel(batch=0, drop=True)
    found = similar_stretches(alone, alone.isel(time=slice(3, 9)), count=1)
    assert (found["row"].item(), found.start.item()) == (0, 3)


def test_errors(layer):
    with pytest.raises(SelectionError, match="the query has 3 rows"):
        similar_stretches(layer, layer)
    long = xr.concat([layer.isel(batch=0, drop=True)] * 2, "time")
    with pytest.raises(AnalysisError, match="the query has 82 steps, the layer 41"):
        similar_stretches(layer, long)
    with pytest.raises(AnalysisError, match="the query has 4 columns, the layer 5"):
        similar_stretches(layer, layer.isel(batch=0, time=[3], unit=slice(4)), "h")
    with pytest.raises(AnalysisError, match="not finite"):
        similar_stretches(layer, layer.isel(batch=1, time=slice(15, 20)))
    with pytest.raises(AnalysisError, match="no unit is at 99 or above"):
        same_units_on(layer, layer.isel(batch=0, time=[3]), threshold=99)
