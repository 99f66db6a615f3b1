"""What a report draws, as data."""

import numpy as np
import pytest
import xarray as xr

import mutations
from everystate.errors import InputError, SelectionError
from everystate.views.prepare import BYTES, COLUMNS, columns_for, input_layer, prepare, row_of


def test_a_short_layer_is_kept_whole(make_layer):
    layer = row_of(make_layer("LSTM", features=2))
    ready = prepare(layer)
    for name in layer.data_vars:
        np.testing.assert_array_equal(ready[name].values, layer[name].values.T)
        assert ready[name].attrs == layer[name].attrs
    assert ready.attrs["bucket_size"] == 1
    assert ready.attrs["cell"] == "LSTM"
    assert ready["first"].values.tolist() == ready["last"].values.tolist() == list(range(60))
    roles = dict(zip(ready["variable"].values, ready["role"].values, strict=True))
    assert roles == dict.fromkeys("hc", "state") | dict.fromkeys("ifgo", "gate") | {
        "inputs": "input"
    }


def test_a_long_layer_keeps_its_extremes_and_says_how_many_steps_they_stand_for(make_layer):
    layer = row_of(make_layer("GRU", steps=617))
    layer["h"][411, 5] = 9.0
    ready = prepare(layer, columns=100)
    assert ready.attrs["bucket_size"] == 13
    assert dict(ready.sizes) == {
        **{"unit": 7, "column": 96, "bucket": 48, "variable": 4, "part": 3}
    }
    bucket = 411 // 13
    assert (ready["first"][bucket], ready["last"][bucket]) == (403, 415)
    assert ready["last"].values[-1] == 616
    assert 9.0 in ready["h"].sel(unit=5).values[2 * bucket : 2 * bucket + 2]
    with mutations.must_be_noticed("the bucket before it"):
        assert 9.0 in ready["h"].sel(unit=5).values[2 * bucket - 2 : 2 * bucket]
    mean = ready["over_units"].sel(variable="h", part="mean", bucket=bucket).item()
    assert mean == pytest.approx(layer["h"].values[403:416].mean(), rel=1e-5)


def test_projected_units_keep_their_own_dimension(make_layer):
    layer = row_of(make_layer("LSTM"))
    h = layer["h"].isel(unit=slice(3)).rename(unit="projected_unit")
    ready = prepare(layer.drop_vars("h").assign(h=h))
    assert ready["h"].dims == ("projected_unit", "column")
    assert ready["c"].dims == ("unit", "column")


def test_rows_go_by_their_label(make_layer):
    layer = make_layer("GRU", rows=3, batch=["a", "b", "c"])
    np.testing.assert_array_equal(row_of(layer).h, layer.h[0])
    np.testing.assert_array_equal(row_of(layer, "c").h, layer.h[2])
    assert "batch" not in row_of(layer, "c").dims
    assert row_of(layer.isel(batch=0)).sizes["time"] == 60
    with pytest.raises(SelectionError, match=r"row='d' is not in the trace; there are 'a', 'b'"):
        row_of(layer, "d")


def test_a_page_stays_within_its_weight(make_layer):
    def layer(units):
        values = np.broadcast_to(np.float32(0), (100_000, units))
        return xr.Dataset(
            dict.fromkeys("hcifgo", (("time", "unit"), values)), attrs={"cell": "LSTM"}
        )

    assert columns_for([layer(16)]) == COLUMNS[1]
    assert columns_for([layer(512)]) == COLUMNS[1]
    several = [layer(512)] * 4
    columns = columns_for(several)
    assert COLUMNS[0] < columns < COLUMNS[1]
    assert columns % 2 == 0
    assert 4 * 512 * 6 * columns * 4 <= BYTES
    assert columns_for([layer(8192)] * 9) == COLUMNS[0]


TIME = xr.DataArray(np.arange(5) * 10, dims="time")


@pytest.mark.parametrize("shape", [(5,), (5, 3)])
def test_a_series_takes_the_recorded_steps(shape):
    values = np.random.default_rng(1).normal(size=shape)
    layer = input_layer(values, TIME)
    np.testing.assert_array_equal(layer["inputs"].values, values.reshape(5, -1))
    assert layer["time"].values.tolist() == TIME.values.tolist()


def test_a_labelled_series_brings_its_own_steps_and_name():
    series = xr.DataArray(np.eye(4), {"time": [1, 2, 3, 4], "lead": list("abcd")}, ("lead", "time"))
    layer = input_layer(series.rename("pressure"), TIME)
    assert layer["inputs"].dims == ("time", "feature")
    assert layer["feature"].values.tolist() == list("abcd")
    assert layer["inputs"].attrs["long_name"] == "pressure"
    assert layer["time"].values.tolist() == [1, 2, 3, 4]


@pytest.mark.parametrize(
    ("series", "message"),
    [
        (np.zeros(4), r"shape \(4,\), but 5 steps were recorded"),
        (np.zeros((5, 2, 2)), r"shape \(5, 2, 2\)"),
        (np.array(list("abcde")), "dtype <U1; expected numbers"),
        (xr.DataArray(np.zeros((5, 2)), dims=("x", "y")), r"dimensions \('x', 'y'\)"),
    ],
)
def test_a_series_that_does_not_fit_is_refused(series, message):
    with pytest.raises(InputError, match=message):
        input_layer(series, TIME)
