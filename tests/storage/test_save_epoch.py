"""`save_epoch`: epochs of a training, appended to a store that can be opened at any moment."""

import errno
import gc
import json
import os
import subprocess
import sys
import weakref

import numpy as np
import pytest
import xarray as xr

import everystate as es
from everystate.errors import (
    CorruptTraceError,
    InputTypeError,
    SelectionError,
    TraceFormatError,
    TraceWriteError,
)
from everystate.storage import epochs

# Appends an epoch in a child that dies at its `rename`-th rename, for each line of its input.
APPENDER = """
import json, os, signal, sys
import numpy as np, xarray as xr
from everystate.storage import epochs
from everystate.storage.epochs import save_epoch

def dies_at(last):
    done = []
    real = {name: getattr(os, name) for name in ("replace", "rename")}
    def counted(name):
        def rename(*args, **kwargs):
            done.append(args)
            if len(done) == last:
                os.kill(os.getpid(), signal.SIGKILL)
            real[name](*args, **kwargs)
        return rename
    for name in real:
        setattr(os, name, counted(name))

def metadata_before_data():
    real = epochs.open_streamed
    def early(folder, group, name):
        array = real(folder, group, name)
        class Early:
            shape = array.shape
            def resize(self, shape):
                array.resize(shape)
                epochs.consolidate(folder)
            def __setitem__(self, key, values):
                array[key] = values
        return Early()
    epochs.open_streamed = early

for line in sys.stdin:
    job = json.loads(line)
    child = os.fork()
    if child == 0:
        dies_at(job["rename"])
        if job["mutant"]:
            metadata_before_data()
        h = xr.Dataset({"h": (("batch", "time", "unit"), np.full((2, 3, 4), job["value"]))})
        root = xr.Dataset(attrs={"everystate_schema": 1, "complete": 1})
        trace = xr.DataTree.from_dict({"/": root, "/a": h, "/b/c": h + 1})
        save_epoch(trace, job["path"], job["epoch"])
        os._exit(0)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""
KILLED = -9


@pytest.fixture(scope="module")
def append():
    process = subprocess.Popen([sys.executable, "-c", APPENDER], stdin=-1, stdout=-1, text=True)

    def ask(path, epoch, value, rename=0, mutant=False):
        job = {"path": str(path), "epoch": epoch, "value": value, "rename": rename}
        process.stdin.write(json.dumps({**job, "mutant": mutant}) + "\n")
        process.stdin.flush()
        return int(process.stdout.readline())

    with process:
        yield ask
        process.stdin.close()


@pytest.fixture
def other(trace):
    """The trace of another epoch: other values, other errors."""
    found = trace.copy(deep=True)
    found["tagger"] = found["tagger"].to_dataset() * 2
    found["tagger"].attrs = {**trace["tagger"].attrs, "max_error_h": 3e-7, "weights_sha256": "b"}
    return found


def constants(path):
    """The value that an epoch of a layer of `APPENDER` holds everywhere, by layer and epoch."""
    found = {}
    for leaf in es.open_trace(path).leaves:
        assert (leaf.h.min(leaf.h.dims[1:]) == leaf.h.max(leaf.h.dims[1:])).all()
        found[leaf.path] = dict(zip(leaf.epoch.values, leaf.h[:, 0, 0, 0].values, strict=True))
    return found


def test_epochs_come_back_as_they_were(trace, other, small_blocks, tmp_path):
    trace["tagger"].attrs |= {"max_error_h": 5e-7, "weights_sha256": "a", "edited_steps": 1}
    path = tmp_path / "run.zarr"
    for epoch, each in {0: trace, 3: other, 7: trace}.items():
        assert es.save_epoch(each, path, epoch) == path
        found = es.open_trace(path)
        assert found.attrs["complete"] == 1
    for epoch, each in {0: trace, 3: other, 7: trace}.items():
        for leaf in each.leaves:
            one = found[leaf.path].to_dataset().sel(epoch=epoch).drop_vars("epoch")
            xr.testing.assert_equal(one.load(), leaf.to_dataset())
            assert {n: v.dtype for n, v in one.variables.items()} == {
                n: v.dtype for n, v in leaf.variables.items()
            }
    assert found["tagger"].h.dims == ("epoch", "batch", "time", "unit")
    assert found["encoder/lstm/backward"].length.dims == ("batch",)
    attrs = found["tagger"].attrs
    assert attrs == {"cell": "LSTM", "direction": "forward", "max_error_h": 5e-7, "edited_steps": 2}
    xr.testing.assert_equal(xr.open_datatree(path, engine="zarr").load(), found.load())


def test_an_epoch_touches_no_file_of_another_and_is_not_held(trace, other, tmp_path):
    path, kept = tmp_path / "run.zarr", weakref.ref(trace["tagger"].h.values.base)
    es.save_epoch(trace, path, 0)
    chunks = {f: f.stat() for f in path.rglob("*") if f.name.isdigit()}
    assert len(chunks) > len(trace["tagger"].data_vars)
    es.save_epoch(other, path, 1)
    for file, before in chunks.items():
        assert (file.stat().st_ino, file.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    for leaf in list(trace.leaves):
        leaf.dataset = xr.Dataset()
    gc.collect()
    assert kept() is None


def killed_at_every_file(append, path, *, mutant=False):
    """Kill a process at each file that it writes of an epoch; see what is left."""
    assert append(path, 0, 0.5) == 0
    before = constants(path)
    assert before == {"/a": {0: 0.5}, "/b/c": {0: 1.5}}
    for rename in range(1, 99):
        code = append(path, rename, rename / 4, rename, mutant)
        if code == 0:
            return rename
        assert code == KILLED
        assert constants(path) == before
    return pytest.fail("it was killed each time")


needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")


@needs_fork
def test_a_killed_training_leaves_the_epochs_before_and_can_go_on(append, tmp_path):
    files = killed_at_every_file(append, tmp_path / "run.zarr")
    assert files > 8  # values, sizes and attributes of two layers
    assert constants(tmp_path / "run.zarr") == {
        "/a": {0: 0.5, files: files / 4},
        "/b/c": {0: 1.5, files: files / 4 + 1},
    }


@needs_fork
def test_an_epoch_that_counts_before_it_is_written_is_found(append, tmp_path):
    with pytest.raises((AssertionError, CorruptTraceError)):
        killed_at_every_file(append, tmp_path / "run.zarr", mutant=True)


def test_a_full_disk_leaves_the_epochs_before(trace, other, tmp_path, monkeypatch):
    path = es.save_epoch(trace, tmp_path / "run.zarr", 0)

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(epochs, "set_attributes", full)
    with pytest.raises(TraceWriteError, match=r"no room left.*The epochs before it are there"):
        es.save_epoch(other, path, 1)
    assert es.open_trace(path)["tagger"].epoch.values.tolist() == [0]
    monkeypatch.undo()
    es.save_epoch(other, path, 2)
    found = es.open_trace(path)["tagger"]
    assert found.epoch.values.tolist() == [0, 2]
    np.testing.assert_array_equal(found.h.sel(epoch=2), other["tagger"].h)


def test_what_cannot_follow(trace, other, tmp_path):
    path = es.save_epoch(trace, tmp_path / "run.zarr", 4)
    shorter = trace.isel(batch=slice(0, 2))
    renamed = xr.DataTree.from_dict({"/": trace.to_dataset(), "/lstm": trace["tagger"]})
    less = trace.copy()
    less["tagger"] = less["tagger"].to_dataset().drop_vars("f")
    ragged = trace.copy()
    leaf = ragged["encoder/lstm/backward"]
    leaf.coords["length"] = ("batch", np.array([60, 83]))
    for wrong, epoch, match in (
        (other, 4, "epoch 4 cannot follow epoch 4"),
        (other, 3, "epoch 3 cannot follow epoch 4"),
        (shorter, 5, r"/tagger of epoch 5 has .*2 batch.* the epochs there .*3 batch"),
        (renamed, 5, r"have the layers /encoder/lstm/backward, /tagger, this trace /lstm\."),
        (less, 5, "has no f, the epochs there f of float32, 3 batch x 300 time x 7 unit"),
        (ragged, 5, r"has length=\[60, 83\], the epochs there length=\[61, 83\]"),
    ):
        with pytest.raises(TraceWriteError, match=match):
            es.save_epoch(wrong, path, epoch)
    assert es.open_trace(path)["tagger"].epoch.values.tolist() == [4]
    es.save_epoch(renamed, path, 0, overwrite=True)
    assert es.open_trace(path)["lstm"].epoch.values.tolist() == [0]


def test_what_is_no_epoch_or_no_place_for_one(trace, tmp_path):
    for wrong in (-1, 1.0, True, None, "2"):
        with pytest.raises(SelectionError, match="epoch="):
            es.save_epoch(trace, tmp_path / "run.zarr", wrong)
    assert not (tmp_path / "run.zarr").exists()
    es.save_epoch(trace, tmp_path / "run.zarr", np.int64(2))
    plain = es.save_trace(trace, tmp_path / "plain.zarr")
    with pytest.raises(TraceWriteError, match="not one of epochs"):
        es.save_epoch(trace, plain, 0)
    with pytest.raises(InputTypeError, match="expected a trace"):
        es.save_epoch(trace["tagger"].h, tmp_path / "run.zarr", 3)
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "a.txt").write_text("mine")
    with pytest.raises(TraceFormatError, match="not a Zarr store"):
        es.save_epoch(trace, tmp_path / "notes", 0)
    with pytest.raises(TraceWriteError, match="never overwritten"):
        es.save_epoch(trace, tmp_path / "notes", 0, overwrite=True)
