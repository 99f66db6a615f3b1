"""Damaged files: whatever is read is right, or an error that names the variable."""

import shutil

import numpy as np
import pytest
import xarray as xr

import everystate as es
from everystate.errors import CorruptTraceError, TraceFormatError
from everystate.storage import checked


def flip(file, position: int) -> None:
    content = bytearray(file.read_bytes())
    content[position] ^= 0x10
    file.write_bytes(content)


def data_files(folder):
    return sorted(file for file in folder.rglob("c/**/*") if file.is_file())


def test_one_flipped_byte_is_found_wherever_it_is(trace, saved):
    file = saved / "tagger" / "c" / "c" / "0" / "7" / "0"
    whole = file.read_bytes()
    expected = trace["tagger"].c.values
    for position in [*range(0, len(whole), len(whole) // 8), len(whole) - 1]:
        flip(file, position)
        c = es.open_trace(saved)["tagger"].c
        with pytest.raises(CorruptTraceError, match="the variable 'c' of /tagger is damaged: "):
            c.isel(time=slice(7 * 32, 8 * 32)).load()
        # The rest is readable, as the message says.
        got = c.isel(time=slice(8 * 32, None)).values
        np.testing.assert_array_equal(got, expected[:, 8 * 32 :])
        file.write_bytes(whole)


def test_damage_to_any_file_is_found(trace, saved):
    variables = 0
    for file in data_files(saved):
        if file.name != "0" or file.parent.name not in ("0", "c"):
            continue  # The first file of each variable is enough.
        whole = file.read_bytes()
        flip(file, len(whole) // 2)
        with pytest.raises(CorruptTraceError, match="is damaged"):
            es.open_trace(saved).load()
        file.write_bytes(whole)
        variables += 1
    assert variables == 7 + 3 + 3 + 4  # data and coordinates of each layer
    xr.testing.assert_identical(es.open_trace(saved), trace)


@pytest.mark.parametrize("keep", [0.0, 0.1, 0.97])
@pytest.mark.parametrize(
    "name", ["tagger/c/c/0/7/0", "tagger/initial_h/c/0/0", "encoder/lstm/backward/batch/c/0"]
)
def test_a_cut_file_is_found(saved, keep, name):
    whole = (saved / name).read_bytes()
    (saved / name).write_bytes(whole[: int(keep * len(whole))])
    with pytest.raises(CorruptTraceError, match=r"is damaged|gone, or empty"):
        es.open_trace(saved).load()


def test_a_missing_file_is_found_when_the_trace_is_opened(saved):
    (saved / "tagger" / "c" / "c" / "0" / "7" / "0").unlink()
    (saved / "tagger" / "c" / "c" / "0" / "9" / "0").unlink()
    said = "the variable 'c' of /tagger lacks 2 of its files, tagger/c/c/0/7/0 for one"
    with pytest.raises(CorruptTraceError, match=said):
        es.open_trace(saved)


def test_a_missing_variable_is_found(saved):
    shutil.rmtree(saved / "encoder" / "lstm" / "backward" / "initial_h")
    with pytest.raises(CorruptTraceError, match="'initial_h' of /encoder/lstm/backward lacks 1"):
        es.open_trace(saved)


def test_without_the_check_a_missing_file_would_pass_as_values(saved, monkeypatch):
    # What the tests above guard against.
    (saved / "tagger" / "c" / "c" / "0" / "7" / "0").unlink()
    monkeypatch.setattr("everystate.storage.reader.missing_files", lambda *_: ())
    assert np.isnan(es.open_trace(saved)["tagger"].c.values[:, 7 * 32 : 8 * 32]).all()


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning")
def test_without_a_checksum_a_flipped_byte_would_pass(trace, tmp_path):
    encoding = {f"/{name}": {"c": {"compressors": None}} for name in ("tagger",)}
    trace.to_zarr(tmp_path / "plain.zarr", encoding=encoding)
    flip(next(iter(data_files(tmp_path / "plain.zarr" / "tagger" / "c"))), 100)
    got = es.open_trace(tmp_path / "plain.zarr")["tagger"].c.values
    assert (got != trace["tagger"].c.values).sum() == 1


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning")
def test_what_cannot_be_decompressed_is_named_in_plain_stores_too(trace, tmp_path):
    trace.to_zarr(tmp_path / "plain.zarr")
    for file in data_files(tmp_path / "plain.zarr" / "tagger" / "c"):
        file.write_bytes(b"nonsense")
    with pytest.raises(CorruptTraceError, match="the variable 'c' of /tagger is damaged"):
        es.open_trace(tmp_path / "plain.zarr")["tagger"].c.load()


def test_damage_to_the_mark_is_found_wherever_it_is(saved):
    whole = (saved / "everystate.json").read_bytes()
    for position in range(0, len(whole), 7):
        flip(saved / "everystate.json", position)
        with pytest.raises(CorruptTraceError, match="the progress mark"):
            es.open_trace(saved)
        (saved / "everystate.json").write_bytes(whole)


def test_a_coordinate_is_named_too(saved):
    flip(saved / "tagger" / "time" / "c" / "0", 30)
    with pytest.raises(CorruptTraceError, match="the variable 'time' of /tagger is damaged"):
        es.open_trace(saved)


def test_an_index_out_of_range_is_not_damage(saved):
    with pytest.raises(IndexError):
        es.open_trace(saved)["tagger"].c.isel(time=5000).load()


def test_a_trace_overwritten_since_says_so(trace, saved):
    old = es.open_trace(saved)
    es.save_trace(trace.isel(time=slice(0, 50)), saved, overwrite=True)
    with pytest.raises(TraceFormatError, match=r"overwritten since it was opened\. Open it again"):
        old["tagger"].c.isel(time=slice(60, 70)).load()
    assert es.open_trace(saved)["tagger"].sizes["time"] == 50


def test_without_the_check_an_overwritten_trace_would_show_fill_values(trace, saved, monkeypatch):
    monkeypatch.setattr(checked, "_id", lambda folder: None)
    old = es.open_trace(saved)
    es.save_trace(trace.isel(time=slice(0, 50)), saved, overwrite=True)
    assert np.isnan(old["tagger"].c.isel(time=slice(70, 80))).all()
