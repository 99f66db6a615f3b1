"""A selection as a file comes back as it was."""

import io

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from everystate.testing import importorskip
from everystate.views.explorer.export import FORMATS, file_of

importorskip("scipy")


@pytest.fixture(scope="module")
def selected(make_layer):
    hours = np.datetime64("2026-03-01", "ns") + np.arange(60) * np.timedelta64(1, "h")
    layer = make_layer("LSTM", time=hours, features=2).isel(batch=1)
    layer["initial_h"] = ("unit", np.arange(7.0))
    return layer.isel(time=slice(10, 20), unit=[2, 5])


def test_a_table_has_a_column_for_each_unit(selected):
    table = pd.read_csv(file_of(selected, "CSV"), index_col="time", parse_dates=True)
    assert list(table.columns)[:3] == ["h[2]", "h[5]", "c[2]"]
    np.testing.assert_allclose(table["c[5]"], selected.c.values[:, 1], rtol=1e-6)
    assert (table.index.values == selected.time.values).all()


def test_netcdf_comes_back(selected, tmp_path):
    path = tmp_path / "selection.nc"
    path.write_bytes(file_of(selected, "NetCDF").read())
    with xr.open_dataset(path, engine="scipy") as back:
        np.testing.assert_array_equal(back.c.values, selected.c.values)
        assert back.attrs["cell"] == "LSTM"
        assert (back.time.values == selected.time.values).all()


def test_zarr_comes_back(selected, tmp_path):
    from zarr.storage import ZipStore

    path = tmp_path / "selection.zarr.zip"
    path.write_bytes(file_of(selected, "Zarr").read())
    with ZipStore(path, mode="r") as store:
        back = xr.open_zarr(store, consolidated=False).load()
    xr.testing.assert_identical(back, selected)


def test_half_precision_is_widened_for_netcdf(selected):
    half = selected.assign(h=selected.h.astype(np.float16))
    assert file_of(half, "NetCDF").read()
    assert set(FORMATS) == {"CSV", "NetCDF", "Zarr"}
    assert isinstance(file_of(half, "CSV"), io.BytesIO)
