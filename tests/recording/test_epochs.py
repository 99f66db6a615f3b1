"""A probe's traces through training, joined along ``epoch``."""

import numpy as np
import pytest

import cases
from everystate.errors import SelectionError, TraceWriteError
from everystate.recording.epochs import Epochs
from everystate.recording.recorder import Recorder
from everystate.recording.selection import Select
from observed import observed


def probe(seed):
    recorder = Recorder("model", "numpy", Select())
    recorder.observe(observed(cases.case("gru", seed=seed), lengths=[7, 3, 5]))
    return recorder.trace


def test_epochs_are_the_first_dimension_and_keep_their_own_values(tmp_path):
    epochs, traces = Epochs(1, tmp_path / "run.zarr", 3), {0: probe(1), 3: probe(2), 6: probe(3)}
    for epoch, trace in traces.items():
        joined = epochs.joined(epoch, trace)
    leaf = joined["encoder/rnn"]
    assert leaf.z.dims == ("epoch", "batch", "time", "unit")
    assert leaf.length.dims == ("batch",)
    for epoch, trace in traces.items():
        for name, variable in trace["encoder/rnn"].data_vars.items():
            np.testing.assert_array_equal(leaf[name].sel(epoch=epoch), variable)
    errors = [trace["encoder/rnn"].attrs["max_error_h"] for trace in traces.values()]
    assert leaf.attrs["max_error_h"] == max(errors)
    assert "weights_sha256" not in leaf.attrs
    assert joined.attrs["everystate_schema"] == 1


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
