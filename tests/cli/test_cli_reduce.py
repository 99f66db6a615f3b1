"""``--reduce`` of ``record`` and ``record-many``: figures beside the steps, or in their place."""

import numpy as np
import pytest

import everystate as es
from everystate.analysis.reducers import Histogram, Quantiles
from everystate.cli.arguments.reducing import reducers
from everystate.errors import TraceFormatError
from everystate.testing import importorskip


@pytest.fixture
def long(folder) -> np.ndarray:
    x = np.random.default_rng(3).normal(size=(700, 2)).astype(np.float32)
    np.save("long.npy", x)
    return x


@pytest.mark.parametrize("full", [True, False])
def test_figures_of_a_series(run, weights, long, full):
    steps = es.record(weights, long[None])["encoder"].c.values.astype(np.float64)
    args = ["record", weights, "long.npy", "-o", "run.zarr", "--memory", "80kB"]
    args += ["--reduce", "moments,histogram(low=-2, high=2, bins=7)", "--variables", "c"]
    args += [] if full else ["--no-full"]
    done = run(*args)
    assert done.code == 0, done.err
    assert "encoder/c/moments" in done.out
    assert ("c" in done.out.split("figures")[0].split()) == full
    made = es.open_reductions("run.zarr")["encoder/c"]
    np.testing.assert_allclose(made["moments"]["std"], steps[0].std(axis=0), atol=1e-6)
    counts = np.histogram(steps[0, :, 1], bins=7, range=(-2, 2))[0]
    np.testing.assert_array_equal(made["histogram"]["histogram"][1], counts)
    done = run(*args, "--resume", "--json")
    assert done.json["reductions"]["encoder/c/moments"]["sizes"] == {"unit": 3}
    assert list(done.json["layers"]) == (["encoder"] if full else [])
    said = run("info", "run.zarr", "--json").json
    assert said["reductions"] == done.json["reductions"]
    assert list(said["layers"]) == (["encoder"] if full else [])
    assert "encoder/c/histogram" in run("info", "run.zarr").out
    if full:
        np.testing.assert_allclose(es.open_trace("run.zarr")["encoder"].c, steps, atol=1e-5)
    else:
        with pytest.raises(TraceFormatError, match="reductions alone"):
            es.open_trace("run.zarr")


def test_figures_of_many_sequences(run, weights, long):
    importorskip("distributed")
    np.save("many.npy", np.stack([long[:90], long[100:190], long[200:290]]))
    args = ["record-many", weights, "many.npy", "-o", "many.zarr", "--workers", 1]
    args += ["--reduce", "range", "--no-full", "--variables", "c"]
    done = run(*args)
    assert done.code == 0, done.err
    assert "encoder/c/range" in done.out
    alone = es.record(weights, long[None, 100:190])["encoder"].c.values[0]
    made = es.open_reductions("many.zarr")["encoder/c/range"]
    np.testing.assert_allclose(made["max"][1], alone.max(axis=0), atol=1e-6)
    done = run(*args, "--json")
    assert done.json["shards_recorded"] == 0
    assert done.json["reductions"]["encoder/c/range"]["sizes"] == {"batch": 3, "unit": 3}


def test_reducers_from_text():
    made = reducers("Quantiles(q=(0.5,), k=20), histogram")
    assert made == {"quantiles": Quantiles((0.5,), 20), "histogram": Histogram()}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("moment", "moment is none of autocorrelation,"),
        ("moments,moments", "one is named twice"),
        ("histogram(3)", "options are given by name"),
        ("histogram(bin=3)", "unexpected keyword argument"),
        ("histogram(bins=0)", "expected low < high|bins=0"),
        ("histogram(bins=print(1))", "malformed node"),
        ("__import__('os').system('true')", "is none of"),
        ("range(", "was never closed|invalid syntax|unexpected EOF"),
    ],
)
def test_what_is_no_reducer(run, weights, long, text, said):
    done = run("record", weights, "long.npy", "-o", "run.zarr", "--reduce", text)
    assert done.code in (1, 2)
    assert any(each in " ".join(done.err.split()) for each in said.split("|")), done.err


def test_wrong_usage(run, weights, long):
    done = run("record", weights, "long.npy", "-o", "run.zarr", "--no-full")
    assert done.code == 2
    assert "needs --reduce" in done.err
    args = ("record", weights, "long.npy", "-o", "run.zarr", "--no-full", "--reduce", "range")
    done = run(*args, "--report", "run.html")
    assert done.code == 2
    assert "which --no-full does not keep" in " ".join(done.err.split())
