"""Metadata written by hand: word for word what Zarr itself writes."""

import json
from dataclasses import replace

import numpy as np
import pytest
import xarray as xr
import zarr

from everystate.storage import metadata
from everystate.storage.layout import Grid
from everystate.storage.writer import CODECS


def by_hand(folder, path: str, variable: xr.Variable, cut: Grid) -> None:
    codec = replace(CODECS[0], typesize=variable.dtype.itemsize)
    metadata.save(folder, path, metadata.array(variable, cut, codec.to_dict()))


def by_zarr(folder, path: str, variable: xr.Variable, cut: Grid) -> None:
    zarr.create_array(
        str(folder),
        name=path,
        shape=variable.shape,
        dtype=variable.dtype,
        chunks=cut.chunks,
        shards=cut.shards if cut.shards != cut.chunks else None,
        compressors=CODECS,
        fill_value=np.nan if variable.dtype.kind == "f" else 0,
        dimension_names=[str(dim) for dim in variable.dims],
        attributes=dict(variable.attrs),
    )


@pytest.mark.parametrize("cut", [Grid((1, 4, 5), (1, 4, 5)), Grid((2, 4, 5), (2, 16, 5))])
@pytest.mark.parametrize("dtype", ["f2", "f4", "f8", ">f4", "i1", "i8", "u2", "?", "c8", "c16"])
def test_an_array(dtype, cut, tmp_path):
    values = np.random.default_rng(1).normal(size=(2, 29, 5)).astype(dtype)
    variable = xr.Variable(("batch", "time", "unit"), values, {"long_name": "é", "origin": "x"})
    for name, make in (("hand", by_hand), ("zarr", by_zarr)):
        make(tmp_path / name, "a/b/h", variable, cut)
    assert metadata.load(tmp_path / "hand", "a/b/h") == metadata.load(tmp_path / "zarr", "a/b/h")
    assert metadata.load(tmp_path / "hand", "a/b") == metadata.group({})
    array = zarr.open_array(str(tmp_path / "hand"), path="a/b/h")
    array[...] = values
    np.testing.assert_array_equal(array[...], values)
    array.resize((2, 31, 5))
    nothing = array[:, 29:]
    assert np.isnan(nothing).all() if values.dtype.kind == "f" else not nothing.any()


def test_gathered_metadata(tmp_path):
    variable = xr.Variable(("time", "unit"), np.zeros((7, 3), "f4"), {"units": "1"})
    metadata.save(tmp_path, "/", metadata.group({"complete": 0, "steps": np.int64(7)}))
    metadata.save(tmp_path, "/enc/lstm", metadata.group({"cell": "LSTM", "error": np.float32(0.5)}))
    for path in ("enc/lstm/h", "enc/lstm/c", "gru/h"):
        by_hand(tmp_path, path, variable, Grid((4, 3), (4, 3)))
    metadata.update(tmp_path, "/", {"complete": 1, "sizes": np.array([7, 3])})
    metadata.consolidate(tmp_path)
    ours = json.loads((tmp_path / "zarr.json").read_text())
    assert ours["attributes"] == {"complete": 1, "steps": 7, "sizes": [7, 3]}
    group = zarr.open_consolidated(str(tmp_path))
    assert sorted(group["enc/lstm"].array_keys()) == ["c", "h"]
    assert group["enc/lstm"].attrs["error"] == 0.5
    with pytest.warns(UserWarning, match="Consolidated metadata"):
        zarr.consolidate_metadata(str(tmp_path), zarr_format=3)
    assert json.loads((tmp_path / "zarr.json").read_text()) == ours


def test_an_attribute_that_json_does_not_know(tmp_path):
    with pytest.raises(TypeError, match="an attribute is a complex"):
        metadata.save(tmp_path, "/", metadata.group({"z": 1j}))
    assert not (tmp_path / "zarr.json").exists()
