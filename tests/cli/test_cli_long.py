"""``everystate record --memory --resume``: a series in chunks of time, from the disk."""

import numpy as np
import pytest
import zarr
from safetensors.numpy import load_file, save_file

import everystate as es
from everystate.errors import TraceWriteError
from everystate.frameworks.numpy.stack import Stack


@pytest.fixture
def long(folder) -> np.ndarray:
    x = np.random.default_rng(3).normal(size=(700, 2)).astype(np.float32)
    np.save("long.npy", x)
    zarr.create_array("long.zarr", data=x, chunks=(100, 2))
    return x


@pytest.mark.parametrize("data", ["long.npy", "long.zarr"])
def test_a_series_is_recorded_in_chunks(run, weights, long, data, monkeypatch):
    def never(*args, **options):
        raise AssertionError("it is not saved at once")

    expected = es.record(weights, long[None])["encoder"].to_dataset()
    monkeypatch.setattr("everystate.storage.save_trace", never)
    args = ("record", weights, data, "-o", "run.zarr", "--memory", "80kB", "--json")
    done = run(*args)
    assert done.code == 0, done.err
    assert done.json["data"]["shape"] == [700, 2]
    assert es.open_trace("run.zarr").attrs["model"] == str(weights)
    got = es.open_trace("run.zarr")["encoder"].to_dataset()
    for name in expected.data_vars:
        np.testing.assert_allclose(got[name], expected[name], atol=1e-5)
    assert run(*args).code == 1
    assert run(*args, "--overwrite").code == 0
    # All is done: nothing runs but the first steps, by which the model is recognised.
    ran, call = [], Stack.__call__

    def noted(stack, x, *rest, **options):
        ran.append(x.shape)
        return call(stack, x, *rest, **options)

    monkeypatch.setattr(Stack, "__call__", noted)
    assert run(*args, "--resume").code == 0
    assert ran == [(48, 2)]


def test_a_finished_trace_of_a_weights_file_that_changed_since(run, weights, long):
    args = ("record", weights, "long.npy", "-o", "run.zarr", "--memory", "80kB")
    assert run(*args).code == 0
    tensors = load_file(weights)
    save_file({name: 1.1 * a for name, a in tensors.items()}, weights)
    done = run(*args, "--resume")
    assert done.code == 1
    assert "its weights are others" in done.err
    save_file(tensors, weights)
    assert run(*args, "--resume").code == 0


def test_an_interruption_is_gone_on_with(run, weights, long, monkeypatch):
    expected = es.record(weights, long[None])["encoder"].to_dataset()
    record, stops = es.record, [256]

    def interrupted(*args, progress=None, **options):
        def tick(done, total):
            progress(done, total)
            if stops and done >= stops[0]:
                stops.clear()
                raise KeyboardInterrupt

        return record(*args, progress=tick, **options)

    monkeypatch.setattr("everystate.streaming.verbs.record", interrupted)
    np.save("other.npy", long + 1)
    args = ("record", weights, "long.npy", "-o", "run.zarr", "--memory", "80kB", "--resume")
    done = run(*args)
    assert done.code == 130
    assert "run.zarr is incomplete: /encoder 256 steps were saved." in done.err
    assert es.open_trace("run.zarr", incomplete="trim").attrs["model"] == str(weights)
    done = run(*args[:-1])
    assert done.err.endswith("or add --overwrite. Go on with what was stopped there: --resume.\n")
    with pytest.raises(TraceWriteError, match=r"overwrite=True\. Go on with .* there: resume=True"):
        es.record(weights, long[None], store="run.zarr")
    done = run("record", weights, "other.npy", *args[3:])
    assert "record anew: --overwrite instead of --resume." in done.err
    done = run(*args)
    assert done.code == 0, done.err
    got = es.open_trace("run.zarr")["encoder"].to_dataset()
    for name in expected.data_vars:
        np.testing.assert_allclose(got[name], expected[name], atol=1e-5)


def test_a_model_from_python_goes_by_the_name_it_was_given(run, weights, long, folder):
    code = f"from everystate.frameworks.numpy import load\nmodel = load({str(weights)!r})"
    (folder / "mine_in_chunks.py").write_text(code + "['encoder']\n")
    args = ("record", "mine_in_chunks:model", "long.npy", "--batch-first", "--overwrite")
    for chunks in ((), ("--memory", "80kB")):
        done = run(*args, "-o", "run.zarr", *chunks)
        assert done.code == 0, done.err
        assert es.open_trace("run.zarr").attrs["model"] == "mine_in_chunks:model"


def test_a_zarr_array_is_read_at_once_too(run, weights, long):
    done = run("record", weights, "long.zarr", "-o", "run.zarr")
    assert done.code == 0, done.err
    assert es.open_trace("run.zarr")["encoder"].sizes["time"] == 700
    assert run("record", weights, "none.zarr", "-o", "other.zarr").code == 1


def test_smaller_numbers_are_kept(run, weights, long):
    expected = es.record(weights, long[None])["encoder"].c
    done = run("record", weights, "long.npy", "-o", "run.zarr", "--stored-as", "bfloat16")
    assert done.code == 0, done.err
    got = es.open_trace("run.zarr")["encoder"]
    error = float(abs(got.c - expected).max())
    assert 0 < error <= 2**-8 * float(abs(expected).max())
    assert got.attrs["storage_error_c"] == pytest.approx(error, rel=0.01)
    done = run("record", weights, "long.npy", "-o", "b.zarr", "--stored-as", "int4")
    assert done.code == 1
    assert "stored_as='int4': expected one of float16, bfloat16, int8" in done.err
