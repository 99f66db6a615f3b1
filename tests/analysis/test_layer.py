"""Which layers, variables and values an analysis sees."""

from functools import partial

import numpy as np
import pytest
import xarray as xr

import mutations
from everystate.analysis import layer as module
from everystate.analysis.autocorrelation import decorrelation
from everystate.analysis.drift import drift
from everystate.analysis.flatness import flatness
from everystate.analysis.growth import growth
from everystate.analysis.layer import (
    by_unit,
    dataset_of,
    gates,
    layers,
    not_finite,
    sampled,
    states,
    steps,
)
from everystate.analysis.memory import half_life
from everystate.analysis.movement import movement
from everystate.analysis.openness import openness
from everystate.analysis.redundancy import correlation, redundancy
from everystate.analysis.saturation import saturation
from everystate.analysis.spread import spread
from everystate.analysis.stuck import stuck
from everystate.errors import TraceFormatError
from everystate.testing import importorskip

PLAIN = (half_life, movement, not_finite, saturation, spread, openness, stuck, flatness)
ANALYSES = {f.__name__: f for f in (*PLAIN, decorrelation, correlation)}
ANALYSES["drift"] = partial(drift, shortest=2)  # the layers here have 41 steps
ANALYSES["growth"] = partial(growth, trained_on=7, shortest=2)
ANALYSES["redundancy"] = redundancy


def trace_of(**leaves):
    root = xr.Dataset(attrs={"everystate_schema": 1})
    return xr.DataTree.from_dict({"/": root, **{f"/enc/{k}": v for k, v in leaves.items()}})


def test_layers_are_the_recorded_leaves(make_layer):
    trace = trace_of(a=make_layer("LSTM"), b=make_layer("GRU"))
    assert list(layers(trace)) == ["enc/a", "enc/b"]
    assert list(layers(trace["enc/b"])) == ["enc/b"]
    assert layers(trace)["enc/b"].attrs["cell"] == "GRU"


@pytest.mark.parametrize(
    ("thing", "message"),
    [
        ("run.zarr", r"got str.*Open the file first: es.open_trace\('run.zarr'\)"),
        (xr.Dataset(), "got Dataset.*a node of its trace"),
        (None, "got NoneType, expected the trace that es.record or es.open_trace returns"),
        (xr.DataTree(), "lacks the attribute 'everystate_schema'"),
        (trace_of(), "holds no recorded layer"),
        (xr.DataTree(xr.Dataset(attrs={"everystate_schema": 2})), "schema 2, .* reads up to 1"),
        (xr.DataTree(xr.Dataset(attrs={"everystate_schema": "x"})), "schema 'x'"),
    ],
)
def test_something_else_is_refused(thing, message):
    with pytest.raises(TraceFormatError, match=message):
        layers(thing)


def test_an_analysis_refuses_what_is_no_layer():
    with pytest.raises(TraceFormatError, match=r"got ndarray, expected one layer of a trace"):
        half_life(np.zeros(3))


def test_states_and_gates_are_told_apart(make_layer):
    assert gates(make_layer("LSTM")) == ["i", "f", "g", "o"]
    assert states(make_layer("LSTM")) == ["h", "c"]
    assert gates(make_layer("GRU")) == ["r", "z", "n"]
    custom = make_layer("LSTM").assign_attrs(cell="my own")
    assert gates(custom) == []
    assert states(custom) == ["h", "c", "i", "f", "g", "o"]
    inputs = make_layer("GRU").assign(inputs=(("batch", "time", "feature"), np.ones((3, 41, 2))))
    assert states(inputs) == ["h"]


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        ([0, 10, 20], [0, 10, 20]),
        (np.array(["2026-01-01", "2026-01-02", "2026-02-01"], "datetime64[ns]"), [0, 1, 2]),
        (["a", "b", "c"], [0, 1, 2]),
        ([0.5, 1.0, 7.0], [0, 1, 2]),
    ],
)
def test_steps_are_whole_numbered_labels_or_else_counted(labels, expected):
    values = xr.DataArray(np.zeros(3), {"time": labels}, ("time",))
    assert steps(values).values.tolist() == expected


def test_steps_are_told_by_the_trace_where_it_has_labels():
    coords = {"time": [1000, 1010, 1020], "step": ("time", [0, 5, 10])}
    values = xr.DataArray(np.zeros(3), coords, ("time",))
    assert steps(values).values.tolist() == [0, 5, 10]


def test_not_finite_counts_within_the_sequences_only(make_layer):
    layer = make_layer("LSTM", lengths=(41, 17, 30))
    assert not_finite(layer).not_finite.values.tolist() == [0] * 6
    layer["c"][0, 40, 2] = np.inf
    layer["c"][1, 16, 0] = np.nan
    layer["c"][1, 17, 0] = np.nan  # past the end: not counted
    layer["f"][2, 0, :] = -np.inf
    counts = not_finite(layer).not_finite
    assert {v: counts.sel(variable=v).item() for v in "hcfo"} == {"h": 0, "c": 2, "f": 5, "o": 0}


def test_not_finite_knows_which_steps_a_stride_kept(make_layer):
    layer = make_layer("GRU", lengths=(41, 17, 30)).isel(time=slice(None, None, 10))
    assert not_finite(layer).not_finite.sel(variable="h").item() == 0
    layer["h"][1, 1, 3] = np.nan  # step 10 of 17
    assert not_finite(layer).not_finite.sel(variable="h").item() == 1
    # Counted 0, 1, 2, ... the padding would have been taken for lost values.
    named = layer.assign_coords(time=list("abcde"))
    assert not_finite(named).not_finite.sel(variable="h").item() > 1


def test_not_finite_knows_where_it_began(make_layer):
    layer = make_layer("LSTM", lengths=(41, 17, 30))
    assert not_finite(layer)["first"].values.tolist() == [-1] * 6
    layer["c"][1, 9, 2] = np.inf
    layer["c"][0, 12, 0] = np.nan
    layer["c"][1, 20, 0] = np.nan  # past the end
    found = not_finite(layer)["first"]
    assert {v: found.sel(variable=v).item() for v in "hc"} == {"h": -1, "c": 9}


def test_samples_are_spread_over_rows_and_steps(monkeypatch):
    monkeypatch.setattr(module, "SAMPLES", 1000)
    steps = xr.DataArray(np.arange(30 * 400).reshape(30, 400), dims=("batch", "time"))
    few = sampled(steps)
    assert few.size <= 1000
    assert few.size > 900
    for size, dim in ((30, "batch"), (400, "time")):
        chosen = (few.values // 400 if dim == "batch" else few.values % 400).ravel()
        assert (np.diff(np.unique(chosen)) <= 2 * size / few.sizes[dim]).all()  # no gap
    whole = steps.isel(time=slice(33))
    assert sampled(whole) is whole
    many = xr.DataArray(np.zeros((5000, 48)), dims=("batch", "time"))
    assert dict(sampled(many).sizes) == {"batch": 64, "time": 15}
    one = xr.DataArray(np.zeros(5000), dims=("time",))
    assert sampled(one).size == 1000


def test_a_median_of_samples_is_near_that_of_all(make_layer, monkeypatch):
    t = np.arange(6000)
    wave = 0.5 + 0.4 * np.sin(2 * np.pi * t / 100)  # a stride of 6 would see the same phases again
    f = xr.DataArray(wave[None, :, None], dims=("batch", "time", "unit"))
    layer = xr.Dataset({"f": f}, attrs={"cell": "LSTM"})
    whole = half_life(layer).half_life.item()
    monkeypatch.setattr(module, "SAMPLES", 1000)
    assert half_life(layer).half_life.item() == pytest.approx(whole, rel=0.02)
    assert half_life(layer).average.item() == pytest.approx(-np.log(2) / np.log(wave).mean())


def test_every_state_is_taken_apart_into_units():
    values = xr.DataArray(np.arange(24.0).reshape(2, 3, 2, 2), dims=("a", "time", "b", "batch"))
    found = by_unit(values)
    assert found.dims == ("time", "batch", "unit")
    assert found.sizes["unit"] == 4
    assert found.isel(time=1, batch=0).values.tolist() == [4.0, 6.0, 16.0, 18.0]
    alone = xr.DataArray(np.zeros((3, 2)), dims=("time", "batch"))
    assert by_unit(alone).shape == (3, 2, 1)
    turned = xr.DataArray(
        np.zeros((5, 3)), {"projected_unit": list("abcde")}, ("projected_unit", "time")
    )
    assert by_unit(turned).dims == ("time", "projected_unit")


@pytest.mark.parametrize("name", ANALYSES)
@pytest.mark.parametrize("cell", ["LSTM", "GRU", "SimpleRNN"])
def test_every_analysis_takes_poor_layers(make_layer, name, cell, recwarn):
    analysis, layer = ANALYSES[name], make_layer(cell)
    poor = {
        "whole": layer,
        "one step": layer.isel(time=[0]),
        "one unit": layer.isel(unit=[2]),
        "one row": layer.isel(batch=1),
        "only h": layer[["h"]],
        "all NaN": layer * np.nan,
        "all infinite": layer * np.inf,
        "nothing": xr.Dataset(),
        "no step": layer.isel(time=slice(0, 0)),
    }
    for data in poor.values():
        analysis(data.assign_attrs(layer.attrs))
    assert [str(w.message) for w in recwarn] == []


@pytest.mark.parametrize("name", ANALYSES)
def test_every_analysis_maps_over_a_trace(make_layer, name):
    trace = trace_of(a=make_layer("LSTM"), b=make_layer("SimpleRNN"))
    mapped = trace.map_over_datasets(ANALYSES[name])
    alone = ANALYSES[name](trace["enc/a"])
    assert alone.data_vars
    xr.testing.assert_equal(mapped["enc/a"].to_dataset()[list(alone.data_vars)], alone)


@pytest.mark.parametrize("name", ANALYSES)
def test_every_analysis_refuses_a_node_that_holds_layers(make_layer, name):
    trace = trace_of(a=make_layer("LSTM"), b=make_layer("SimpleRNN"))
    for node, path in ((trace, "enc/a"), (trace["enc"], "a")):
        with pytest.raises(TraceFormatError, match=rf"holds 2 layers, .*: trace\['{path}'\]"):
            ANALYSES[name](node)


@pytest.mark.parametrize("name", ANALYSES)
def test_every_analysis_is_lazy_on_dask(make_layer, name):
    importorskip("dask")
    layer = make_layer("LSTM")
    lazy = ANALYSES[name](layer.chunk({"batch": 2, "time": 10, "unit": 3}))
    assert all(values.chunks is not None for values in lazy.data_vars.values())
    xr.testing.assert_allclose(lazy.compute(), ANALYSES[name](layer), rtol=1e-12, atol=1e-12)
    changed = layer.assign({v: layer[v] * 0.3 for v in layer.data_vars})
    for values in changed.data_vars.values():
        values[..., 0] = 0.0
    changed["h"][0, 3, 1] = np.inf
    with mutations.must_be_noticed("other values"):
        xr.testing.assert_allclose(lazy.compute(), ANALYSES[name](changed), rtol=1e-12)


def test_a_layer_is_a_node_or_its_dataset(make_layer):
    trace = trace_of(a=make_layer("LSTM"))
    xr.testing.assert_identical(dataset_of(trace["enc/a"]), dataset_of(layers(trace)["enc/a"]))
