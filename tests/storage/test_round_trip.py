import datetime as dt
import json
import warnings

import numpy as np
import pandas as pd
import pytest
import xarray as xr
import zarr

import everystate as es
from everystate.errors import InputTypeError, TraceFormatError, TraceWriteError


def assert_same(got: xr.DataTree, expected: xr.DataTree) -> None:
    """Identical, dtypes and order of layers and variables included, which xarray ignores."""
    xr.testing.assert_identical(got, expected)
    assert got.groups == expected.groups
    for node in expected.subtree:
        variables = got[node.path].variables
        assert list(got[node.path].data_vars) == list(node.data_vars)
        for name, variable in node.variables.items():
            assert variables[name].dtype == variable.dtype, name
            assert type(variables[name].attrs) is dict


def edit(trace: xr.DataTree, path: str, dataset: xr.Dataset) -> xr.DataTree:
    parts = {node.path: node.to_dataset() for node in trace.subtree}
    return xr.DataTree.from_dict({**parts, path: dataset})


def test_a_saved_trace_comes_back_exactly(trace, tmp_path, small_blocks):
    before = trace.copy(deep=True)
    path = es.save_trace(trace, tmp_path / "run.zarr")
    assert path == tmp_path / "run.zarr"
    assert_same(es.open_trace(path), trace)
    # Many files of each variable, and the source as it was.
    assert len(list((path / "tagger" / "c" / "c").rglob("*"))) > 300 // 32
    xr.testing.assert_identical(trace, before)


@pytest.mark.usefixtures("small_blocks")
def test_states_that_are_nan_throughout_are_data_too(trace, tmp_path):
    """A diverged model has nothing but NaN, and that is what its trace must say."""
    node = trace["encoder/lstm/backward"].to_dataset()
    diverged = edit(trace, "/encoder/lstm/backward", node.assign(h=node.h * np.nan))
    assert np.isnan(diverged["encoder/lstm/backward"].h).all()
    assert_same(es.open_trace(es.save_trace(diverged, tmp_path / "run.zarr")).load(), diverged)


@pytest.mark.parametrize(
    "mutate",
    [
        lambda tree: tree["tagger"].c.values.__setitem__((2, 299, 6), 0.5),
        lambda tree: tree["tagger"].c.attrs.update(origin="replayed"),
        lambda tree: tree["tagger"].attrs.update(cell="GRU"),
        lambda tree: tree.attrs.update(complete=0),
        lambda tree: tree["encoder/lstm/backward"].length.attrs.clear(),
        lambda tree: tree["encoder/lstm"].attrs.update(extra=1),
        lambda tree: tree["encoder/lstm/backward"].update(
            {"z": tree["encoder/lstm/backward"].z.astype("float32")}
        ),
    ],
)
def test_the_comparison_sees_every_kind_of_difference(trace, saved, mutate):
    got = es.open_trace(saved).load()
    mutate(got)
    with pytest.raises(AssertionError):
        assert_same(got, trace)


def test_plain_xarray_opens_a_saved_trace_without_a_warning(trace, saved):
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        warnings.simplefilter("error", RuntimeWarning)
        xr.testing.assert_identical(xr.open_datatree(saved, engine="zarr"), trace)


@pytest.mark.parametrize("zarr_format", [2, 3])
@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning")
def test_a_trace_of_plain_to_zarr_opens(trace, tmp_path, zarr_format):
    trace.to_zarr(tmp_path / "run.zarr", zarr_format=zarr_format)
    xr.testing.assert_identical(es.open_trace(tmp_path / "run.zarr"), trace)


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning")
def test_plain_to_zarr_of_an_opened_trace_opens_though_it_leaves_out_zeros(
    trace, tmp_path, small_blocks
):
    dataset = trace["tagger"].to_dataset()
    dataset["c"] = xr.zeros_like(dataset.c)
    dataset["initial_h"] = xr.zeros_like(dataset.initial_h)
    trace = edit(trace, "/tagger", dataset)
    path = es.save_trace(trace, tmp_path / "run.zarr")
    es.open_trace(path).to_zarr(tmp_path / "copy.zarr")
    xr.testing.assert_identical(es.open_trace(tmp_path / "copy.zarr"), trace)


TIMES = {
    "seconds": np.datetime64("2021-03-04T05:06:07", "s") + np.arange(9) ** 2,
    "milliseconds": np.datetime64("2021-03-04T05:06:07.008", "ms") + np.arange(9) ** 2,
    "microseconds": np.datetime64("2021-03-04T05:06:07.008009", "us") + np.arange(9) ** 2,
    "nanoseconds": np.datetime64("2021-03-04T05:06:07.008009010", "ns") + np.arange(9) ** 2,
    "days": np.datetime64("2021-03-04", "D") + np.arange(9),
    "centuries ago": np.datetime64("1066-10-14T09", "s") + np.arange(9),
    "a gap": np.array(["2021-03-04", "NaT", *["2021-05-06T00:00:00.000000007"] * 7], "M8[ns]"),
    "durations": np.arange(9).astype("m8[ms]") * 7,
    "pandas": pd.date_range("2021-03-04", periods=9, freq="37min"),
    "integers": np.arange(9, dtype=np.int32) * 10 - 5,
    "unsigned": np.arange(9, dtype=np.uint8),
    "floats": np.linspace(0, 1, 9),
    "strings": np.array([f"frame {k}" for k in range(9)]),
    "objects": np.array(["a", "bcd", "é", "", "日本", "f", "g", "h", "i"], dtype=object),
    "bytes": np.array([b"a", b"bc", *[b"x"] * 7]),
    "booleans": np.arange(9) % 2 == 0,
}


@pytest.mark.parametrize("time", TIMES.values(), ids=TIMES)
def test_labels_of_every_kind_come_back(make_leaf, trace, tmp_path, time):
    layer = make_leaf(2, 9, 3, "float64", "h", seed=3).assign_coords(time=time)
    trace = edit(trace, "/decoder", layer)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        warnings.simplefilter("error", FutureWarning)
        got = es.open_trace(es.save_trace(trace, tmp_path / "run.zarr"))
    assert_same(got, trace)
    assert got["decoder"].indexes["time"].equals(layer.indexes["time"])


def test_values_of_every_kind_come_back(make_leaf, trace, tmp_path, small_blocks):
    layer = make_leaf(2, 300, 3, "float32", "h", seed=4)
    dims, size = ("batch", "time"), (2, 300)
    rng = np.random.default_rng(5)
    layer["special"] = ("time", np.resize([np.nan, np.inf, -np.inf, -0.0, 0.0, 1e-40], 300))
    layer["half"] = (dims, rng.normal(size=size).astype("float16"))
    layer["count"] = (dims, rng.integers(-9, 9, size).astype("int16"))
    layer["flag"] = (dims, rng.integers(0, 2, size).astype(bool))
    layer["phase"] = (dims, rng.normal(size=size) + 1j * rng.normal(size=size))
    layer["seen"] = ("time", np.datetime64("2020-01-01", "s") + np.arange(300))
    layer["word"] = ("time", np.array([f"w{k}" for k in range(300)]))
    layer["turned"] = (("unit", "time", "batch"), rng.normal(size=(3, 300, 2)))
    layer["alone"] = ((), np.float32(7))
    trace = edit(trace, "/decoder", layer)
    got = es.open_trace(es.save_trace(trace, tmp_path / "run.zarr"))
    assert_same(got, trace)
    assert np.signbit(got["decoder"].special.values[3])


def test_attributes_of_every_kind_come_back(trace, tmp_path):
    trace.attrs |= {
        "none": None, "text": "é <b>", "nan": np.nan, "inf": -np.inf, "flag": True,
        "list": [1, "a", 2.5], "nested": {"a": [1, {"b": None}]}, "numpy": np.float32(1e-7),
        "array": np.arange(3), "big": 2**60,
    }  # fmt: skip
    got = es.open_trace(es.save_trace(trace, tmp_path / "run.zarr"))
    xr.testing.assert_identical(got, trace)
    assert list(got.attrs) == list(trace.attrs)


@pytest.mark.parametrize("sizes", [(0, 5, 3), (2, 0, 3), (2, 5, 0), (1, 1, 1)])
def test_empty_and_single_sizes_come_back(make_leaf, trace, tmp_path, sizes):
    trace = edit(trace, "/decoder", make_leaf(*sizes, "float32", "hc", seed=6))
    assert_same(es.open_trace(es.save_trace(trace, tmp_path / "run.zarr")), trace)


def test_a_batch_that_is_cut_comes_back(make_leaf, trace, tmp_path, monkeypatch, small_blocks):
    layer = make_leaf(101, 50, 7, "float32", "hc", seed=7)
    trace = edit(trace, "/decoder", layer)
    path = es.save_trace(trace, tmp_path / "run.zarr")
    h = zarr.open_group(path, mode="r")["decoder/h"]
    assert h.shards[0] < 101
    assert h.shards[1] == 16
    assert_same(es.open_trace(path), trace)


def test_a_trace_without_steps_or_layers_comes_back(trace, tmp_path):
    only = {"/": trace.to_dataset(), "/lstm": trace["tagger"].to_dataset()[["initial_h"]]}
    trace = xr.DataTree.from_dict(only)
    assert_same(es.open_trace(es.save_trace(trace, tmp_path / "run.zarr")), trace)


def test_layers_keep_their_order_beyond_ten(make_leaf, trace, tmp_path):
    layers = {f"/rnn/layer_{k}": make_leaf(1, 4, k + 1, "float32", "h", k) for k in range(12)}
    trace = xr.DataTree.from_dict({"/": trace.to_dataset(), **layers})
    got = es.open_trace(es.save_trace(trace, tmp_path / "run.zarr"))
    assert list(got["rnn"].children) == [f"layer_{k}" for k in range(12)]


def test_coordinates_that_layers_inherit_come_back(trace, make_leaf, tmp_path, small_blocks):
    root = trace.to_dataset().assign_coords(time=np.arange(400) * 2)
    layers = {
        "/a": make_leaf(2, 400, 3, "float32", "h", 8).drop_vars("time"),
        "/a/b": make_leaf(2, 400, 3, "float32", "hc", 9).drop_vars(["time", "batch", "unit"]),
    }
    trace = xr.DataTree.from_dict({"/": root, **layers})
    got = es.open_trace(es.save_trace(trace, tmp_path / "run.zarr"))
    xr.testing.assert_identical(got, trace)


def test_opened_lazily(trace, saved):
    got = es.open_trace(saved)
    for file in (saved / "tagger" / "c").rglob("c/0/9*/0"):
        file.unlink()
    # What is not asked for is not read.
    read = got["tagger"].c.isel(time=slice(3, 40), unit=[5, 1]).sel(batch=2)
    np.testing.assert_array_equal(
        read.values, trace["tagger"].c.values[2, 3:40, :][:, [5, 1]], strict=True
    )


def test_a_lazy_trace_is_saved_block_by_block(trace, saved, tmp_path, small_blocks, monkeypatch):
    source = es.open_trace(saved)
    sizes, write = [], zarr.Array.__setitem__

    def note(array, place, values):
        if values.ndim == 3:
            sizes.append(values.shape[1])
        write(array, place, values)

    monkeypatch.setattr(zarr.Array, "__setitem__", note)
    es.save_trace(source, tmp_path / "b.zarr")
    assert set(sizes) == {32, 300 % 32, 83}
    assert sum(sizes) == 6 * 300 + 2 * 83
    assert_same(es.open_trace(tmp_path / "b.zarr"), trace)
    # Nor does the source keep what was read.
    assert not source["tagger"].c.variable._in_memory


def test_progress_counts_the_steps_of_all_layers(trace, tmp_path, small_blocks):
    calls = []
    es.save_trace(trace, tmp_path / "run.zarr", progress=lambda *each: calls.append(each))
    done = [done for done, _ in calls]
    assert {total for _, total in calls} == {383}
    assert done[-1] == 383
    assert done == sorted(set(done))
    assert len(done) == 11


def test_layers_advance_together(trace, tmp_path, small_blocks):
    marks = []

    def note(done: int, total: int) -> None:
        text = (tmp_path / "run.zarr" / "everystate.json").read_text()
        marks.append(json.loads(text)["done"])

    es.save_trace(trace, tmp_path / "run.zarr", progress=note)
    assert marks[1] == {"/tagger": 32, "/encoder/lstm/backward": 83}


def test_float_files_are_compressed_and_checked(saved):
    h = zarr.open_group(saved, mode="r")["tagger/h"]
    assert [type(codec).__name__ for codec in h.compressors] == ["BloscCodec", "Crc32cCodec"]
    assert np.isnan(h.fill_value)


def test_an_empty_folder_may_be_taken(trace, tmp_path):
    (tmp_path / "run.zarr").mkdir()
    assert_same(es.open_trace(es.save_trace(trace, tmp_path / "run.zarr")), trace)


def test_folders_above_are_made(trace, tmp_path):
    path = es.save_trace(trace, str(tmp_path / "results" / "today" / "run.zarr"))
    assert_same(es.open_trace(path), trace)


@pytest.mark.parametrize("what", [xr.Dataset(), xr.DataArray(1), None, "run.zarr"])
def test_what_is_no_tree_is_refused(tmp_path, what):
    with pytest.raises(InputTypeError, match=f"got a {type(what).__name__}; expected a trace"):
        es.save_trace(what, tmp_path / "run.zarr")
    assert list(tmp_path.iterdir()) == []


def test_a_part_of_a_trace_is_refused(trace, tmp_path):
    with pytest.raises(TraceFormatError, match="'/encoder/lstm', has no attribute 'everystate_sch"):
        es.save_trace(trace["encoder/lstm"], tmp_path / "run.zarr")
    part = trace["encoder/lstm"].copy()
    part.attrs = trace.attrs
    got = es.open_trace(es.save_trace(part, tmp_path / "run.zarr"))
    assert got.groups == ("/", "/backward")


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("coords", pd.date_range("2021", periods=9, tz="UTC"), "time zone"),
        ("attrs", dt.date(2021, 3, 4), "date is not JSON serializable"),
        ("data", np.array([{1}, [2], None] * 3, dtype=object), "the trace holds something that"),
    ],
)
def test_what_zarr_cannot_hold_is_refused(make_leaf, trace, tmp_path, name, value, said):
    layer = make_leaf(2, 9, 3, "float32", "h", seed=10)
    if name == "coords":
        layer = layer.assign_coords(time=value)
    elif name == "attrs":
        layer.attrs["when"] = value
    else:
        layer["odd"] = ("time", value)
    with pytest.raises(TraceWriteError, match=said):
        es.save_trace(edit(trace, "/decoder", layer), tmp_path / "run.zarr")
    assert list(tmp_path.iterdir()) == []
