"""Traces made by hand, of all-different sizes, and blocks small enough to have many."""

from collections.abc import Callable

import numpy as np
import pytest
import xarray as xr

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


@pytest.fixture
def trace() -> xr.DataTree:
    """Two layers of different sizes, dtypes and lengths; one ragged; named out of order."""
    tagger = leaf(3, 1000, 7, "float32", "hcifgo", seed=1)
    encoder = leaf(2, 83, 5, "float16", "hz", seed=2)
    lengths = np.array([61, 83])
    encoder["h"] = encoder.h.where(encoder.time < xr.DataArray(lengths, dims="batch"))
    encoder["h"] = encoder.h.astype("float16").assign_attrs(origin="replayed")
    encoder = encoder.assign_coords(length=("batch", lengths, {"long_name": "valid steps"}))
    start = np.datetime64("2021-03-04T05:06:07", "s")
    tagger = tagger.assign_coords(time=start + np.arange(1000))
    encoder = encoder.assign_coords(batch=np.array(["ann", "é"]))
    root = xr.Dataset(attrs={"everystate_schema": 1, "complete": 1, "model": "Net"})
    return xr.DataTree.from_dict({"/": root, "/tagger": tagger, "/encoder/lstm/backward": encoder})


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks of 32 steps for /tagger, in chunks of 16, and of 128 (all steps) for the other."""
    monkeypatch.setattr(layout, "SHARD_BYTES", 4 * 3 * 7 * 32)
    monkeypatch.setattr(layout, "CHUNK_BYTES", 4 * 3 * 7 * 16)


@pytest.fixture
def make_leaf() -> Callable[..., xr.Dataset]:
    return leaf
