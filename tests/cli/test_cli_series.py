"""DATA: what is read of each kind of file, what is taken for time, and what is refused."""

import pickle
import re
import sys
from pathlib import Path

import numpy as np
import pytest

import everystate as es
from everystate.cli.arguments.data import Reading
from everystate.cli.arguments.series import read_series
from everystate.errors import DataError, EverystateWarning, MissingDependencyError
from everystate.testing import importorskip


@pytest.fixture
def read(folder):
    """``read("data.csv", text, columns=, time=, array=)``."""

    def read(name, content=None, **options):
        if content is not None:
            Path(name).write_text(content, encoding="utf-8")
        return read_series(Path(name), Reading(**options))

    return read


def refused(read, *args, match, error=DataError, **options):
    with pytest.raises(error) as caught:
        read(*args, **options)
    for part in (match,) if isinstance(match, str) else match:
        assert part in str(caught.value)


# Arrays


def test_an_array(read):
    x = np.random.default_rng(0).normal(size=(3, 7, 2)).astype("float32")
    np.save("x.npy", x)
    series = read("x.npy")
    assert np.array_equal(series.values, x)
    assert (series.values.dtype, series.time, series.columns) == (np.dtype("float32"), None, ())
    chosen = read("x.npy", columns="1")
    assert np.array_equal(chosen.values, x[..., [1]])
    assert chosen.columns == ("1",)


@pytest.mark.parametrize("columns", ["2", "a", "0,-1"])
def test_an_array_has_no_such_column(read, columns):
    np.save("x.npy", np.zeros((7, 2)))
    refused(read, "x.npy", columns=columns, match=("shape (7, 2) has 2 columns without names"))


def test_the_only_array_of_several(read):
    np.savez("x.npz", series=np.ones((7, 2)))
    assert read("x.npz").values.shape == (7, 2)


def test_an_array_by_name(read):
    np.savez("x.npz", train=np.zeros((7, 2)), test=np.ones((9, 2)))
    assert read("x.npz", array="test").values.shape == (9, 2)
    refused(read, "x.npz", match=("there are train, test", "--array NAME"))
    refused(read, "x.npz", array="tset", match=("no array 'tset'; there are train, test"))


def test_time_is_another_array(read):
    np.savez("x.npz", Time=np.arange(7) * 2, x=np.ones((7, 2)), when=np.arange(7) * 3)
    assert read("x.npz", array="x").time.tolist() == list(range(0, 14, 2))
    assert read("x.npz", array="x", time="when").time.tolist() == list(range(0, 21, 3))
    assert read("x.npz", array="x", time="none").time is None
    refused(read, "x.npz", array="x", time="whne", match="no array 'whne'; there are Time, x, when")


def test_options_that_a_file_cannot_answer(read):
    np.save("x.npy", np.zeros((7, 2)))
    refused(read, "x.npy", time="t", match="an .npy file has no column 't' of time")
    refused(read, "x.npy", array="x", match="--array is for .npz files")
    assert read("x.npy", time="none").time is None


class Bomb:
    def __reduce__(self):
        return pytest.fail, ("the file was unpickled",)


@pytest.mark.parametrize("name", ["x.npy", "x.npz"])
def test_nothing_is_unpickled(read, name):
    Path(name).write_bytes(pickle.dumps(Bomb()))
    refused(read, name, match=("cannot be read by NumPy", "never opened"))


def test_arrays_of_objects_are_not_opened(read):
    objects = np.array([Bomb()], dtype=object)
    np.save("x.npy", objects, allow_pickle=True)
    refused(read, "x.npy", match="could run any code")
    np.savez("x.npz", x=objects)
    refused(read, "x.npz", match="the array 'x' cannot be read")


@pytest.mark.parametrize("name", ["x.npy", "x.npz"])
@pytest.mark.parametrize("content", [b"", b"rubbish", b"\x93NUMPY\x01\x00", b"PK\x03\x04rubbish"])
def test_damaged_arrays(read, name, content):
    Path(name).write_bytes(content)
    refused(read, name, match=f"{name} cannot be read by NumPy")


def test_an_npz_that_is_an_npy(read):
    np.save("x.npy", np.zeros((7, 2)))
    Path("x.npy").rename("x.npz")
    refused(read, "x.npz", match="holds one array, as .npy files do")


def test_other_files(read):
    Path("x.xlsx").write_text("")
    refused(read, "x.xlsx", match="expected .npy, .npz, .csv, .tsv, .parquet")
    Path("there.csv").write_text("1\n2\n")
    refused(read, "their.csv", match=("there is no file their.csv", "there is there.csv"))
    refused(read, "x.npy", match="there is no file x.npy")


# CSV


def test_a_header_and_a_time_column(read):
    series = read("x.csv", "a,Timestamp,b\n1,2020-01-01,2.5\n3,2020-01-02,-4e1\n")
    assert series.values.tolist() == [[1, 2.5], [3, -40]]
    assert series.columns == ("a", "b")
    assert series.time_column == "Timestamp"
    assert series.time.astype("datetime64[D]").astype(str).tolist() == ["2020-01-01", "2020-01-02"]


@pytest.mark.parametrize("name", ["time", "TIME", "timestamp", "Datetime", "date"])
def test_names_of_time(read, name):
    assert read("x.csv", f"a,{name}\n1,10\n2,20\n").time.tolist() == [10, 20]


def test_no_header(read):
    series = read("x.csv", "1,2\n3,4\n")
    assert series.values.tolist() == [[1, 2], [3, 4]]
    assert series.columns == ("0", "1")
    assert series.time is None


def test_dates_in_the_first_column_without_a_header(read):
    series = read("x.csv", "2020-01-01T00:00:00Z,1\n2020-01-01T01:30:00+01:00,2\n")
    assert series.values.tolist() == [[1], [2]]
    assert (series.time[1] - series.time[0]) == np.timedelta64(30, "m")


def test_the_index_that_pandas_writes(read):
    series = read("x.csv", ",a,b\n0,1,2\n1,3,4\n")
    assert series.columns == ("a", "b")
    assert series.time.tolist() == [0, 1]


def test_a_number_that_increases_is_a_feature(read):
    series = read("x.csv", "level,flow\n1,7\n2,8\n3,5\n")
    assert series.columns == ("level", "flow")
    assert series.time is None


def test_time_and_columns_by_choice(read):
    text = "time,level,flow\n10,1,7\n20,2,8\n"
    assert read("x.csv", text, time="none").columns == ("time", "level", "flow")
    by_name = read("x.csv", text, time="level", columns="flow,time")
    assert by_name.time.tolist() == [1, 2]
    assert by_name.values.tolist() == [[7, 10], [8, 20]]
    by_number = read("x.csv", text, time="1", columns="2, 0")
    assert np.array_equal(by_number.values, by_name.values)


def test_labels_keep_their_kind(read):
    assert read("x.csv", "time,a\n1,1\n2,2\n").time.dtype == "int64"
    assert read("x.csv", "time,a\n0.5,1\n1,2\n").time.dtype == "float64"
    assert read("x.csv", "time,a\nmonday,1\ntuesday,2\n").time.tolist() == ["monday", "tuesday"]


@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_separators_comments_and_empty_lines(read, separator):
    text = "# from a logger\na,b\n\n1,2\n# a note\n3,4\n".replace(",", separator)
    series = read("x.csv", text)
    assert series.columns == ("a", "b")
    assert series.values.tolist() == [[1, 2], [3, 4]]


def test_what_spreadsheets_write(read):
    Path("x.csv").write_bytes('\ufeff"a, in bar","b"\r\n"1","2"\r\n'.encode())
    series = read("x.csv")
    assert series.columns == ("a, in bar", "b")
    assert series.values.tolist() == [[1, 2]]


@pytest.mark.parametrize("missing", ["", "NA", "n/a", "NaN", "null", "None", " "])
def test_missing_values_are_nan(read, missing):
    values = read("x.csv", f"a,b\n1,{missing}\n3,inf\n").values
    assert np.array_equal(values, [[1, np.nan], [3, np.inf]], equal_nan=True)


def test_one_column(read):
    series = read("x.csv", "pressure\n1\n2\n")
    assert series.values.tolist() == [[1], [2]]
    assert read("x.csv", "time\n1\n2\n", time="none").values.tolist() == [[1], [2]]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty"),
        ("# nothing\n\n", "is empty"),
        ("a,b\n", "has a header but no rows"),
        ("a,b\n1,2\n3\n", "x.csv, line 3: 1 cells, but 2 in the first line"),
        ("a,b\n# note\n1,2,9\n", "x.csv, line 3: 3 cells"),
        ("a,b\n1,x\n", "column 'b', row 1: 'x' is no number, as a feature must be"),
        ("a,b\n1,2\n3,4 m\n", "column 'b', row 2: '4 m' is no number"),
        ("time,a\n1,2\n,3\n", "column 'time' labels the steps, but row 2 has no value"),
        ("time\n1\n2\n", "there is no column but the time, 'time'"),
        ('a,b\n1,"2\n', "cannot be read as text"),
    ],
)
def test_tables_that_are_no_series(read, text, message):
    refused(read, "x.csv", text, match=("x.csv", message))


@pytest.mark.parametrize(
    ("text", "cell"),
    [("a;b\n1,5;2\n", "1,5"), ('a,b\n1,"1,234,5"\n', "1,234,5"), ("1,5;2,5\n3,5;4,5\n", "5;4")],
)
def test_a_decimal_comma_is_named(read, text, cell):
    refused(read, "x.csv", text, match=(f"row 1: {cell!r} is no number", "It has a decimal comma"))


def test_columns_of_numbers_are_suggested(read):
    text = "site,flow,level\nnorth,1,2\n"
    refused(
        read, "x.csv", text, time="none", match=("'north' is no number", "--columns flow,level.")
    )
    refused(read, "x.csv", text, match="--columns flow,level; or name the time: --time NAME.")
    refused(read, "x.csv", "a,b\n1,2\nx,3\n", match="Choose others: --columns A,B;")


@pytest.mark.parametrize(
    ("times", "message"),
    [
        ("2,3,3,4", "'time' has 3 in row 3, after 3 (1 such places)"),
        ("2,3,1,0", "'time' has 1 in row 3, after 3 (2 such places)"),
        ("2026-01-02,2026-01-01", "'time' has 2026-01-01T00:00:00.000000 in row 2"),
        ("31.12.2026 00:00,01.01.2027 00:00", "'31.12.2026 00:00' is no date of ISO 8601"),
        ("2026-01-01,1/2/2026", "'1/2/2026' is no date of ISO 8601"),
    ],
)
def test_labels_that_are_no_increasing_time(read, times, message):
    text = "time,a\n" + "".join(f"{t},1\n" for t in times.split(","))
    with pytest.warns(EverystateWarning, match=re.escape(message)):
        series = read("x.csv", text)
    assert series.time.size == len(times.split(","))


def test_the_time_of_arrays_that_does_not_increase(read):
    np.savez("x.npz", time=np.array([1, 0], "uint8"), x=np.ones((2, 2)))
    with pytest.warns(EverystateWarning, match="'time' has 0 in row 2, after 1"):
        read("x.npz")


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("times", ["1,2,5", "2026-01-01,2026-01-02", "tuesday,monday"])
def test_labels_of_which_there_is_nothing_to_say(read, times):
    text = "time,a\n" + "".join(f"{t},1\n" for t in times.split(","))
    assert read("x.csv", text).time.size == len(times.split(","))


def test_columns_that_are_not_there(read):
    text = "a,b,a\n1,2,3\n"
    refused(
        read, "x.csv", text, columns="c", match=("no column 'c'; the columns are 'a', 'b', 'a'")
    )
    refused(read, "x.csv", text, columns="7", match="no column '7'")
    refused(read, "x.csv", text, time="t", match="no column 't'")
    refused(read, "x.csv", text, columns="a", match=("several columns are called 'a'", "by number"))
    assert read("x.csv", text, columns="2").values.tolist() == [[3]]


def test_text_that_is_not_utf8(read):
    Path("x.csv").write_bytes("größe\n1\n".encode("latin-1"))
    refused(read, "x.csv", match="cannot be read as text in UTF-8")


def test_a_zip_called_csv(read):
    np.savez("x.npz", a=np.random.default_rng(0).bytes(200))
    Path("x.npz").rename("x.csv")
    with pytest.raises(DataError, match=r"x\.csv"):
        read("x.csv")


# Parquet


@pytest.fixture
def parquet(folder):
    pyarrow = importorskip("pyarrow")
    writer = importorskip("pyarrow.parquet")
    return lambda name, columns: writer.write_table(pyarrow.table(columns), name)


def test_a_parquet_table(read, parquet):
    import pyarrow as pa

    when = np.array(["2020-01-01", "2020-01-02"], dtype="datetime64[ns]")
    parquet(
        "x.parquet",
        {
            "a": [1, None],
            "sampled": pa.array(when),
            "b": [True, False],
            "c": pa.array([1.5, 2.5], pa.float32()),
        },
    )
    series = read("x.parquet")
    assert series.columns == ("a", "b", "c")
    assert np.array_equal(series.values, [[1, 1, 1.5], [np.nan, 0, 2.5]], equal_nan=True)
    assert series.time_column == "sampled"
    assert np.array_equal(series.time, when)


def test_dates_and_zones_of_parquet(read, parquet):
    import pyarrow as pa

    zoned = pa.array([0, 3_600_000], pa.timestamp("ms", tz="Europe/Berlin"))
    parquet("x.parquet", {"day": pa.array([0, 1], pa.date32()), "t": zoned, "a": [1.0, 2.0]})
    assert read("x.parquet", columns="a").time.astype(str)[1].startswith("1970-01-02")
    by_choice = read("x.parquet", columns="a", time="t")
    assert by_choice.time[1] - by_choice.time[0] == np.timedelta64(1, "h")


def test_the_index_of_a_pandas_frame(read, folder):
    pd = importorskip("pandas")
    importorskip("pyarrow")
    index = pd.date_range("2020-01-01", periods=3, freq="h")
    pd.DataFrame({"a": [1.0, 2, 3]}, index=index).to_parquet("x.parquet")
    series = read("x.parquet")
    assert series.columns == ("a",)
    assert np.array_equal(series.time, index.values)
    pd.DataFrame({"a": [1.0, 2, 3]}).to_parquet("x.parquet")
    assert read("x.parquet").time is None


def test_columns_of_parquet_that_are_no_numbers(read, parquet):
    parquet("x.parquet", {"a": [1.0, 2.0], "site": ["north", "south"], "list": [[1], [2]]})
    refused(read, "x.parquet", match="column 'site', row 1: 'north' is no number")
    refused(read, "x.parquet", columns="list", match="column 'list', row 1: '[1]' is no number")
    assert read("x.parquet", columns="a", time="site").time.tolist() == ["north", "south"]


def test_a_date_is_no_feature(read, parquet):
    parquet("x.parquet", {"a": [1.0], "t": np.array(["2020-01-01"], "datetime64[s]")})
    refused(read, "x.parquet", columns="t", match="column 't' holds datetime64")


def test_labels_that_are_missing_in_parquet(read, parquet):
    parquet("x.parquet", {"a": [1.0, 2.0], "time": [1, None]})
    refused(read, "x.parquet", match="column 'time' labels the steps, but row 2 has no value")


def test_parquet_that_is_none(read, parquet):
    Path("x.parquet").write_text("rubbish")
    refused(read, "x.parquet", match="is no readable Parquet file")
    parquet("x.parquet", {"a": np.array([], "float64")})
    refused(read, "x.parquet", match="holds no rows")


def test_parquet_without_pyarrow(read, monkeypatch):
    Path("x.parquet").write_text("")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    refused(
        read,
        "x.parquet",
        error=MissingDependencyError,
        match=("needs pyarrow: pip install 'everystate[parquet]'",),
    )


# On the command line


def test_a_table_is_recorded_with_its_labels(run, weights, folder):
    rows = "\n".join(f"2020-01-01T{k:02d}:00,{k},{-k}" for k in range(20))
    Path("x.csv").write_text(f"when,a,b\n{rows}\n")
    done = run("record", weights, "x.csv", "-o", "run.zarr")
    assert done.code == 0, done.err
    assert "read x.csv: 20x2 (a, b), time from 'when'\n" in done.err
    layer = es.open_trace("run.zarr")["encoder"]
    assert layer.h.sel(time="2020-01-01T07:00").sizes == {"batch": 1, "unit": 3}


def test_the_errors_of_data_reach_the_user(run, weights, folder):
    Path("x.csv").write_text("a,b\n1,x\n")
    done = run("record", weights, "x.csv", "-o", "run.zarr")
    assert (done.code, done.out) == (1, "")
    assert done.err.startswith("everystate: error: x.csv: column 'b', row 1: 'x' is no number")


def test_the_warning_of_order_reaches_the_user(run, weights, folder):
    Path("x.csv").write_text("time,a,b\n2,1,1\n1,1,1\n")
    done = run("record", weights, "x.csv", "-o", "run.zarr")
    assert done.code == 0, done.err
    assert "everystate: warning: x.csv: time is not increasing: 'time' has 1 in row 2" in done.err
