"""Cells of TensorFlow 1 that run eagerly: recorded whole, in chunks, and in a step of one's own."""

from typing import Any

import numpy as np
import pytest

import everystate as es
import mutations
from cases import case
from everystate.errors import NothingRecordedError, UnsupportedModelError
from everystate.testing import importorskip

tf = importorskip("tensorflow")

from everystate.frameworks.tensorflow import dynamic_rnn, rnn_cell

T = 150
LAYERS = [
    case("lstm", seed=1, sizes=(T, 3, 4, 5), forget_bias=0.5, peephole=True, projected=2),
    case("gru", seed=2, sizes=(T, 3, 2, 6), reset="before"),
]
PATHS = [f"multi_rnn_cell/cell_{k}" for k in range(2)]


@pytest.fixture
def x() -> np.ndarray:
    return LAYERS[0].x.swapaxes(0, 1)


@pytest.fixture
def cell(tf_cell, load, x) -> Any:
    inner = [tf_cell(given) for given in LAYERS]
    made = rnn_cell.MultiRNNCell(inner)
    dynamic_rnn(made, tf.constant(x[:, :1]), initial_state=begins())
    load(inner, LAYERS)
    return made


def begins() -> Any:
    lstm, gru = (given.initial for given in LAYERS)
    return rnn_cell.LSTMStateTuple(*map(tf.constant, (lstm["c"], lstm["h"]))), tf.constant(gru["h"])


def step_of(cell: Any) -> Any:
    def step(chunk: Any, state: Any) -> Any:
        state = begins() if state is None else state
        outputs, state, _ = dynamic_rnn(cell, tf.constant(chunk), initial_state=state)
        return outputs, state

    return step


def check(trace: Any, gates: Any = None) -> None:
    """Compare with the equations in float64, layer upon layer."""
    x = LAYERS[0].x
    for path, given, wrong in zip(PATHS, LAYERS, gates or [None, None], strict=True):
        values = given.with_(x=x).expected(gates=wrong).values
        layer = trace[path].to_dataset().transpose("time", "batch", ...)
        for name, a in given.initial.items():
            np.testing.assert_allclose(layer[name], values[name], rtol=0, atol=1e-9)
            np.testing.assert_allclose(layer[f"initial_{name}"], a, rtol=0, atol=1e-12)
        x = values["h"]


class StopError(Exception):
    pass


def test_a_step_of_ones_own_is_gone_on_with(cell, x, tmp_path):
    """The state that it returned, structure and all, is what it is given."""

    def stop(done: int, total: int) -> None:
        if done >= 74:
            raise StopError

    options = {"store": tmp_path / "run.zarr", "step": step_of(cell), "chunk": 37, "time_axis": 1}
    with pytest.raises(StopError):
        es.record(cell, x, progress=stop, **options)
    trace = es.record(cell, x, resume=True, **options)
    check(trace)
    assert not any("state_resets" in leaf.attrs for leaf in trace.leaves)
    for fault, wrong in mutations.of_gates(LAYERS[1].gates):
        with mutations.must_be_noticed(fault):
            check(trace, [None, wrong])


def test_whole_and_in_chunks(cell, x, tmp_path):
    whole = es.record(cell, x, begins())
    check(whole)
    from_zero = es.record(cell, x)
    got = es.record(cell, x, store=tmp_path / "run.zarr", chunk=37)
    for path in PATHS:
        assert not from_zero[path].initial_h.any()
        assert float(abs(got[path].h - from_zero[path].h).max()) == 0
        assert float(abs(whole[path].h - from_zero[path].h).max()) > 0.1


def test_calls_of_the_users_own(cell, x):
    lengths = np.array([9, 20, 5])
    with es.recording(cell) as recorder:
        turned = tf.constant(x.swapaxes(0, 1)[:20])
        dynamic_rnn(cell, turned, lengths, initial_state=begins(), time_major=True)
        dynamic_rnn(rnn_cell.GRUCell(2), tf.constant(x), dtype=tf.float64)  # another one
    assert [leaf.path.strip("/") for leaf in recorder.trace.leaves] == PATHS
    x = LAYERS[0].x[:20]
    for path, given in zip(PATHS, LAYERS, strict=True):
        values = given.with_(x=x).expected(lengths=lengths).values
        layer = recorder.trace[path].to_dataset().transpose("time", "batch", ...)
        assert layer.length.values.tolist() == lengths.tolist()
        for row, length in enumerate(lengths):
            got, expected = (a[:length, row] for a in (layer.h.values, values["h"]))
            np.testing.assert_allclose(got, expected, rtol=0, atol=1e-10)
            assert np.isnan(layer.h.values[length:, row]).all()
        x = given.with_(x=x).expected().values["h"]


@pytest.mark.parametrize("kind", ["LSTMCell", "BasicRNNCell"])
def test_a_cell_alone_goes_by_its_class(kind, x):
    single = getattr(rnn_cell, kind)(4)
    trace = es.record(single, x)
    name = {"LSTMCell": "lstm_cell", "BasicRNNCell": "basic_rnn_cell"}[kind]
    outputs, _, _ = dynamic_rnn(single, tf.constant(x), dtype=tf.float64)
    np.testing.assert_array_equal(trace[name].h, outputs)


def test_states_side_by_side_are_no_h(x):
    cell = rnn_cell.BasicLSTMCell(4, state_is_tuple=False)
    stack = rnn_cell.MultiRNNCell([rnn_cell.GRUCell(4), rnn_cell.GRUCell(2)], state_is_tuple=False)
    for model, size in ((cell, 8), (stack, 6)):
        (leaf,) = es.record(model, x).leaves
        outputs, final, _ = dynamic_rnn(model, tf.constant(x), dtype=tf.float64)
        assert set(leaf.data_vars) == {"state_0", "initial_state_0"}
        assert leaf["state_0"].shape == (*x.shape[:2], size)
        np.testing.assert_array_equal(leaf["state_0"][:, -1], final)
        own = outputs.shape[-1]
        np.testing.assert_array_equal(leaf["state_0"][..., -own:], outputs)


@pytest.mark.parametrize("precision", ["float16", "bfloat16"])
def test_half_precision_is_kept_as_float32(precision, x, tmp_path):
    """No file of a trace holds bfloat16."""
    cell = rnn_cell.LSTMCell(4, dtype=precision)
    trace = es.record(cell, tf.cast(x[:, :6], precision))
    outputs, final, _ = dynamic_rnn(cell, tf.cast(x[:, :6], precision), dtype=precision)
    leaf = es.open_trace(es.save_trace(trace, tmp_path / "run.zarr"))["lstm_cell"]
    assert leaf.attrs["precision"] == precision
    assert {str(v.dtype) for v in leaf.data_vars.values()} == {"float32"}
    np.testing.assert_array_equal(leaf.h, tf.cast(outputs, tf.float32))
    np.testing.assert_array_equal(leaf.c[:, -1], tf.cast(final.c, tf.float32))
    assert np.abs(leaf.c).max() > 0


def test_in_a_graph_there_are_no_values(cell, x):
    fresh = rnn_cell.GRUCell(4)
    with (
        tf.Graph().as_default(),
        pytest.raises(UnsupportedModelError, match=r"gru_cell: .*session"),
    ):
        es.record(fresh, x)
    with pytest.raises(NothingRecordedError), es.recording(cell) as recorder:
        _ = recorder.trace
