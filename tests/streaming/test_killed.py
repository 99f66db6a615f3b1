"""A recording killed at any moment keeps its complete chunks, and resumed gives the same trace."""

import os
import random
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import everystate as es
from everystate.errors import (
    CorruptTraceError,
    IncompleteTraceError,
    TraceNotFoundError,
    TraceWriteError,
)
from everystate.testing import importorskip
from streaming.killing import (
    KILLED,
    Recording,
    assert_beginning,
    assert_same_reductions,
    assert_whole,
)

importorskip("torch")
STEPS = 900


@pytest.fixture(scope="module")
def recording(tmp_path_factory) -> Iterator[Recording]:
    if not hasattr(os, "fork"):
        pytest.skip("needs os.fork")
    recording = Recording(tmp_path_factory.mktemp("killed"), STEPS)
    yield recording
    recording.close()


@pytest.fixture(scope="module")
def whole(recording):
    assert recording.run(recording.folder / "whole.zarr") == 0
    return es.open_trace(recording.folder / "whole.zarr").load()


def test_killed_before_a_rename_again_and_again(recording, whole, tmp_path):
    chance, path, reached = random.Random(3), tmp_path / "run.zarr", []
    for _ in range(8):
        if recording.run(path, rename=chance.randrange(60, 170)) != KILLED:
            break
        reached.append(assert_beginning(path, whole))
    else:
        assert recording.run(path) == 0
    assert reached == sorted(reached)
    assert len({steps for steps in reached if steps > 0}) > 1
    assert_whole(path, whole)


@pytest.mark.parametrize("full", [True, False], ids=["beside the trace", "in its place"])
def test_killed_with_reducers_again_and_again(recording, whole, full, tmp_path):
    way = {"reduce": True, "full": full, "select": {"variables": ["c", "f"]}}
    whole, path, reached = whole.map_over_datasets(c_and_f), tmp_path / "run.zarr", []
    assert recording.run(tmp_path / "whole.zarr", **way) == 0
    figures, chance = es.open_reductions(tmp_path / "whole.zarr"), random.Random(5)
    assert_as_from_the_trace(figures, whole)
    renames = recording.renames
    for _ in range(5):
        early = chance.randrange(renames // 20, renames // 4)
        if recording.run(path, rename=early, **way) != KILLED:
            break
        reached.append(assert_beginning(path, whole))
        with pytest.raises((IncompleteTraceError, TraceNotFoundError)):
            es.open_reductions(path)
    assert recording.run(path, **way) == 0
    assert reached == sorted(reached)
    assert_same_reductions(path, figures)
    if full:
        assert_whole(path, whole)


def c_and_f(layer):
    return layer.drop_vars(["h", "i", "g", "o"], errors="ignore")


def assert_as_from_the_trace(figures, whole):
    """Compare with the definitions, in float64, of the trace that was recorded without them."""
    for leaf in whole.leaves:
        for name in "cf":
            x = np.moveaxis(leaf[name].values.astype(np.float64), 1, 0)  # (time, batch, unit)
            found, flat = figures[f"{leaf.path}/{name}"], x.reshape(-1, x.shape[2])
            mean = flat.mean(axis=0)
            np.testing.assert_allclose(found["moments"]["mean"], mean, atol=1e-12)
            np.testing.assert_allclose(found["moments"]["std"], flat.std(axis=0), atol=1e-12)
            cov = np.cov(flat.T, bias=True)
            np.testing.assert_allclose(found["covariance"]["covariance"], cov, atol=1e-12)
            np.testing.assert_array_equal(found["range"]["max"], flat.max(axis=0))
            d = x - mean
            r = (d[:-130] * d[130:]).mean(axis=(0, 1)) / (d**2).mean(axis=(0, 1))
            np.testing.assert_allclose(found["autocorrelation"].autocorrelation[2], r, atol=1e-12)
            largest = int(abs(x).max(axis=(1, 2)).argmax())
            assert found["topsteps"].step[0] == largest


def test_a_state_that_is_not_the_marks_would_be_seen(recording, whole, tmp_path):
    path = tmp_path / "run.zarr"
    assert recording.run(path, rename=170) == KILLED
    (state,) = path.glob("everystate.state-*.npz")
    with np.load(state) as file:
        arrays = [a.copy() for a in file.values()]
    arrays[0][0] += 0.25
    np.savez(state, *arrays)
    with pytest.raises(CorruptTraceError, match="its checksum does not match"):
        es.record(*self_like(recording), store=path, resume=True, chunk=128)


def self_like(recording: Recording):
    import torch

    torch.manual_seed(0)
    return torch.nn.LSTM(3, 5, num_layers=2), recording.folder / "x.npy"


def test_damage_is_told(recording, whole, tmp_path):
    path = Path(shutil.copytree(recording.folder / "whole.zarr", tmp_path / "run.zarr"))
    shard = path / "lstm" / "layer_1" / "c" / "c" / "0" / "1" / "0"
    content = bytearray(shard.read_bytes())
    content[len(content) // 3] ^= 16
    shard.write_bytes(content)
    with pytest.raises(CorruptTraceError, match="the variable 'c' of /lstm/layer_1 is damaged"):
        es.open_trace(path)["lstm/layer_1"].c.load()


@pytest.fixture
def full_disk(tmp_path) -> Iterator[Path]:
    """A folder on a disk of its own, of 2 MB."""
    folder, mount = tmp_path / "disk", shutil.which("mount")
    folder.mkdir()
    command = [mount or "mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(folder)]
    if mount is None or subprocess.run(command, check=False).returncode:
        pytest.skip("mounting a small disk is not permitted here")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk(recording, full_disk):
    model, x = self_like(recording)
    x = np.tile(np.load(x), (20, 1, 1))
    path = full_disk / "run.zarr"
    said = (
        r"no room left .* Completely written: /lstm/layer_0 \d+ of 18000 .* go on with resume=True"
    )
    with pytest.raises(TraceWriteError, match=said):
        es.record(model, x, store=path, chunk=512)
    with pytest.raises(IncompleteTraceError):
        es.open_trace(path)
    whole = es.record(model, x)
    trace = es.open_trace(path, incomplete="trim")
    assert 0 < trace["lstm/layer_1"].sizes["time"] < 18000
    for leaf in trace.leaves:
        begun = whole[leaf.path].c.isel(time=slice(0, leaf.sizes["time"]))
        np.testing.assert_allclose(leaf.c, begun, atol=1e-5)
