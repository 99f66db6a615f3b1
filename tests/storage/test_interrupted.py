"""A writer that is stopped: killed at any moment, out of room, or by an exception."""

import errno
import json
import os
import pickle
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

import everystate as es
from everystate.errors import (
    CorruptTraceError,
    IncompleteTraceError,
    TraceNotFoundError,
    TraceWriteError,
)
from everystate.storage.lock import FolderLock
from everystate.storage.place import Place

# Saves a trace in a child for each line of its input, so that the imports are paid for once.
SAVER = """
import json, os, pickle, signal, sys, threading
from everystate.storage import layout, save_trace, writer

layout.SHARD_BYTES, layout.CHUNK_BYTES = 4 * 3 * 7 * 32, 4 * 3 * 7 * 16
trace = pickle.load(open(sys.argv[1], "rb"))

def die():
    os.kill(os.getpid(), signal.SIGKILL)

def count_renames(last, done):
    real = {name: getattr(os, name) for name in ("replace", "rename")}
    def counted(name):
        def rename(*args, **kwargs):
            done.append(args)
            if len(done) == last:
                die()
            real[name](*args, **kwargs)
        return rename
    for name in real:
        setattr(os, name, counted(name))

def mark_before_data():
    real, held = writer.write_shards, []
    def late(*write):
        held.append(write)
        if len(held) > 3:
            real(*held.pop(0))
    writer.write_shards = late

for line in sys.stdin:
    job = json.loads(line)
    child = os.fork()
    if child == 0:
        done = []
        count_renames(job["rename"], done)
        if job["seconds"]:
            threading.Timer(job["seconds"], die).start()
        if job["mutant"]:
            mark_before_data()
        save_trace(trace, job["path"], overwrite=job["overwrite"])
        os._exit(min(len(done), 255))
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""
KILLED = -9
LAST = 14
"""More files than are written once the trace is laid out."""


class Saver:
    """Saves a trace in processes that can be killed."""

    def __init__(self, trace: xr.DataTree, folder: Path) -> None:
        source = folder / "trace.pickle"
        source.write_bytes(pickle.dumps(trace))
        command = [sys.executable, "-c", SAVER, str(source)]
        self._process = subprocess.Popen(command, stdin=-1, stdout=-1, text=True)

    def save(
        self,
        path: Path,
        *,
        rename: int = 0,
        seconds: float = 0,
        overwrite: bool = False,
        mutant: bool = False,
    ) -> int:
        """Save, to be killed before its n-th rename of a file or after some seconds.

        Return `KILLED`, or how many files it renamed until the end.
        """
        job = {"path": str(path), "rename": rename, "seconds": seconds}
        job |= {"overwrite": overwrite, "mutant": mutant}
        self._process.stdin.write(json.dumps(job) + "\n")
        self._process.stdin.flush()
        return int(self._process.stdout.readline())

    def close(self) -> None:
        self._process.communicate()


@pytest.fixture
def small(trace, make_leaf) -> xr.DataTree:
    """A trace of few files: 3 blocks of one layer, 1 of another, zeros among them."""
    first = make_leaf(3, 70, 7, "float32", "hc", seed=11)
    first["c"] = xr.zeros_like(first.c)
    second = make_leaf(2, 20, 5, "float64", "h", seed=12)
    return xr.DataTree.from_dict({"/": trace.to_dataset(), "/a": first, "/b": second})


@pytest.fixture
def save_small(small, tmp_path) -> Iterator[Saver]:
    yield from _saver(small, tmp_path)


@pytest.fixture
def long(trace, make_leaf) -> xr.DataTree:
    """A trace that is soon laid out, and then long in writing."""
    layer = make_leaf(3, 3000, 7, "float32", "h", seed=14)
    return xr.DataTree.from_dict({"/": trace.to_dataset(), "/a": layer})


@pytest.fixture
def save_long(long, tmp_path) -> Iterator[Saver]:
    yield from _saver(long, tmp_path)


def _saver(trace: xr.DataTree, folder: Path) -> Iterator[Saver]:
    if not hasattr(os, "fork"):
        pytest.skip("needs os.fork")
    saver = Saver(trace, folder)
    yield saver
    saver.close()


def check_what_is_there(path: Path, trace: xr.DataTree) -> int | None:
    """Check whatever a killed writer left. Return the steps of all layers, or None if nothing.

    It is complete and right; or recognised and, trimmed, the exact beginning of what was saved.
    """
    try:
        got = es.open_trace(path)
    except TraceNotFoundError:
        return None
    except IncompleteTraceError as error:
        if "not one block" in str(error):
            return 0
        got = es.open_trace(path, incomplete="trim")
        assert got.attrs["complete"] == 0
    else:
        xr.testing.assert_identical(got, trace)
    steps = 0
    for leaf in got.leaves:
        begun = trace[leaf.path].to_dataset().isel(time=slice(0, leaf.sizes["time"]))
        xr.testing.assert_identical(leaf.to_dataset().load(), begun)
        steps += leaf.sizes["time"]
    return steps


def test_killed_at_random_moments(long, save_long, tmp_path):
    save_long.save(tmp_path / "first.zarr")
    begin = time.perf_counter()
    save_long.save(tmp_path / "second.zarr")
    duration = time.perf_counter() - begin
    moments, midway = random.Random(0), 0
    for k in range(40):
        path = tmp_path / f"killed-{k}.zarr"
        save_long.save(path, seconds=moments.uniform(0.05, 1) * duration)
        steps = check_what_is_there(path, long)
        midway += steps is not None and 0 < steps < 3000
        if midway == 4:
            return
    pytest.fail(f"only {midway} were killed midway, which shows nothing")


def points(files: int, every: int) -> list[int]:
    """Each of the last files, where blocks, marks and folders change; of those before, some."""
    return sorted({*range(1, files, every), *range(files - LAST, files + 1)})


def test_killed_before_a_file(small, save_small, tmp_path):
    files = save_small.save(tmp_path / "whole.zarr")
    found = []
    for k in points(files, every=16):
        path = tmp_path / f"killed-{k}.zarr"
        assert save_small.save(path, rename=k) == KILLED
        found.append(check_what_is_there(path, small))
    # First nothing, then more and more: no block is lost once it is complete.
    reached = [steps for steps in found if steps is not None]
    assert found[: -len(reached)] == [None] * (len(found) - len(reached))
    assert reached == sorted(reached)
    assert set(reached) == {0, 32, 52, 84, 90}


def test_a_mark_before_its_data_would_be_found(small, save_small, tmp_path):
    files = save_small.save(tmp_path / "whole.zarr")
    found = []
    for k in range(files, 0, -1):
        path = tmp_path / f"killed-{k}.zarr"
        save_small.save(path, rename=k, mutant=True)
        try:
            check_what_is_there(path, small)
        except (AssertionError, CorruptTraceError) as error:
            found.append(error)
            break
    assert found


def test_killed_while_replacing_another(small, save_small, make_leaf, tmp_path):
    layer = make_leaf(2, 9, 4, "float32", "h", seed=13)
    old = xr.DataTree.from_dict({"/": small.to_dataset(), "/lstm": layer})
    path = tmp_path / "run.zarr"
    es.save_trace(old, path)
    files = save_small.save(path, overwrite=True)
    swapped = []
    for k in [*points(files, every=24)[:-LAST], files - 1, files]:
        # What the one before left behind is in nobody's way.
        es.save_trace(old, path, overwrite=True)
        assert save_small.save(path, rename=k, overwrite=True) == KILLED
        try:
            xr.testing.assert_identical(es.open_trace(path), old)
        except TraceNotFoundError as error:
            swapped.append(k)
            assert f"left {path}.writing and {path}.replaced: open, or" in str(error)  # noqa: PT017
            xr.testing.assert_identical(es.open_trace(f"{path}.writing"), small)
            xr.testing.assert_identical(es.open_trace(f"{path}.replaced"), old)
    # Only between the two renames at the end is neither in place.
    assert swapped == [files]
    es.save_trace(old, path, overwrite=True)
    es.save_trace(small, path, overwrite=True)
    assert sorted(each.name for each in tmp_path.iterdir()) == ["run.zarr", "trace.pickle"]


def test_interrupted_as_soon_as_another_is_replaced(trace, saved, tmp_path, monkeypatch):
    replace = Place.replace

    def interrupted(self):
        replace(self)
        raise KeyboardInterrupt

    monkeypatch.setattr(Place, "replace", interrupted)
    new = trace.isel(time=slice(0, 9))
    with pytest.raises(KeyboardInterrupt):
        es.save_trace(new, saved, overwrite=True)
    xr.testing.assert_identical(es.open_trace(saved), new)
    assert list(tmp_path.iterdir()) == [saved]


def stop_at(steps: int, error: BaseException):
    def progress(done: int, total: int) -> None:
        if done >= steps:
            raise error

    return progress


def test_the_message_of_an_incomplete_trace(trace, tmp_path, small_blocks):
    path = tmp_path / "run.zarr"
    with pytest.raises(KeyboardInterrupt):
        es.save_trace(trace, path, progress=stop_at(300, KeyboardInterrupt()))
    said = (
        r"run\.zarr: the trace is incomplete, its writer was stopped\. Completely written: "
        r"/tagger 224 of 300 steps, /encoder/lstm/backward 83 of 83 steps\. "
        r"Open that with es\.open_trace\('.*run\.zarr', incomplete='trim'\)\."
    )
    with pytest.raises(IncompleteTraceError, match=said):
        es.open_trace(path)
    assert check_what_is_there(path, trace) == 224 + 83


def test_a_trimmed_trace_can_be_saved_as_one_of_its_own(trace, tmp_path, small_blocks):
    path = tmp_path / "run.zarr"
    with pytest.raises(KeyboardInterrupt):
        es.save_trace(trace, path, progress=stop_at(300, KeyboardInterrupt()))
    trimmed = es.open_trace(path, incomplete="trim")
    # Onto itself: it is read from there while it is written.
    es.save_trace(trimmed, path, overwrite=True)
    got = es.open_trace(path)
    assert got.attrs["complete"] == 1
    tagger = trace["tagger"].to_dataset().isel(time=slice(0, 224))
    xr.testing.assert_identical(got["tagger"].to_dataset(), tagger)


def test_layers_not_begun_are_left_out(trace, tmp_path, small_blocks):
    path = tmp_path / "run.zarr"
    with pytest.raises(KeyboardInterrupt):
        es.save_trace(trace, path, progress=stop_at(1, KeyboardInterrupt()))
    got = es.open_trace(path, incomplete="trim")
    assert got.groups == ("/", "/tagger")
    assert got["tagger"].sizes["time"] == 32


def test_nothing_is_left_of_a_trace_without_a_block(trace, tmp_path, monkeypatch):
    monkeypatch.setattr(
        "everystate.storage.writer.write_shards", lambda *_: (_ for _ in ()).throw(MemoryError())
    )
    with pytest.raises(MemoryError):
        es.save_trace(trace, tmp_path / "run.zarr")
    assert list(tmp_path.iterdir()) == []


def test_while_it_is_written(trace, tmp_path, small_blocks):
    path, steps = tmp_path / "run.zarr", []

    def look(done: int, total: int) -> None:
        if done < total and len(steps) < 4:
            with pytest.raises(IncompleteTraceError, match="incomplete, still being written"):
                es.open_trace(path)
            steps.append(check_what_is_there(path, trace) == done)
        if done == 32:
            with pytest.raises(TraceWriteError, match="is being written now, by another process"):
                es.save_trace(trace, path, overwrite=True)

    es.save_trace(trace, path, progress=look)
    assert steps == [True] * 4
    assert check_what_is_there(path, trace) == 383


def test_an_early_reader_keeps_what_it_has_when_the_trace_is_complete(
    trace, tmp_path, small_blocks
):
    path, early = tmp_path / "run.zarr", []

    def look(done: int, total: int) -> None:
        if not early:
            early.append(es.open_trace(path, incomplete="trim"))

    es.save_trace(trace, path, progress=look)
    np.testing.assert_array_equal(early[0]["tagger"].c, trace["tagger"].c[:, :32])


def test_two_that_replace_the_same(trace, tmp_path, small_blocks):
    path = es.save_trace(trace.isel(time=slice(0, 9)), tmp_path / "run.zarr")

    def intrude(done: int, total: int) -> None:
        with pytest.raises(TraceWriteError, match="is being written now"):
            es.save_trace(trace, path, overwrite=True)

    es.save_trace(trace, path, overwrite=True, progress=intrude)
    assert check_what_is_there(path, trace) == 383


def test_a_lock_ends_with_its_holder(tmp_path):
    first = FolderLock(tmp_path)
    with pytest.raises(BlockingIOError):
        FolderLock(tmp_path)
    first.release()
    FolderLock(tmp_path).release()


@pytest.fixture
def full_disk(tmp_path) -> Iterator[Path]:
    """A folder on a disk of its own, of 300 kB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = shutil.which("mount")
    if (
        mount is None
        or subprocess.run(
            [mount, "-t", "tmpfs", "-o", "size=300k", "tmpfs", str(folder)], check=False
        ).returncode
    ):
        pytest.skip("mounting a small disk is not permitted here")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk(trace, full_disk, small_blocks):
    path = full_disk / "run.zarr"
    said = (
        r"run\.zarr: there is no room left for the trace \(No space left on device; 0\.\d MB free\)"
        r"\. Free some, .* Completely written: /tagger \d+ of 300 steps, .*incomplete='trim'"
    )
    with pytest.raises(TraceWriteError, match=said):
        es.save_trace(trace, path)
    steps = check_what_is_there(path, trace)
    assert 0 < steps < 383


def test_a_full_disk_leaves_the_trace_that_was_there(trace, full_disk, small_blocks):
    old = trace.isel(time=slice(0, 40))
    path = es.save_trace(old, full_disk / "run.zarr")
    with pytest.raises(TraceWriteError, match=r"no room left.*The trace that was there is untouch"):
        es.save_trace(trace, path, overwrite=True)
    xr.testing.assert_identical(es.open_trace(path), old)
    assert list(full_disk.iterdir()) == [path]


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_no_room_where_no_disk_can_be_made(trace, tmp_path, small_blocks, monkeypatch, code):
    room, write = [40], os.replace

    def replace(source, target):
        room[0] -= 1
        if room[0] < 0:
            raise OSError(code, os.strerror(code))
        write(source, target)

    monkeypatch.setattr(os, "replace", replace)
    with pytest.raises(TraceWriteError, match=rf"no room left for the trace \({os.strerror(code)}"):
        es.save_trace(trace, tmp_path / "run.zarr")
    monkeypatch.undo()
    assert list(tmp_path.iterdir()) == []
