"""``dynamic_rnn`` and ``bidirectional_dynamic_rnn`` against NumPy, and against TensorFlow's own."""

from typing import Any

import numpy as np
import pytest

import mutations
import oracles
from cases import Case, case
from everystate.errors import EverystateWarning, InputError, InputTypeError
from everystate.testing import importorskip

tf = importorskip("tensorflow")

from everystate.frameworks.tensorflow import (
    bidirectional_dynamic_rnn,
    dynamic_rnn,
    rnn_cell,
)

v1 = tf.compat.v1
LENGTHS = np.array([3, 0, 6])
ROWS = len(LENGTHS)

CASES = {
    "lstm": case("lstm", forget_bias=1.0),
    "peepholes": case("lstm", peephole=True, forget_bias=0.5),
    "clip": case("lstm", cell_clip=0.3),
    "projection": case("lstm", projected=2),
    "all": case(
        "lstm",
        peephole=True,
        projected=2,
        projection_clip=0.2,
        cell_clip=0.4,
        forget_bias=-0.7,
    ),
    "gru": case("gru", reset="before"),
    "simple_rnn": case("simple_rnn"),
}


def rows_first(a: np.ndarray) -> np.ndarray:
    return np.swapaxes(a, 0, 1)


def initial_state(given: Case, dtype: Any = None) -> Any:
    dtype = dtype or tf.float64
    state = {name: tf.constant(a, dtype) for name, a in given.initial.items()}
    return rnn_cell.LSTMStateTuple(state["c"], state["h"]) if "c" in state else state["h"]


def by_name(states: Any) -> dict[str, np.ndarray]:
    found = states._asdict() if hasattr(states, "_asdict") else {"h": states}
    return {name: rows_first(a) for name, a in found.items()}


def held(values: dict[str, np.ndarray], initial: dict[str, np.ndarray], lengths: Any) -> dict:
    """What a state carried through holds past each row's length."""
    found = {name: a.copy() for name, a in values.items() if name in initial}
    for name, array in found.items():
        for row, length in enumerate(lengths):
            last = array[length - 1, row] if length else initial[name][row]
            array[length:, row] = last
    return found


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("lengths", [None, LENGTHS], ids=["full", "lengths"])
def test_every_state_equals_the_equations(run: Any, tf_cell: Any, name: str, lengths: Any) -> None:
    given = CASES[name]
    cell = tf_cell(given)

    def build(x: Any) -> Any:
        return dynamic_rnn(cell, x, lengths, initial_state(given))

    outputs, final, states = run([(cell, given)], build, rows_first(given.x))
    expected = given.expected(lengths=lengths)
    wanted = held(expected.values, given.initial, [7] * ROWS if lengths is None else lengths)
    oracles.assert_close(by_name(states), wanted)
    oracles.assert_close({"h": rows_first(outputs)}, {"h": np.nan_to_num(expected.values["h"])})
    final = final._asdict() if hasattr(final, "_asdict") else {"h": final}
    oracles.assert_close(final, expected.final)
    if lengths is None:
        for fault, gates in mutations.of_gates(given.gates):
            wrong = given.expected(gates=gates).values
            with mutations.must_be_noticed(fault):
                oracles.assert_close(by_name(states), {k: wrong[k] for k in given.initial})


def stacked_cells(dtype: Any = None) -> Any:
    dtype = dtype or tf.float32
    return rnn_cell.MultiRNNCell(
        [
            rnn_cell.ResidualWrapper(rnn_cell.BasicLSTMCell(4, dtype=dtype)),
            rnn_cell.DropoutWrapper(
                rnn_cell.LSTMCell(5, num_proj=3, use_peepholes=True, dtype=dtype),
                input_keep_prob=0.8,
                state_keep_prob=0.7,
                seed=5,
            ),
            rnn_cell.GRUCell(6, dtype=dtype),
        ]
    )


@pytest.mark.parametrize("control_flow", ["v1", "v2"])
@pytest.mark.parametrize(("lengths", "time_major"), [(None, True), (LENGTHS, False)])
def test_results_and_names_are_tensorflows_own(
    control_flow: str, lengths: Any, time_major: bool
) -> None:
    (v1.enable_control_flow_v2 if control_flow == "v2" else v1.disable_control_flow_v2)()
    x = CASES["lstm"].x.astype(np.float32)
    found, weights = [], []
    for function in (dynamic_rnn, v1.nn.dynamic_rnn):
        with tf.Graph().as_default():
            v1.set_random_seed(3)
            given = v1.placeholder(tf.float32, [None, None, 4])
            options = {"dtype": tf.float32, "time_major": time_major}
            # One at a time: else the steps draw their dropout masks in any order.
            results = function(stacked_cells(), given, lengths, parallel_iterations=1, **options)
            variables = v1.global_variables()
            loss = tf.reduce_sum(results[0] ** 2)
            gradients = tf.gradients(loss, [given, *variables])
            with v1.Session() as session:
                session.run(v1.global_variables_initializer())
                for variable, value in zip(variables, weights, strict=bool(weights)):
                    variable.load(value, session)
                weights = session.run(variables)
                feeds = {given: x if time_major else rows_first(x)}
                values = session.run([results[:2], gradients, *results[2:]], feeds)
            names = [v.name for v in variables]
            found.append((names, tf.nest.flatten(values[:2]), values[2:]))
    (our_names, ours, (states,)), (their_names, theirs, _) = found
    assert our_names == their_names
    assert len(ours) == len(theirs)
    for a, b in zip(ours, theirs, strict=True):
        np.testing.assert_array_equal(a, b)
    assert isinstance(states[0], rnn_cell.LSTMStateTuple)
    shape = (7, 3) if time_major else (3, 7)
    assert [a.shape for a in tf.nest.flatten(states)] == [(*shape, u) for u in (4, 4, 5, 3, 6)]
    at_end = [a[-1] if time_major else a[:, -1] for a in tf.nest.flatten(states)]
    for a, b in zip(at_end, tf.nest.flatten(ours[1:6]), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("past_length", ["copy", "zero", "nan"])
def test_past_its_length_a_row_holds_what_was_asked(
    run: Any, tf_cell: Any, past_length: Any
) -> None:
    given = CASES["lstm"]
    cell = tf_cell(given)

    def build(x: Any) -> Any:
        return dynamic_rnn(cell, x, LENGTHS, initial_state(given), past_length=past_length)[2]

    states = by_name(run([(cell, given)], build, rows_first(given.x)))
    values = given.expected(lengths=LENGTHS).values
    wanted = {
        "copy": held(values, given.initial, LENGTHS),
        "zero": {name: np.nan_to_num(values[name]) for name in "hc"},
        "nan": {name: values[name] for name in "hc"},
    }
    oracles.assert_close(states, wanted[past_length])
    for other in wanted.keys() - {past_length}:
        with mutations.must_be_noticed(other):
            oracles.assert_close(states, wanted[other])


@pytest.mark.parametrize("lengths", [None, LENGTHS], ids=["full", "lengths"])
def test_backward_states_are_in_the_order_of_the_input(
    run: Any, tf_cell: Any, lengths: Any
) -> None:
    ahead, back = case("lstm", seed=1), case("lstm", seed=2, projected=2)
    back = back.with_(x=ahead.x)
    cells = tf_cell(ahead), tf_cell(back)

    def build(x: Any) -> Any:
        states = initial_state(ahead), initial_state(back)
        return bidirectional_dynamic_rnn(*cells, x, lengths, *states, past_length="nan")

    found = run(list(zip(cells, (ahead, back), strict=True)), build, rows_first(ahead.x))
    outputs, final, (forward, backward) = found
    expected = back.expected(lengths=lengths, reverse=True)
    oracles.assert_close(
        by_name(forward), {k: ahead.expected(lengths=lengths).values[k] for k in "hc"}
    )
    oracles.assert_close(by_name(backward), {k: expected.values[k] for k in "hc"})
    oracles.assert_close(final[1]._asdict(), expected.final)
    np.testing.assert_array_equal(np.nan_to_num(backward.h), outputs[1])
    with mutations.must_be_noticed("states in the order of processing"):
        turned = {k: expected.values[k][::-1] for k in "hc"}
        oracles.assert_close(by_name(backward), turned)


class Counting:
    """No RNNCell: its state is a matrix, a vector of integers, a scalar and a TensorArray."""

    output_size = 2
    state_size = ((2, tf.TensorShape([])), tf.TensorShape([]), tf.TensorShape([]))

    def zero_state(self, batch_size: Any, dtype: Any) -> Any:
        history = tf.TensorArray(dtype, size=0, dynamic_size=True, clear_after_read=False)
        rows = tf.zeros([batch_size, 2], dtype), tf.zeros([batch_size], tf.int32)
        return rows, tf.constant(0, tf.int64), history

    def __call__(self, x: Any, state: Any) -> Any:
        (total, count), steps, history = state
        total = total + x[:, :2]
        after = (total, count + 2), steps + 1, history.write(tf.cast(steps, tf.int32), total)
        return total * 2, after


def test_a_cell_of_ones_own_may_carry_anything(run: Any) -> None:
    x = rows_first(CASES["lstm"].x)

    def build(x: Any) -> Any:
        _, _, states = dynamic_rnn(Counting(), x, LENGTHS, dtype=tf.float64)
        return states[0], states[1], states[2].stack()

    (total, count), steps, history = run([], build, x)
    valid = np.arange(7) < LENGTHS[:, None]
    sums = np.cumsum(np.where(valid[..., None], x[..., :2], 0), axis=1)
    np.testing.assert_allclose(total, sums, rtol=0, atol=1e-12)
    np.testing.assert_array_equal(count, 2 * np.minimum(np.arange(1, 8), LENGTHS[:, None]))
    taken = history.shape[0]  # a graph stops at the longest row, eager execution does not
    assert taken in (6, 7)
    np.testing.assert_array_equal(steps, np.minimum(np.arange(1, 8), taken))
    np.testing.assert_allclose(history[5, 2], sums[2, 5], rtol=0, atol=1e-12)


class Nested:
    """Takes and gives tuples, and carries a dictionary."""

    output_size = (4, 3)

    @property
    def state_size(self) -> Any:
        return {"a": 4, "b": (tf.TensorShape([2, 3]),)}

    def zero_state(self, batch_size: Any, dtype: Any) -> Any:
        return {"a": tf.zeros([batch_size, 4], dtype), "b": (tf.ones([batch_size, 2, 3], dtype),)}

    def __call__(self, x: Any, state: Any) -> Any:
        a, b = state["a"] + x[0], state["b"][0] * x[1]
        return (a, b[:, 0]), {"a": a, "b": (b,)}


def test_nested_inputs_and_states(run: Any) -> None:
    rng = np.random.default_rng(4)
    x, y = rng.normal(size=(3, 7, 4)), rng.normal(size=(3, 7, 2, 3))

    def build(x: Any, y: Any) -> Any:
        return dynamic_rnn(Nested(), (x, y), dtype=tf.float64)

    outputs, _, states = run([], build, x, y)
    np.testing.assert_allclose(states["a"], np.cumsum(x, axis=1), rtol=0, atol=1e-12)
    np.testing.assert_allclose(states["b"][0], np.cumprod(y, axis=1), rtol=0, atol=1e-12)
    np.testing.assert_array_equal(outputs[1], states["b"][0][:, :, 0])


def test_gradients_of_a_state_in_the_middle(run: Any, tf_cell: Any) -> None:
    given = CASES["peepholes"]
    cell = tf_cell(given)
    x = rows_first(given.x)

    def value(x: Any) -> Any:
        states = dynamic_rnn(cell, x, LENGTHS, initial_state(given))[2]
        return tf.reduce_sum(tf.sin(states.c[:, 4])) + tf.reduce_sum(states.h[2, 1] ** 2)

    def build(x: Any) -> Any:
        if tf.executing_eagerly():
            with tf.GradientTape() as tape:
                tape.watch(x)
                y = value(x)
            return y, tape.gradient(y, x)
        y = value(x)
        return y, tf.gradients(y, x)[0]

    _, gradient = run([(cell, given)], build, x)

    def f(x: np.ndarray) -> float:
        moved = given.with_(x=rows_first(x))
        states = held(moved.expected(lengths=LENGTHS).values, given.initial, LENGTHS)
        return np.sin(states["c"][4]).sum() + (states["h"][1, 2] ** 2).sum()

    step, rng = 1e-6, np.random.default_rng(7)
    for _ in range(5):
        d = rng.normal(size=x.shape)
        slope = (f(x + step * d) - f(x - step * d)) / (2 * step)
        np.testing.assert_allclose((gradient * d).sum(), slope, rtol=1e-6, atol=1e-8)
    assert np.abs(gradient[2, 5:]).max() == 0.0  # beyond what the loss looks at


def test_shapes_known_beforehand_stay_known() -> None:
    with tf.Graph().as_default():
        x = v1.placeholder(tf.float32, [2, 50, 3])
        _, _, states = dynamic_rnn(rnn_cell.LSTMCell(4), x, [3, 4], dtype=tf.float32)
        assert states.c.shape == (2, 50, 4)
        names = {op.name.split("/")[0] for op in tf.compat.v1.get_default_graph().get_operations()}
        # Nothing of ours takes a name at the top that the user's next op would have had.
        assert not [name for name in names if name.startswith(("transpose", "Gather", "strided"))]


def test_wrong_lengths_are_named() -> None:
    x, cell = tf.zeros([2, 5, 3]), rnn_cell.GRUCell(4)
    with pytest.raises(InputError, match=r"\[3, 6\]: longer than the input, which has 5 steps"):
        dynamic_rnn(cell, x, [3, 6], dtype=tf.float32)
    with pytest.raises(InputError, match=r"\[3, -1\]: a length is negative"):
        bidirectional_dynamic_rnn(cell, rnn_cell.GRUCell(4), x, [3, -1], dtype=tf.float32)
    with pytest.raises(InputError, match="past_length='nul': expected one of copy, zero, nan"):
        dynamic_rnn(cell, x, [3, 1], dtype=tf.float32, past_length="nul")
    with pytest.raises(InputError, match="int32 cannot hold NaN"):
        dynamic_rnn(Counting(), x, [3, 1], dtype=tf.float32, past_length="nan")
    with pytest.raises(ValueError, match="must be a vector"):
        dynamic_rnn(cell, x, [[3, 1]], dtype=tf.float32)
    with pytest.raises(ValueError, match="rank"):
        dynamic_rnn(cell, x[0], dtype=tf.float32)
    with tf.Graph().as_default():  # sizes that a graph knows are checked while it is built
        placeholder = v1.placeholder(tf.float32, [None, 5, 3])
        with pytest.raises(InputError, match="longer than the input, which has 5 steps"):
            dynamic_rnn(cell, placeholder, [3, 6], dtype=tf.float32)
    with pytest.raises(TypeError, match=r"<function .*<lambda>.*'state_size' property is missing"):
        dynamic_rnn(lambda x, s: (x, s), x, dtype=tf.float32)


@pytest.mark.parametrize("wrong", [[6, 1], [-1, 1]])
def test_wrong_lengths_fed_later_are_named_when_they_run(wrong: list[int]) -> None:
    with tf.Graph().as_default():
        x = v1.placeholder(tf.float32, [None, None, 3])
        n = v1.placeholder(tf.int32, [None])
        _, _, states = dynamic_rnn(rnn_cell.GRUCell(4), x, n, dtype=tf.float32)
        with v1.Session() as session:
            session.run(v1.global_variables_initializer())
            feeds = {x: np.zeros((2, 5, 3)), n: wrong}
            with pytest.raises(tf.errors.InvalidArgumentError, match="sequence_length: each must"):
                session.run(states, feeds)
            assert session.run(states, {**feeds, n: [5, 0]}).shape == (2, 5, 4)


def test_depth_must_be_known() -> None:
    with tf.Graph().as_default():
        x = v1.placeholder(tf.float32, [2, 5, None])
        with pytest.raises(ValueError, match="must be accessible via shape"):
            dynamic_rnn(rnn_cell.GRUCell(4), x, dtype=tf.float32)


@pytest.mark.parametrize("control_flow", ["v1", "v2"])
def test_swap_memory_works_or_warns(control_flow: str, recwarn: Any) -> None:
    (v1.enable_control_flow_v2 if control_flow == "v2" else v1.disable_control_flow_v2)()
    with tf.Graph().as_default() as graph:
        x = v1.placeholder(tf.float32, [2, 5, 3])
        dynamic_rnn(
            rnn_cell.GRUCell(4), x, dtype=tf.float32, swap_memory=True, parallel_iterations=7
        )
        said = [str(w.message) for w in recwarn if w.category is EverystateWarning]
        nodes = graph.as_graph_def().node
    if control_flow == "v1":
        assert said == []
        assert {n.attr["parallel_iterations"].i for n in nodes if n.op == "Enter"} == {7}
    else:
        assert len(said) == 1
        assert said[0].startswith("swap_memory=True is ignored by control flow v2")
        assert {n.attr["parallel_iterations"].i for n in nodes if "While" in n.op} == {7}


def test_eager_execution_says_what_it_ignores() -> None:
    with pytest.warns(EverystateWarning, match="parallel_iterations=7 is ignored by eager"):
        dynamic_rnn(
            rnn_cell.GRUCell(4), tf.zeros([2, 5, 3]), dtype=tf.float32, parallel_iterations=7
        )


def test_tensorflow_is_itself_again_afterwards() -> None:
    from tensorflow.python.ops import rnn, while_loop

    with pytest.raises(ZeroDivisionError):
        dynamic_rnn(Failing(), tf.zeros([2, 5, 3]), dtype=tf.float32)
    assert rnn.while_loop is while_loop


class Failing(Nested):
    def __call__(self, x: Any, state: Any) -> Any:
        raise ZeroDivisionError


def test_a_checkpoint_of_tensorflows_own_restores(tmp_path: Any) -> None:
    x = CASES["lstm"].x.astype(np.float32)
    found = []
    for function in (v1.nn.dynamic_rnn, dynamic_rnn):
        with tf.Graph().as_default():
            results = function(stacked_cells(), tf.constant(x), dtype=tf.float32, time_major=True)
            saver = v1.train.Saver()
            with v1.Session() as session:
                if not found:
                    session.run(v1.global_variables_initializer())
                    saver.save(session, str(tmp_path / "model"))
                else:
                    saver.restore(session, str(tmp_path / "model"))
                found.append(session.run(v1.global_variables()))
                shapes = [a.shape for a in tf.nest.flatten(session.run(results[-1]))]
    assert [a.tolist() for a in found[0]] == [a.tolist() for a in found[1]]
    assert shapes == [(7, 3, u) for u in (4, 4, 5, 3, 6)]


def test_what_is_no_cell_leads_to_one() -> None:
    keras = importorskip("keras")
    x = tf.zeros([2, 5, 3])
    with pytest.raises(InputTypeError, match=r"class GRUCell, expected a cell. .*LSTMCell\(units"):
        dynamic_rnn(rnn_cell.GRUCell, x, dtype=tf.float32)
    for own in (keras.layers.LSTMCell(4), keras.layers.LSTM(4)):
        with pytest.raises(InputTypeError, match=r"cell_bw: .* of Keras 3, .*es\.record\(model"):
            bidirectional_dynamic_rnn(rnn_cell.GRUCell(4), own, x, dtype=tf.float32)
    with pytest.raises(TypeError, match="is not an RNNCell"):
        dynamic_rnn(16, x, dtype=tf.float32)
