"""Where a trace cannot be written: what the message says, and that nothing is harmed."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import xarray as xr
import zarr

import everystate as es
from everystate.errors import CorruptTraceError, TraceWriteError


def files(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_taken_path(trace, saved, tmp_path):
    before = files(tmp_path)
    said = r"run\.zarr: the path is taken\. .* replace what is there: overwrite=True\.$"
    with pytest.raises(TraceWriteError, match=said):
        es.save_trace(trace, saved)
    with pytest.raises(OSError, match="taken"):
        es.save_trace(trace, saved)
    assert files(tmp_path) == before


@pytest.mark.parametrize("overwrite", [False, True])
def test_what_is_no_store_is_never_overwritten(trace, tmp_path, overwrite):
    folder, file = tmp_path / "thesis", tmp_path / "thesis.txt"
    folder.mkdir()
    (folder / "chapter.txt").write_text("one")
    file.write_text("two")
    before = files(tmp_path)
    for path in (folder, file):
        with pytest.raises(TraceWriteError, match="not a Zarr store, and it is never overwritten"):
            es.save_trace(trace, path, overwrite=overwrite)
    assert files(tmp_path) == before


def test_any_store_is_overwritten(trace, tmp_path):
    for number in (2, 3):
        path = tmp_path / "run.zarr"
        zarr.open_group(path, mode="w", zarr_format=number)
        es.save_trace(trace, path, overwrite=True)
        xr.testing.assert_identical(es.open_trace(path), trace)
        assert sorted(each.name for each in tmp_path.iterdir()) == ["run.zarr"]


def test_a_trace_opened_from_there(trace, saved, small_blocks):
    lazy = es.open_trace(saved)
    with pytest.raises(TraceWriteError, match="the path is taken"):
        es.save_trace(lazy, saved)
    # It is read while the new one is written beside it.
    es.save_trace(lazy.isel(time=slice(5, 70)), saved, overwrite=True)
    expected = trace.isel(time=slice(5, 70))
    xr.testing.assert_identical(es.open_trace(saved), expected)


def test_a_damaged_trace_opened_from_there(saved, tmp_path):
    lazy = es.open_trace(saved)
    (saved / "tagger" / "c" / "c" / "0" / "7" / "0").write_bytes(b"nonsense")
    before = files(tmp_path)
    with pytest.raises(CorruptTraceError, match="the variable 'c' of /tagger is damaged"):
        es.save_trace(lazy, saved, overwrite=True)
    assert files(tmp_path) == before


def test_a_link_is_followed(trace, tmp_path):
    es.save_trace(trace.isel(time=slice(0, 9)), tmp_path / "real.zarr")
    link = tmp_path / "run.zarr"
    link.symlink_to(tmp_path / "real.zarr")
    assert es.save_trace(trace, link, overwrite=True) == link
    assert link.is_symlink()
    xr.testing.assert_identical(es.open_trace(tmp_path / "real.zarr"), trace)


@pytest.mark.parametrize("name", ["run.zarr.writing", "run.zarr.replaced"])
def test_a_folder_of_the_user_that_is_in_the_way(trace, tmp_path, name):
    path = es.save_trace(trace.isel(time=slice(0, 9)), tmp_path / "run.zarr")
    (tmp_path / name).mkdir()
    (tmp_path / name / "chapter.txt").write_text("one")
    before = files(tmp_path)
    with pytest.raises(TraceWriteError, match=rf"{name}: this name is needed while writing"):
        es.save_trace(trace, path, overwrite=True)
    assert files(tmp_path) == before
    # And whoever tried holds no lock.
    shutil.rmtree(tmp_path / name)
    es.save_trace(trace, path, overwrite=True)
    xr.testing.assert_identical(es.open_trace(path), trace)


def test_a_file_where_a_folder_should_be(trace, tmp_path):
    (tmp_path / "results").write_text("x")
    with pytest.raises(TraceWriteError, match=r"a folder cannot be made here: .*Choose a path"):
        es.save_trace(trace, tmp_path / "results" / "run.zarr")


@pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="needs /proc")
def test_a_folder_that_takes_no_files(trace):
    with pytest.raises(TraceWriteError, match=r"^/proc/run.zarr: a folder cannot be made here"):
        es.save_trace(trace, "/proc/run.zarr")


@pytest.fixture
def read_only_disk(trace, tmp_path) -> Iterator[Path]:
    """A mounted read-only disk that holds a trace, run.zarr."""
    folder = tmp_path / "disk"
    es.save_trace(trace.isel(time=slice(0, 9)), folder / "run.zarr")
    mount = shutil.which("mount")
    if mount is None or subprocess.run([mount, "--bind", folder, folder], check=False).returncode:
        pytest.skip("mounting a disk is not permitted here")
    subprocess.run([mount, "-o", "remount,ro,bind", folder], check=True)
    yield folder
    subprocess.run(["umount", folder], check=True)


def test_a_read_only_disk(trace, read_only_disk):
    for path, overwrite in (("new.zarr", False), ("run.zarr", True)):
        with pytest.raises(TraceWriteError, match=r"cannot be made here: .*Read-only file system"):
            es.save_trace(trace, read_only_disk / path, overwrite=overwrite)
    xr.testing.assert_identical(
        es.open_trace(read_only_disk / "run.zarr").load(), trace.isel(time=slice(0, 9))
    )


def test_a_folder_without_permission(trace, tmp_path, monkeypatch):
    # Stands for the permission bits, which do not bind the superuser.
    def refuse(*_args, **_kwargs):
        raise PermissionError(13, "Permission denied", str(tmp_path / "run.zarr.writing"))

    monkeypatch.setattr(Path, "mkdir", refuse)
    with pytest.raises(TraceWriteError, match=r"cannot be made here: .*Permission denied: '.*writ"):
        es.save_trace(trace, tmp_path / "run.zarr")


def test_an_input_output_error_midway(trace, tmp_path, small_blocks, monkeypatch):
    calls, write = [], os.replace

    def replace(source, target):
        calls.append(target)
        if len(calls) == 80:
            raise OSError(5, "Input/output error", str(target))
        write(source, target)

    monkeypatch.setattr(os, "replace", replace)
    said = r"could not be written: .*Input/output error.* Completely written: /tagger \d+ of 300"
    with pytest.raises(TraceWriteError, match=said):
        es.save_trace(trace, tmp_path / "run.zarr")


def test_an_address(trace, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(TraceWriteError, match="traces are written to local folders only"):
        es.save_trace(trace, "s3://bucket/run.zarr")
    assert list(tmp_path.iterdir()) == []


def test_a_swap_that_fails_brings_the_old_one_back(trace, tmp_path, monkeypatch):
    old = trace.isel(time=slice(0, 9))
    path, rename = es.save_trace(old, tmp_path / "run.zarr"), Path.rename

    def fail(self, target):
        if self.name.endswith(".writing"):
            raise OSError(5, "Input/output error")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", fail)
    with pytest.raises(TraceWriteError, match="The trace that was there is untouched"):
        es.save_trace(trace, path, overwrite=True)
    xr.testing.assert_identical(es.open_trace(path), old)
    assert list(tmp_path.iterdir()) == [path]
