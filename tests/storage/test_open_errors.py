import json
import re
import zipfile
from importlib.metadata import version

import numpy as np
import pytest
import xarray as xr
import zarr

import everystate as es
from everystate.errors import (
    CorruptTraceError,
    IncompleteTraceError,
    SelectionError,
    TraceFormatError,
    TraceNotFoundError,
)


def rewrite(path, change):
    """Change the JSON in a file."""
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def test_nothing_there(tmp_path):
    with pytest.raises(TraceNotFoundError, match=r"run.zarr: there is nothing at this path\.$"):
        es.open_trace(tmp_path / "run.zarr")
    with pytest.raises(FileNotFoundError):
        es.open_trace(str(tmp_path / "run.zarr"))


def test_nothing_there_but_others_beside_it(saved):
    with pytest.raises(TraceNotFoundError, match=r"In .* there is: run\.zarr\."):
        es.open_trace(saved.with_name("rum.zarr"))


def test_a_folder_without_a_store(tmp_path):
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(TraceFormatError, match="a folder, but not a Zarr store: it has neither"):
        es.open_trace(tmp_path)


def test_a_folder_of_stores(saved):
    with pytest.raises(TraceFormatError, match=r"In it there is: run\.zarr\."):
        es.open_trace(saved.parent)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"\x89HDF\r\n\x1a\n", "an HDF5 or netCDF file; xarray.open_datatree"),
        (b"CDF\x01", "a netCDF file"),
        (b"hello", "expected the folder of a trace, got a file"),
        (b"", "got a file"),
    ],
)
def test_a_file(tmp_path, content, said):
    (tmp_path / "run.zarr").write_bytes(content)
    with pytest.raises(TraceFormatError, match=said):
        es.open_trace(tmp_path / "run.zarr")


def test_a_zip_file(tmp_path):
    with zipfile.ZipFile(tmp_path / "run.zarr", "w") as file:
        file.writestr("zarr.json", "{}")
    with pytest.raises(TraceFormatError, match="a zip file; unpack it"):
        es.open_trace(tmp_path / "run.zarr")


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_a_foreign_store(tmp_path, zarr_format):
    zarr.open_group(tmp_path / "other.zarr", mode="w", zarr_format=zarr_format)
    with pytest.raises(TraceFormatError, match="not a trace of everystate: its root has no attr"):
        es.open_trace(tmp_path / "other.zarr")


def test_a_foreign_array(tmp_path):
    zarr.save_array(tmp_path / "other.zarr", np.arange(3))
    with pytest.raises(TraceFormatError, match="a Zarr store, but not a trace"):
        es.open_trace(tmp_path / "other.zarr")


def test_a_newer_schema(saved):
    def change(root):
        root["attributes"] |= {"everystate_schema": 2, "everystate_version": "9.1"}
        root["consolidated_metadata"] = "what we cannot know"

    rewrite(saved / "zarr.json", change)
    said = (
        rf"a trace of schema 2, written by everystate 9\.1\. This is everystate "
        rf"{re.escape(version('everystate'))}, which reads schema 1\. Upgrade it: pip install"
    )
    with pytest.raises(TraceFormatError, match=said):
        es.open_trace(saved)


@pytest.mark.parametrize("number", [0, -1, "1", 1.5, None])
def test_a_schema_that_is_none(saved, number):
    rewrite(saved / "zarr.json", lambda root: root["attributes"].update(everystate_schema=number))
    with pytest.raises(TraceFormatError, match=rf"'everystate_schema' is {number!r}; expected 1"):
        es.open_trace(saved)


@pytest.mark.parametrize("content", [b"", b'{"attributes": {"every', b"[1]", b"\xff\xfe\x00", b"7"])
def test_damaged_metadata_of_the_root(saved, content):
    (saved / "zarr.json").write_bytes(content)
    with pytest.raises(
        CorruptTraceError, match=r"the metadata in zarr\.json are damaged .*Restore"
    ):
        es.open_trace(saved)


def test_root_metadata_cut_anywhere(saved):
    whole = (saved / "zarr.json").read_bytes()
    for size in range(0, len(whole) - 1, len(whole) // 8):
        (saved / "zarr.json").write_bytes(whole[:size])
        with pytest.raises(CorruptTraceError):
            es.open_trace(saved)


@pytest.mark.parametrize(
    "change",
    [
        lambda known: known["tagger/h"].update(shape="long"),
        lambda known: known["tagger/h"].update(shape=[3, 300, 9]),
        lambda known: known["tagger/h"].update(data_type="float99"),
        lambda known: known["tagger/h"].pop("codecs"),
        lambda known: known.pop("tagger/h"),
        lambda known: known.update({"tagger/h": 5}),
        lambda known: known.pop("encoder/lstm"),
    ],
)
def test_metadata_that_do_not_fit(saved, change):
    rewrite(saved / "zarr.json", lambda root: change(root["consolidated_metadata"]["metadata"]))
    with pytest.raises(CorruptTraceError, match=r"run\.zarr: .*[Rr]estore the folder from a copy"):
        es.open_trace(saved)


def test_damaged_metadata_of_a_layer_are_not_needed(trace, saved):
    # The root holds a copy of them, which is what is read.
    (saved / "tagger" / "h" / "zarr.json").write_bytes(b"{")
    xr.testing.assert_identical(es.open_trace(saved), trace)


@pytest.mark.parametrize("content", ["", "{", '{"done": 5}', '{"more": {}}', "[]"])
def test_a_damaged_mark(saved, content):
    (saved / "everystate.json").write_text(content)
    with pytest.raises(CorruptTraceError, match=r"the progress mark everystate\.json is damaged"):
        es.open_trace(saved)


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning")
def test_a_stopped_to_zarr(trace, tmp_path):
    trace.to_zarr(tmp_path / "run.zarr", consolidated=False)
    with pytest.raises(IncompleteTraceError, match="has no consolidated metadata, which to_zarr"):
        es.open_trace(tmp_path / "run.zarr")
    with pytest.raises(IncompleteTraceError, match=r"zarr\.consolidate_metadata\('.*run\.zarr'\)"):
        es.open_trace(tmp_path / "run.zarr", incomplete="trim")
    # What the message says to do works.
    zarr.consolidate_metadata(tmp_path / "run.zarr")
    xr.testing.assert_identical(es.open_trace(tmp_path / "run.zarr"), trace)


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning")
def test_a_copy_of_a_trimmed_trace(trace, tmp_path):
    trace.attrs["complete"] = 0
    trace.to_zarr(tmp_path / "run.zarr")
    with pytest.raises(IncompleteTraceError, match="a copy, by to_zarr, of an incomplete trace"):
        es.open_trace(tmp_path / "run.zarr")
    xr.testing.assert_identical(es.open_trace(tmp_path / "run.zarr", incomplete="trim"), trace)


def test_an_unknown_way_with_incomplete_ones(saved):
    with pytest.raises(SelectionError, match=r"incomplete='keep': expected 'error' or 'trim'"):
        es.open_trace(saved, incomplete="keep")
