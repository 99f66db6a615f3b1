"""``everystate record``: what it writes, what it prints, and what it refuses."""

import os
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file
from typer.testing import CliRunner

import everystate as es
from everystate.cli import record as record_command
from everystate.cli.main import app
from everystate.errors import SelectionError
from everystate.testing import importorskip

T, D, U = 30, 2, 3


def values_equal(a, b):
    return all(
        np.array_equal(a[leaf.path][name].values, leaf[name].values)
        for leaf in b.leaves
        for name in leaf.data_vars
    )


def test_a_weights_file_is_recorded(run, weights, data, x):
    done = run("record", weights, data, "-o", "run.zarr")
    assert done.code == 0
    trace = es.open_trace("run.zarr")
    assert values_equal(trace, es.record(weights, x))
    assert trace.attrs["model"] == "weights.safetensors"
    assert "encoder" in done.out
    assert "batch 1, time 30, unit 3" in done.out
    assert done.out.endswith("wrote run.zarr\n")
    assert done.err == "read data.npy: 30x2\nnot recurrent, not run: head.weight\n"


def test_json_is_one_document_and_nothing_else(run, weights, folder, x):
    Path("data.csv").write_text(
        "time,a,b\n" + "\n".join(f"{k},{a},{b}" for k, (a, b) in enumerate(x))
    )
    done = run("record", weights, "data.csv", "-o", "run.zarr", "--json", "--variables", "h,f")
    assert (done.code, done.err) == (0, "")
    document = done.json
    assert document["trace"] == "run.zarr"
    assert document["report"] is None
    assert document["model"] == "weights.safetensors"
    assert document["data"] == {"shape": [T, D], "columns": ["a", "b"], "time": "time"}
    assert document["seconds"] > 0
    [layer] = document["layers"].values()
    assert list(document["layers"]) == ["encoder"]
    assert layer["sizes"] == {"batch": 1, "time": T, "unit": U}
    assert list(layer["variables"]) == ["h", "f", "initial_h", "initial_c"]
    assert layer["variables"]["f"] == {"dtype": "float32", "origin": "observed"}


def test_options_select_what_is_recorded(run, weights, data, x):
    options = [
        "--variables",
        "c,inputs",
        "--units",
        "2,0",
        "--every",
        "4",
        "--window=2:-3",
        "--dtype",
        "float16",
    ]
    done = run("record", weights, data, "-o", "run.zarr", "--layers", "enc*", *options)
    assert done.code == 0, done.err
    select = es.Select(
        variables=("c", "inputs"), units=[2, 0], every=4, window=(2, -3), dtype="float16"
    )
    expected = es.record(weights, x, select=select)
    trace = es.open_trace("run.zarr")
    assert values_equal(trace, expected)
    assert trace["encoder"].c.dtype == "float16"
    assert trace["encoder"].time.values.tolist() == list(range(2, 27, 4))
    assert trace["encoder"].unit.values.tolist() == [2, 0]


@pytest.mark.parametrize(
    ("units", "expected"), [("1:", [1, 2]), ("::2", [0, 2]), ("-1", [2]), ("0, 2", [0, 2])]
)
def test_units_are_numbers_or_a_slice(run, weights, data, units, expected):
    assert run("record", weights, data, "-o", "run.zarr", f"--units={units}").code == 0
    assert es.open_trace("run.zarr")["encoder"].unit.values.tolist() == expected


def test_one_of_several_stacks(run, two_stacks, data):
    done = run("record", two_stacks, data, "-o", "run.zarr", "--layers", "encoder")
    assert done.code == 0, done.err
    assert [leaf.path for leaf in es.open_trace("run.zarr").leaves] == ["/encoder"]


def test_a_batch_and_time_first(run, weights, folder):
    x = np.random.default_rng(2).normal(size=(4, T, D))
    np.save("batch.npy", x)
    np.save("time.npy", x.swapaxes(0, 1))
    assert run("record", weights, "batch.npy", "-o", "a.zarr").code == 0
    assert run("record", weights, "time.npy", "-o", "b.zarr", "--time-first").code == 0
    a, b = (es.open_trace(path) for path in ("a.zarr", "b.zarr"))
    assert dict(a["encoder"].h.sizes) == {"batch": 4, "time": T, "unit": U}
    assert values_equal(a, b)


def test_a_relu_network(run, folder, data, x):
    rng = np.random.default_rng(3)
    tensors = {"weight_ih_l0": rng.normal(size=(U, D)), "weight_hh_l0": rng.normal(size=(U, U)) / 9}
    save_file(tensors, "rnn.safetensors")
    assert (
        run("record", "rnn.safetensors", data, "-o", "a.zarr", "--nonlinearity", "relu").code == 0
    )
    h = es.open_trace("a.zarr")["rnn"].h.values[0]
    np.testing.assert_allclose(h[0], np.maximum(tensors["weight_ih_l0"] @ x[0], 0))
    assert es.open_trace("a.zarr")["rnn"].attrs["activation"] == "relu"


def test_a_report_is_written_too(run, weights, data):
    importorskip("bokeh")
    done = run("record", weights, data, "-o", "run.zarr", "--report", "run.html")
    assert done.code == 0, done.err
    assert done.out.endswith("wrote run.zarr and run.html\n")
    assert "<html" in Path("run.html").read_text()


def test_a_trace_is_not_overwritten_unasked(run, weights, data, trace):
    before = sorted(p.stat().st_mtime_ns for p in trace.rglob("*"))
    done = run("record", weights, data, "-o", trace)
    assert done.code == 1
    assert done.err == (
        "everystate: error: run.zarr is taken. Choose another path, or add --overwrite.\n"
    )
    assert sorted(p.stat().st_mtime_ns for p in trace.rglob("*")) == before
    done = run("record", weights, data, "-o", trace, "--overwrite", "--variables", "h")
    assert done.code == 0, done.err
    assert "c" not in es.open_trace(trace)["encoder"]


def test_what_is_no_trace_is_never_overwritten(run, weights, data):
    done = run("record", weights, data, "-o", "data.npy", "--overwrite")
    assert done.code == 1
    assert "never overwritten" in done.err
    assert np.load("data.npy").shape == (T, D)


def test_a_folder_that_cannot_be_written_is_refused_before_anything_runs(
    run, weights, data, monkeypatch
):
    monkeypatch.setattr("os.access", lambda path, mode: mode != os.W_OK)
    monkeypatch.setattr(record_command, "open_model", lambda *_: pytest.fail("it ran"))
    done = run("record", weights, data, "-o", "sub/run.zarr")
    assert done.code == 1
    assert "cannot be written to. Choose another path." in done.err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--window", "5"], "Invalid value for --window: '5': expected START:STOP."),
        (["--window", "a:b"], "Invalid value for --window: 'a' is no whole number."),
        (["--window", "1:2:3"], "Invalid value for --window: '1:2:3': expected START:STOP."),
        (["--units", "1,x"], "Invalid value for --units: 'x' is no whole number."),
        (["--every", "x"], "Invalid value for '--every'"),
        (["--unknown"], "No such option: --unknown"),
    ],
)
def test_wrong_usage_exits_with_2(run, weights, data, options, message):
    done = run("record", weights, data, "-o", "run.zarr", *options)
    assert done.code == 2
    assert message in " ".join(done.err.replace("│", "").split())
    assert not Path("run.zarr").exists()


def test_missing_arguments_exit_with_2(run, weights, data):
    for given in ([], [weights], [weights, data]):
        assert run("record", *given).code == 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--every", "0"], "every=0: expected a whole number of steps, 1 or more."),
        (["--dtype", "int8"], "dtype='int8': expected one of float16, float32, float64."),
        (["--layers", "dec"], "no recurrent layer matches 'dec'; the model has: encoder."),
        (["--variables", "q"], "encoder: no variable 'q'; there are"),
        (["--units", "7"], "encoder: units=[7], but it has 3 units, 0 to 2."),
        (["--window", "50:60"], "window=slice(50, 60, None) holds none of the 30 steps."),
        (["--nonlinearity", "relu"], "holds no simple RNN"),
    ],
)
def test_selections_that_cannot_be_exit_with_1(run, weights, data, options, message):
    done = run("record", weights, data, "-o", "run.zarr", *options)
    assert done.code == 1
    assert done.err.startswith("everystate: error: ")
    assert message in done.err
    assert "Traceback" not in done.err
    assert done.out == ""
    assert not Path("run.zarr").exists()


def test_several_stacks_must_be_chosen_from(run, two_stacks, data):
    done = run("record", two_stacks, data, "-o", "run.zarr")
    assert done.code == 1
    assert "decoder (LSTM(1, 3)), encoder (LSTM(2, 3))" in done.err
    assert "--layers" in done.err


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (np.zeros((T, 5)), "encoder: got an input of shape (30, 5), expected (batch, time, 2)"),
        (np.zeros(T), "encoder: got an input of shape (30,)"),
        (np.zeros((2, 2, 2, 2)), "encoder: got an input of shape (2, 2, 2, 2)"),
        (np.zeros((0, D)), "It is empty, so there is nothing to record."),
        (np.zeros((3, 0, D)), "It is empty, so there is nothing to record."),
        (np.zeros((T, D), complex), "encoder: the input has dtype complex128"),
        (np.full((T, D), "a"), "encoder: the input has dtype <U1"),
    ],
    ids=lambda v: str(getattr(v, "shape", "")),
)
def test_data_that_do_not_fit_the_model(run, weights, folder, x, message):
    np.save("bad.npy", x)
    done = run("record", weights, "bad.npy", "-o", "run.zarr")
    assert done.code == 1
    assert message in done.err
    assert not Path("run.zarr").exists()


def test_nan_and_infinity_are_recorded_and_said(run, weights, folder, x):
    x[3, 1], x[5, 0] = np.nan, np.inf
    np.save("odd.npy", x)
    done = run("record", weights, "odd.npy", "-o", "run.zarr", "--json", "--variables", "h,inputs")
    assert done.code == 0, done.err
    assert done.json["trace"] == "run.zarr"
    assert "everystate: warning: encoder: 2 values of the input are NaN or infinite" in done.err
    inputs = es.open_trace("run.zarr")["encoder"].inputs.values[0]
    assert np.array_equal(inputs, x.astype("float32"), equal_nan=True)


@pytest.mark.parametrize("content", [b"", b"not weights at all"])
def test_a_foreign_weights_file(run, folder, data, content):
    Path("w.safetensors").write_bytes(content)
    done = run("record", "w.safetensors", data, "-o", "run.zarr")
    assert done.code == 1
    assert "w.safetensors is no complete safetensors file" in done.err


def test_a_weights_file_that_is_not_there(run, weights, data):
    done = run("record", "weigths.safetensors", data, "-o", "run.zarr")
    assert done.code == 1
    assert (
        "weigths.safetensors: there is no such file or folder. Beside it there is weights."
        in done.err
    )


def test_debug_lets_the_exception_through(weights, data):
    args = ["--debug", "record", str(weights), str(data), "-o", "run.zarr", "--every", "0"]
    assert isinstance(CliRunner().invoke(app, args).exception, SelectionError)


@pytest.mark.parametrize("where", ["recording", "writing"])
def test_an_interruption_says_what_was_saved(run, weights, data, monkeypatch, where):
    def interrupt(*args, **options):
        raise KeyboardInterrupt

    module, verb = {
        "recording": ("everystate.streaming.verbs", "record"),
        "writing": ("everystate.storage", "save_trace"),
    }[where]
    monkeypatch.setattr(import_module(module), verb, interrupt)
    done = run("record", weights, data, "-o", "run.zarr")
    assert done.code == 130
    expected = {
        "recording": "interrupted while recording: nothing was written to run.zarr.",
        "writing": "interrupted while writing: nothing was kept in run.zarr.",
    }
    assert done.err.endswith(f"{expected[where]}\neverystate: interrupted.\n")
    assert done.out == ""


def test_an_interruption_while_writing_keeps_what_is_complete(run, weights, folder, monkeypatch):
    np.save("long.npy", np.zeros((60_000, D)))
    monkeypatch.setattr("everystate.storage.layout.SHARD_BYTES", 2**16)
    monkeypatch.setattr(record_command, "progress", _interrupting)
    done = run("record", weights, "long.npy", "-o", "run.zarr")
    assert done.code == 130
    assert "run.zarr is incomplete: /encoder " in done.err
    assert "Open them with --trim." in done.err
    done_later = run("summary", "run.zarr")
    assert done_later.code == 1
    assert done_later.err.endswith("On the command line: --trim.\n")
    assert run("summary", "run.zarr", "--trim").code == 0
    kept = es.open_trace("run.zarr", incomplete="trim")["encoder"].sizes["time"]
    assert 0 < kept < 60_000
    assert f"/encoder {kept} steps" in done.err


def test_an_interruption_while_replacing_leaves_the_old_trace(
    run, weights, data, trace, monkeypatch
):
    monkeypatch.setattr(record_command, "progress", _interrupting)
    done = run("record", weights, data, "-o", trace, "--overwrite")
    assert done.code == 130
    assert "run.zarr is as it was before." in done.err
    assert es.open_trace(trace)["encoder"].sizes["time"] == T


class _interrupting:  # noqa: N801 - in the place of a function
    """Progress that is interrupted while the trace is written."""

    def __init__(self, task):
        self.task = task

    def __enter__(self):
        return self.tick

    def __exit__(self, *_):
        return None

    def tick(self, done, total):
        if self.task == "writing":
            raise KeyboardInterrupt
