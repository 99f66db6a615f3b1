"""Traces that many write: grids, marks, damage; the writers themselves are tested in scale/."""

import numpy as np
import pytest
import xarray as xr
import zarr

import everystate as es
from everystate.errors import CorruptTraceError, TraceFormatError, TraceNotFoundError
from everystate.storage.shared.grid import row_grid, shard_rows
from everystate.storage.shared.manifest import MARKS, PLAN_FILE, Plan, ShardMark, load_marks
from everystate.storage.shared.root import Root
from everystate.storage.shared.writing import Leaf, RowWriter, complete, lay_out, write_rows
from everystate.testing import importorskip

importorskip("fsspec")

ROWS, STEPS, UNITS, SHARD = 7, 40, 3, 2


@pytest.fixture
def values():
    return np.random.default_rng(0).normal(size=(ROWS, STEPS, UNITS)).astype(np.float32)


@pytest.fixture
def write(tmp_path, values):
    """Return what writes a whole trace of rows of different lengths, and its root."""

    def write(place=tmp_path / "run.zarr", marked=range(4)):
        lengths = np.array([40, 12, 7, 9, 40, 1, 33])
        for row, length in enumerate(lengths):
            values[row, length:] = np.nan
        root = Root(place)
        root.make()
        dims = ("batch", "time", "unit")
        sample = xr.Dataset(
            {"z": (dims, values[:1, :2]), "h": (dims, values[:1, :2])}, {"unit": [5, 6, 8]}
        )
        leaf = Leaf("encoder/lstm", sample, np.arange(STEPS))
        plan = Plan(ROWS, SHARD, "inputs", "options", 2, {leaf.path: ["z", "h"]})
        plan.laid_out = True
        plan.save(root)
        batch = {
            "batch": xr.Variable("batch", np.arange(ROWS)),
            "length": xr.Variable("batch", lengths),
        }
        lay_out(root, {"everystate_schema": 1}, [leaf], batch, SHARD)
        for shard in marked:
            rows = plan.rows_of(shard)
            part = values[rows.start : rows.stop, : lengths[rows.start : rows.stop].max()]
            write_rows(root, leaf.path, {"h": part, "z": -part}, rows.start)
            ShardMark(shard).save(root)
        if len(marked) == plan.shards:
            complete(root, {leaf.path: {"note": "said"}})
        return root

    return write


@pytest.mark.parametrize("place", ["run.zarr", "memory://bucket/run.zarr"])
def test_a_trace_comes_back(write, values, tmp_path, monkeypatch, place):
    monkeypatch.chdir(tmp_path)
    root = write(place)
    layer = es.open_trace(place)["encoder/lstm"]
    assert list(layer.data_vars) == ["z", "h"]
    np.testing.assert_array_equal(layer.h, values)
    np.testing.assert_array_equal(layer.z, -values)
    assert layer.attrs["note"] == "said"
    assert layer.unit.values.tolist() == [5, 6, 8]
    if root.folder is None:
        root.remove("")


def test_plain_xarray_opens_it(write, values, tmp_path):
    write()
    tree = xr.open_datatree(tmp_path / "run.zarr", engine="zarr")
    np.testing.assert_array_equal(tree["encoder/lstm"].h, values)


def test_files_of_a_shard_are_its_own(write, tmp_path):
    """Writing one shard again touches no file of another."""
    write()
    files = {p: p.read_bytes() for p in (tmp_path / "run.zarr").rglob("c/*/*/*")}
    h = [p for p in files if "/h/" in str(p)]
    assert {p.parts[-3] for p in h} == {"0", "1", "2", "3"}
    root = Root(tmp_path / "run.zarr")
    write_rows(root, "encoder/lstm", {"h": np.zeros((2, 9, 3), np.float32)}, 2)
    changed = [p for p, content in files.items() if p.read_bytes() != content]
    assert {p.parts[-3] for p in changed} == {"1"}


def test_rows_written_stretch_by_stretch(write, values, tmp_path, monkeypatch):
    monkeypatch.setattr("everystate.storage.shared.grid.SHARD_BYTES", 2 * 10 * UNITS * 4)
    monkeypatch.setattr("everystate.storage.shared.grid.CHUNK_BYTES", 5 * UNITS * 4)
    root = write(marked=())
    with RowWriter(root, "encoder/lstm", "h", 4) as writer:
        assert writer.array.shards == (2, 10, 3)
        for start, stop in ((0, 4), (4, 27), (27, 28), (28, 33)):
            writer.write(values[4:6, start:stop])
    found = zarr.open_array(tmp_path / "run.zarr", path="encoder/lstm/h", mode="r")[:]
    np.testing.assert_array_equal(found[4:6, :33], values[4:6, :33])
    assert np.isnan(found[4:6, 33:]).all()
    assert np.isnan(found[[0, 1, 2, 3, 6]]).all()


def test_a_missing_file_is_told(write, tmp_path):
    write()
    gone = tmp_path / "run.zarr/encoder/lstm/h/c/2/0/0"
    gone.unlink()
    with pytest.raises(CorruptTraceError, match=r"'h' of /encoder/lstm lacks the file c/2/0/0"):
        es.open_trace(tmp_path / "run.zarr")


def test_a_damaged_file_is_told_when_it_is_read(write, values, tmp_path):
    write()
    file = tmp_path / "run.zarr/encoder/lstm/z/c/1/0/0"
    content = bytearray(file.read_bytes())
    content[10] ^= 255
    file.write_bytes(content)
    layer = es.open_trace(tmp_path / "run.zarr")["encoder/lstm"]
    np.testing.assert_array_equal(layer.z[4:6], -values[4:6])
    with pytest.raises(CorruptTraceError, match="variable 'z' of /encoder/lstm is damaged"):
        layer.z[2:3].load()


def test_a_damaged_plan_is_told(write, tmp_path):
    write()
    plan = tmp_path / "run.zarr" / PLAN_FILE
    plan.write_text(plan.read_text().replace('"shard_rows": 2', '"shard_rows": 3'))
    with pytest.raises(CorruptTraceError, match="its checksum does not match"):
        es.open_trace(tmp_path / "run.zarr")


def test_a_damaged_mark_is_none(write, tmp_path):
    root = write(marked=range(3))
    assert sorted(load_marks(root)) == [0, 1, 2]
    (tmp_path / "run.zarr" / MARKS / "00000001.json").write_text('{"shard": 1}')
    assert sorted(load_marks(root)) == [0, 2]
    part = es.open_trace(tmp_path / "run.zarr", incomplete="trim")
    assert part["encoder/lstm"].batch.values.tolist() == [0, 1, 4, 5]


def test_urls_that_hold_no_trace():
    with pytest.raises(TraceNotFoundError, match="no trace at this place"):
        es.open_trace("memory://nowhere/run.zarr")
    zarr.open_group(Root("memory://other.zarr").zarr_store(), mode="w")
    with pytest.raises(TraceFormatError, match="but not a trace of everystate"):
        es.open_trace("memory://other.zarr")


@pytest.mark.parametrize(
    ("step_bytes", "steps", "rows", "expected"),
    [(256, 100, 10**7, 256), (4096, 10**6, 50, 1), (4, 1, 10, 16), (1024, 8192, 9, 1)],
)
def test_rows_of_a_shard(step_bytes, steps, rows, expected):
    assert shard_rows(step_bytes, steps, rows) == expected


@pytest.mark.parametrize(
    ("shape", "rows", "chunks", "shards"),
    [
        ((10**6, 100, 64), 256, (32, 100, 64), (256, 100, 64)),
        ((50, 10**6, 1024), 1, (1, 256, 1024), (1, 2048, 1024)),
        ((9, 64), 4, (4, 64), (4, 64)),
    ],
)
def test_grids(shape, rows, chunks, shards):
    grid = row_grid(shape, 4, rows)
    assert (grid.chunks, grid.shards) == (chunks, shards)
    assert all(s % c == 0 for s, c in zip(grid.shards, grid.chunks, strict=True))
