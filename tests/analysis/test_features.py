"""Columns: which value stands where, and what is left out."""

import numpy as np
import pytest
import xarray as xr

import mutations
from everystate.analysis.features import features, rows_of, within
from everystate.errors import AnalysisError, SelectionError
from everystate.testing import importorskip


def check(table, layer, names):
    column = 0
    for name in names:
        for unit in range(layer[name].shape[-1]):
            assert table["variable"].values[column] == name
            assert table["unit"].values[column] == layer.unit.values[unit]
            expected = layer[name].values[..., unit]
            assert np.array_equal(table.values[..., column], expected, equal_nan=True)
            column += 1
    assert table.sizes["column"] == column


@pytest.mark.parametrize(
    ("cell", "asked", "names"),
    [
        ("LSTM", "states", "hc"),
        ("LSTM", "gates", "ifgo"),
        ("LSTM", ("f", "states"), "fhc"),
        ("GRU", ("h", "gates", "h"), "hrzn"),
        ("SimpleRNN", "h", "h"),
        ("MyCell", "states", "h"),
    ],
)
def test_every_column_is_a_unit_of_a_variable(make_layer, cell, asked, names):
    layer = make_layer("SimpleRNN" if cell == "MyCell" else cell)
    layer = layer.assign_attrs(cell=cell).assign_coords(unit=[3, 5, 7, 11, 13])
    table = features(layer, asked)
    check(table, layer, names)
    with mutations.must_be_noticed("units backwards"):
        check(table, layer.isel(unit=slice(None, None, -1)), names)
    if len(names) > 1:
        with mutations.must_be_noticed("variables swapped"):
            check(table, layer, names[::-1])


def test_a_projected_h_beside_c(make_layer):
    layer = make_layer("LSTM")
    h = layer["h"].isel(unit=slice(3)).rename(unit="projected_unit")
    h = h.assign_coords(projected_unit=[0, 1, 2])
    table = features(layer.drop_vars("h").assign(h=h), ("h", "c"))
    assert table["unit"].values.tolist() == [0, 1, 2, 0, 1, 2, 3, 4]
    assert np.array_equal(table.values[..., :3], h.values, equal_nan=True)


def test_a_state_of_several_dimensions_is_laid_flat():
    values = np.arange(2 * 7 * 3 * 4.0).reshape(2, 7, 3, 4)
    state = xr.DataArray(values, dims=("batch", "time", "memory_slot", "unit"))
    table = features(xr.Dataset({"state_0": state}))
    assert np.array_equal(table.values, values.reshape(2, 7, 12))
    assert table["unit"].values.tolist() == list(range(12))


def test_a_layer_without_rows(make_layer):
    layer = make_layer("GRU", lengths=None)
    alone = features(layer.isel(batch=1, drop=True))
    assert alone.dims == ("time", "column")
    assert np.array_equal(alone.values, features(layer).values[1])
    assert len(rows_of(alone)) == 41


def test_what_was_not_recorded_is_named(make_layer):
    with pytest.raises(SelectionError, match=r"asked for \('h', 'f'\), but the layer holds"):
        features(make_layer("GRU"), ("h", "f"))
    with pytest.raises(SelectionError, match="asked for 'gates'"):
        features(make_layer("SimpleRNN"), "gates")


def test_steps_within_their_rows(make_layer):
    layer = make_layer("LSTM", lengths=(41, 17, 30))
    assert within(layer).sum("time").values.tolist() == [41, 17, 30]
    strided = layer.isel(time=slice(None, None, 10))  # steps 0, 10, 20, 30, 40
    assert within(strided).sum("time").values.tolist() == [5, 2, 3]
    assert within(make_layer("LSTM", lengths=None)).all()


def test_rows_keep_finite_steps_only(make_layer):
    layer = make_layer("LSTM", lengths=(41, 17, 30))
    layer["c"][0, 3, 2] = np.inf
    rows = rows_of(features(layer))
    assert rows.shape == (41 + 17 + 30 - 1, 10)
    assert np.array_equal(rows[3], features(layer).values[0, 4])
    with pytest.raises(AnalysisError, match="0 steps have finite values only"):
        rows_of(features(layer) * np.nan)


def test_lazy_on_dask(make_layer):
    importorskip("dask")
    layer = make_layer("LSTM")
    table = features(layer.chunk({"time": 10}))
    assert table.chunks is not None
    assert table.chunksizes["column"] == (10,)
    assert table.equals(features(layer))
