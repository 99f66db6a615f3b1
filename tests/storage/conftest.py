"""Traces made by hand, of all-different sizes, and blocks small enough to have many."""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

import everystate as es
from everystate.storage import layout


def leaf(batch: int, steps: int, units: int, dtype: str, variables: str, seed: int) -> xr.Dataset:
    """A layer's dataset as `everystate.record` makes it: time-major in memory, seen batch-major."""
    rng = np.random.default_rng(seed)
    dims, data = ("batch", "time", "unit"), {}
    for name in variables:
        values = rng.normal(size=(steps, batch, units)).astype(dtype)
        data[name] = (dims, np.swapaxes(values, 0, 1), {"long_name": name, "origin": "observed"})
    first = rng.normal(size=(batch, units)).astype(dtype)
    data["initial_h"] = (("batch", "unit"), first, {"units": "1"})
    coords = {"time": np.arange(steps), "batch": np.arange(batch), "unit": np.arange(units)}
    return xr.Dataset(data, coords, {"cell": "LSTM", "direction": "forward"})


def two_layers() -> xr.DataTree:
    tagger = leaf(3, 300, 7, "float32", "hcifgo", seed=1)
    encoder = leaf(2, 83, 5, "float16", "hz", seed=2)
    lengths = np.array([61, 83])
    encoder["h"] = encoder.h.where(encoder.time < xr.DataArray(lengths, dims="batch"))
    encoder["h"] = encoder.h.astype("float16").assign_attrs(origin="replayed")
    encoder = encoder.assign_coords(length=("batch", lengths, {"long_name": "valid steps"}))
    start = np.datetime64("2021-03-04T05:06:07", "s")
    tagger = tagger.assign_coords(time=start + np.arange(300))
    encoder = encoder.assign_coords(batch=np.array(["ann", "é"]))
    root = xr.Dataset(attrs={"everystate_schema": 1, "complete": 1, "model": "Net"})
    return xr.DataTree.from_dict({"/": root, "/tagger": tagger, "/encoder/lstm/backward": encoder})


def cut_small(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(layout, "SHARD_BYTES", 4 * 3 * 7 * 32)
    patch.setattr(layout, "CHUNK_BYTES", 4 * 3 * 7 * 16)


@pytest.fixture
def trace() -> xr.DataTree:
    """Two layers of different sizes, dtypes and lengths; one ragged; named out of order."""
    return two_layers()


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks of 32 steps for /tagger, in chunks of 16, and of 128 (all steps) for the other."""
    cut_small(monkeypatch)


@pytest.fixture(scope="session")
def saved_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        cut_small(patch)
        return es.save_trace(two_layers(), tmp_path_factory.mktemp("saved") / "run.zarr")


@pytest.fixture
def saved(saved_once: Path, tmp_path: Path) -> Path:
    """Where `trace` was saved in small blocks."""
    return Path(shutil.copytree(saved_once, tmp_path / "run.zarr"))


@pytest.fixture
def make_leaf() -> Callable[..., xr.Dataset]:
    return leaf
