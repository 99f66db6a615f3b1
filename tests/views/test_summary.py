"""The summary: figures of known layers, and how they are written."""

import json
import math

import numpy as np
import pandas as pd
import pytest
import xarray as xr

import everystate as es
import mutations
from everystate.errors import TraceFormatError
from everystate.testing import importorskip
from everystate.views.table import lines_of


def known(make_layer):
    """An LSTM layer whose every figure can be told by hand: 2 rows, 60 steps, 7 units."""
    layer = make_layer("LSTM")
    for name, value in {"i": 0.5, "f": 0.5, "g": 0.0, "o": 0.5, "h": 0.0, "c": 1.0}.items():
        layer[name][:] = value
    layer["f"][..., 0] = 0.99
    layer["f"][..., 1] = 1.0
    layer["o"][:, :15] = 0.05
    layer["o"][:, 15:18] = 0.95
    layer["h"][..., 2:] = np.linspace(-0.5, 0.25, 60)[:, None]
    layer["c"][:] = (2.0 + 0.1 * np.arange(60))[:, None]
    layer["c"][1, 5, 3] = -40.0
    layer["c"][1, 6, 3] = np.inf
    return layer


def test_known_figures(make_layer, make_trace):
    figures = es.summary(make_trace({"enc/lstm": known(make_layer)})).to_dict("index")["enc/lstm"]
    expected = {
        **{"cell": "LSTM", "direction": "forward", "units": 7, "steps": 60, "rows": 2},
        **{"h_min": -0.5, "h_max": 0.25, "c_min": -40.0, "c_max": 7.9},
        **{"o_left": 0.25, "o_right": 0.05, "f_left": 0.0, "f_right": 2 / 7, "g_left": 0.0},
        **{"still_units": 2, "half_life_median": 1.0, "half_life_max": math.inf},
        **{"max_error": 2e-7, "tolerance": 1e-4, "not_finite": 1},
        "origin": "observed: h; replayed: c i f g o",
    }
    for name, value in expected.items():
        found = figures[name]
        assert found == (pytest.approx(value, rel=1e-6) if isinstance(value, float) else value), (
            name
        )


def test_drift_needs_some_length(make_layer, make_trace):
    short = known(make_layer).isel(batch=[0])
    long = short.assign_coords(time=np.arange(60) * 2)  # every=2 of 119 steps
    frame = es.summary(make_trace({"x": long, "y": short}))
    assert frame.filter(like="drift").loc["y"].isna().all()
    plain = frame.loc["x"]
    assert plain["drift_per_step"] == pytest.approx(0.05, rel=1e-6)
    assert plain["drift_relative"] == pytest.approx(0.05 / 4.95, rel=1e-6)
    assert plain["drift_ratio"] == pytest.approx((7.9 - 0.25) / (2.0 + 0.25), rel=1e-6)


def test_columns_come_in_groups_whatever_the_order_of_the_layers(make_layer, make_trace):
    leaves = {"a": make_layer("GRU"), "b": make_layer("LSTM"), "c": make_layer("SimpleRNN")}
    frame = es.summary(make_trace(leaves))
    assert isinstance(frame, pd.DataFrame)
    assert list(frame.index) == ["a", "b", "c"]
    names = list(frame.columns)
    assert names[:9] == [
        *("cell", "direction", "units", "steps", "rows", "h_min", "h_max", "c_min", "c_max")
    ]
    assert names.index("z_left") < names.index("f_left") < names.index("still_units")
    assert names[-4:] == ["max_error", "tolerance", "origin", "not_finite"]
    assert frame["c_min"].isna().tolist() == [True, False, True]
    assert frame["half_life_max"].isna().tolist() == [False, False, True]


@pytest.mark.parametrize("cell", ["LSTM", "GRU", "SimpleRNN"])
def test_poor_layers(make_layer, make_trace, cell, recwarn):
    layer = make_layer(cell)
    poor = {
        "one step": layer.isel(time=[0]),
        "one unit": layer.isel(unit=[3]),
        "only h": layer[["h"]],
        "NaN": xr.full_like(layer, np.nan),
        "strided": layer.isel(time=slice(None, None, 10)),
    }
    frame = es.summary(make_trace(poor))
    assert frame["not_finite"].tolist() == [0, 0, 0, layer.h.size * len(layer.data_vars), 0]
    assert repr(frame)
    assert not recwarn.list


def test_the_projected_state_has_units_of_its_own(make_layer, make_trace):
    layer = make_layer("LSTM")
    h = layer["h"].isel(unit=slice(3)).rename(unit="projected_unit")
    frame = es.summary(make_trace({"lstm": layer.drop_vars("h").assign(h=h)}))
    assert frame.loc["lstm", ["units", "still_units"]].tolist() == [7, 0]


def test_custom_states_are_summarised(make_layer, make_trace):
    layer = make_layer("SimpleRNN").rename(h="state_0")
    del layer.attrs["cell"]
    frame = es.summary(make_trace({"own": layer}))
    assert frame.loc["own", "state_0_max"] == pytest.approx(layer["state_0"].max().item())
    assert frame.loc["own", "cell"] is None


def test_it_prints_as_a_table_for_people(make_layer, make_trace):
    frame = es.summary(make_trace({"enc/lstm": known(make_layer), "dec": make_layer("GRU")}))
    lines = {" ".join(line.split()) for line in repr(frame).splitlines()}
    assert "range of cell state c -40 to 7.9" in lines
    assert any(line.startswith("output gate o saturated 25.0% / 5.0%") for line in lines)
    assert any(line.endswith("endless") for line in lines if line.startswith("half-life, longest"))
    html = frame._repr_html_()
    assert "range of cell state c" in html
    with mutations.must_be_noticed("another table"):
        assert "range of cell state c" in frame.drop(columns="c_min")._repr_html_()


def test_a_selection_of_it_is_a_plain_table(make_layer, make_trace):
    frame = es.summary(make_trace({"dec": make_layer("GRU")}))
    assert frame[["units", "steps"]].to_string().split() == [
        "units",
        "steps",
        "layer",
        "dec",
        "7",
        "60",
    ]
    assert [line.title for line in lines_of(frame[["cell", "steps"]])] == ["cell", "steps"]


def test_it_can_be_json(make_layer, make_trace):
    frame = es.summary(make_trace({"dec": make_layer("GRU")}))
    assert json.loads(frame.to_json(orient="index"))["dec"]["steps"] == 60


@pytest.mark.parametrize("thing", ["run.zarr", 3, xr.Dataset(), xr.DataTree()])
def test_something_else_is_refused(thing):
    with pytest.raises(TraceFormatError, match=r"es\.record"):
        es.summary(thing)


def test_a_chunked_trace_has_the_same_figures(make_layer, make_trace):
    importorskip("dask")
    trace = make_trace({"enc": make_layer("LSTM", steps=300), "dec": make_layer("GRU", steps=300)})
    whole, chunked = es.summary(trace), es.summary(trace.chunk({"time": 70}))
    for column in whole.columns:
        for ours, theirs in zip(whole[column], chunked[column], strict=True):
            if isinstance(ours, float):
                assert ours == pytest.approx(theirs, rel=1e-5, nan_ok=True), column
            else:
                assert ours == theirs, column
    with mutations.must_be_noticed("a chunk lost"):
        lost = es.summary(trace.chunk({"time": 70}).isel(time=slice(70, None)))
        assert lost["c_max"].tolist() == whole["c_max"].tolist()
