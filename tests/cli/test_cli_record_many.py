"""``everystate record-many`` from files to a trace, with a worker process of its own."""

import numpy as np
import pytest

import everystate as es
from everystate.testing import importorskip

importorskip("distributed")

LENGTHS = (9, 6, 9)


@pytest.fixture
def series(folder):
    """Write a folder of tables, one of them no numbers, and return their values."""
    rng = np.random.default_rng(2)
    (folder / "series").mkdir()
    found = [rng.normal(size=(length, 2)) for length in LENGTHS]
    for k, values in enumerate(found):
        rows = "".join(f"2026-01-{t + 1:02},{a:.17g},{b:.17g}\n" for t, (a, b) in enumerate(values))
        (folder / "series" / f"{k}.csv").write_text(f"time,flow,pressure\n{rows}")
    (folder / "series" / "9.csv").write_text("time,flow,pressure\n2026-01-01,one,two\n")
    return found


@pytest.mark.filterwarnings("default::everystate.errors.EverystateWarning")
def test_a_folder_of_tables(run, folder, weights, series):
    args = ("record-many", weights, "series", "-o", "many.zarr", "--workers", 1, "--json")
    done = run(*args)
    assert done.code == 1, done.err
    assert "1 of 4 sequences could not be recorded: " in done.err
    assert "9.csv" in done.err
    assert "dashboard: http://127.0.0.1:" in done.err
    assert done.out, done.err
    document = done.json
    assert (document["sequences"], document["shards_recorded"]) == (4, 1)
    assert list(document["failed"]) == ["series/9.csv"]
    trace = es.open_trace(folder / "many.zarr")
    (path,) = (leaf.path for leaf in trace.leaves)
    assert trace[path].length.values.tolist() == [*LENGTHS, 0]
    for row, values in enumerate(series):
        alone = es.record(str(weights), values[None])[path]
        found = trace[path].isel(batch=row, time=slice(0, len(values)))
        np.testing.assert_allclose(found.c, alone.c[0], atol=1e-6)
        np.testing.assert_allclose(found.f, alone.f[0], atol=1e-6)

    (folder / "series" / "9.csv").write_text("time,flow,pressure\n2026-01-01,1,2\n")
    again = run(*args[:-1])
    assert again.code == 0, again.err
    assert "wrote many.zarr: 4 sequences" in again.out
    assert es.open_trace(folder / "many.zarr")[path].length.values.tolist() == [*LENGTHS, 1]


def test_wrong_usage(run, weights, series):
    args = ("record-many", weights, "series", "-o", "many.zarr")
    done = run(*args, "--workers", 1, "--scheduler", "tcp://127.0.0.1:1")
    assert done.code == 2
    assert "cannot go with --workers" in done.err
    done = run(*args, "--memory", "much")
    assert done.code == 1
    assert "memory='much': expected a number of bytes" in done.err
    done = run("record-many", weights, "nowhere.zarr", "-o", "many.zarr", "--workers", 1)
    assert done.code == 1
    assert "there is nothing at this path" in done.err
