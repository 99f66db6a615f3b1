"""What the callbacks of training share: which epochs, and where to."""

import gc
import weakref

import pytest

import cases
import everystate as es
from everystate.errors import SelectionError, TraceWriteError
from everystate.recording.epochs import Epochs
from everystate.recording.recorder import Recorder
from everystate.recording.selection import Select
from observed import observed


def probe(seed):
    recorder = Recorder("model", "numpy", Select())
    recorder.observe(observed(cases.case("gru", seed=seed), lengths=[7, 3, 5]))
    return recorder.trace


def test_the_first_epoch_replaces_an_older_store_and_the_rest_follow(tmp_path):
    path = es.save_trace(probe(0), tmp_path / "run.zarr")
    epochs, traces = Epochs(1, path, 3, overwrite=True), {0: probe(1), 3: probe(2), 6: probe(3)}
    assert es.open_trace(path)["encoder/rnn"].z.dims == ("batch", "time", "unit")
    for epoch, trace in traces.items():
        epochs.add(epoch, trace.copy())
    leaf = es.open_trace(path)["encoder/rnn"]
    assert leaf.z.dims == ("epoch", "batch", "time", "unit")
    for epoch, trace in traces.items():
        shown = leaf.to_dataset().sel(epoch=epoch).drop_vars("epoch").load()
        assert shown.equals(trace["encoder/rnn"].to_dataset())
    errors = [trace["encoder/rnn"].attrs["max_error_h"] for trace in traces.values()]
    assert leaf.attrs["max_error_h"] == max(errors)


def test_an_epoch_that_was_written_is_held_by_nobody(tmp_path):
    epochs = Epochs(1, tmp_path / "run.zarr")
    gc.collect()
    gc.disable()  # what is freed now is freed at once
    try:
        for epoch in range(3):
            trace = probe(epoch)
            kept = weakref.ref(trace["encoder/rnn"].z.values.base)
            assert kept() is not None
            epochs.add(epoch, trace)
            if epoch:  # the first one is saved by save_trace, by way of a tree
                assert kept() is None
    finally:
        gc.enable()


def test_which_epochs_are_recorded(tmp_path):
    path = tmp_path / "run.zarr"
    assert [k for k in range(7) if Epochs(1, path, 3).wants(k)] == [0, 3, 6]
    for wrong in (0, 2.0, None, True):
        with pytest.raises(SelectionError, match="every="):
            Epochs(1, path, wrong)


def test_what_is_given_to_the_model_and_where_it_goes(tmp_path):
    path = tmp_path / "run.zarr"
    assert Epochs(1, path).inputs == (1,)
    assert Epochs([1, 2], path).inputs == (1, 2)
    path.mkdir()
    Epochs(1, path)  # an empty folder is nobody's
    (path / "zarr.json").write_text("{}")
    Epochs(1, path, overwrite=True)
    with pytest.raises(TraceWriteError, match="the path is taken"):
        Epochs(1, path)
