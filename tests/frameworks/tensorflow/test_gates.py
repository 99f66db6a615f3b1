"""Gates and state gradients of ``dynamic_rnn``: NumPy, finite differences, cells by hand."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest

import mutations
import oracles
from cases import Case, case
from everystate.errors import InputError, UnsupportedModelError
from everystate.recording.recognition import Op, recognised
from everystate.testing import importorskip

tf = importorskip("tensorflow")

from everystate.frameworks.tensorflow import (
    bidirectional_dynamic_rnn,
    dynamic_rnn,
    probes,
    rnn_cell,
)

v1 = tf.compat.v1
LENGTHS = np.array([3, 0, 6])

CASES = {
    "lstm": case("lstm", forget_bias=1.0),
    "all": case(
        "lstm",
        peephole=True,
        projected=2,
        projection_clip=0.2,
        cell_clip=0.4,
        forget_bias=-0.7,
    ),
    "clip": case("lstm", cell_clip=0.3),
    "gru": case("gru", reset="before"),
}


def rows_first(a: np.ndarray) -> np.ndarray:
    return np.swapaxes(a, 0, 1)


def initial_state(given: Case) -> Any:
    state = {name: tf.constant(a) for name, a in given.initial.items()}
    return rnn_cell.LSTMStateTuple(state["c"], state["h"]) if "c" in state else state["h"]


def steps_first(gates: Any) -> dict[str, np.ndarray]:
    return {name: rows_first(a) for name, a in gates._asdict().items()}


def gates_of(values: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {name: a for name, a in values.items() if name not in "hc"}


@pytest.mark.parametrize("name", CASES)
def test_every_gate_equals_the_equations(run: Any, tf_cell: Any, name: str) -> None:
    given = CASES[name]
    cell = tf_cell(given)

    def build(x: Any) -> Any:
        options = {"past_length": "nan", "return_gates": True}
        return dynamic_rnn(cell, x, LENGTHS, initial_state(given), **options)[3]

    gates = steps_first(run([(cell, given)], build, rows_first(given.x)))
    expected = gates_of(given.expected(lengths=LENGTHS).values)
    oracles.assert_close(gates, expected)
    for fault, wrong in mutations.of_values(expected):
        with mutations.must_be_noticed(fault):
            oracles.assert_close(gates, wrong)


def chain() -> tuple[Any, list[Case]]:
    """Three layers of four units, the second one residual."""
    sizes = (7, 3, 4, 4)
    return [
        case("lstm", seed=1, sizes=sizes, peephole=True),
        case("gru", seed=2, sizes=sizes, reset="before"),
        case("lstm", seed=3, sizes=sizes, forget_bias=0.5),
    ]


def chain_expected(given: list[Case]) -> list[oracles.Unrolled]:
    first = given[0].expected()
    second = given[1].with_(x=first.values["h"]).expected()
    third = given[2].with_(x=first.values["h"] + second.values["h"]).expected()
    return [first, second, third]


def test_gates_within_layers_and_wrappers(run: Any, tf_cell: Any) -> None:
    given = chain()
    cells = [tf_cell(c) for c in given]
    wrapped = [cells[0], rnn_cell.ResidualWrapper(cells[1]), rnn_cell.DropoutWrapper(cells[2])]
    cell = rnn_cell.MultiRNNCell(wrapped)

    def build(x: Any) -> Any:
        initial = tuple(initial_state(c) for c in given)
        plain = v1.nn.dynamic_rnn(cell, x, initial_state=initial, scope="same")
        with v1.variable_scope("", reuse=v1.AUTO_REUSE):
            found = dynamic_rnn(
                cell, x, initial_state=initial, scope="same", return_gates=True, return_probes=False
            )
        return plain, found

    plain, found = run(list(zip(cells, given, strict=True)), build, rows_first(given[0].x))
    for a, b in zip(tf.nest.flatten(plain), tf.nest.flatten(found[:2]), strict=True):
        np.testing.assert_array_equal(a, b)
    for gates, expected in zip(found[3], chain_expected(given), strict=True):
        oracles.assert_close(steps_first(gates), gates_of(expected.values))


def test_gates_of_both_directions(run: Any, tf_cell: Any) -> None:
    ahead, back = case("lstm", seed=1), case("gru", seed=2, reset="before")
    back = back.with_(x=ahead.x)
    cells = tf_cell(ahead), tf_cell(back)

    def build(x: Any) -> Any:
        states = initial_state(ahead), initial_state(back)
        options = {"past_length": "nan", "return_gates": True}
        return bidirectional_dynamic_rnn(*cells, x, LENGTHS, *states, **options)[3]

    forward, backward = run(
        list(zip(cells, (ahead, back), strict=True)), build, rows_first(ahead.x)
    )
    oracles.assert_close(steps_first(forward), gates_of(ahead.expected(lengths=LENGTHS).values))
    expected = back.expected(lengths=LENGTHS, reverse=True)
    oracles.assert_close(steps_first(backward), gates_of(expected.values))


def differentiated(value: Any, x: Any) -> Any:
    if not tf.executing_eagerly():
        return tf.gradients(value(x), x)[0]
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = value(x)
    return tape.gradient(y, x)


def assert_slopes(f: Any, x: np.ndarray, gradient: np.ndarray) -> None:
    """Assert that a gradient is that of f, by central differences along seeded directions."""
    step, rng = 1e-6, np.random.default_rng(7)
    for _ in range(4):
        d = rng.normal(size=x.shape)
        slope = (f(x + step * d) - f(x - step * d)) / (2 * step)
        np.testing.assert_allclose((gradient * d).sum(), slope, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("name", ["all", "gru"])
def test_gradients_of_gates(run: Any, tf_cell: Any, name: str) -> None:
    given = CASES[name]
    cell = tf_cell(given)
    x = rows_first(given.x)

    def value(x: Any) -> Any:
        gates = dynamic_rnn(cell, x, LENGTHS, initial_state(given), return_gates=True)[3]
        return sum(tf.reduce_sum(tf.sin(g[:, 4] * (k + 1))) for k, g in enumerate(gates))

    gradient = run([(cell, given)], lambda x: differentiated(value, x), x)

    def f(x: np.ndarray) -> float:
        found = gates_of(given.with_(x=rows_first(x)).expected(lengths=LENGTHS).values)
        values = [np.nan_to_num(g[4]) for g in found.values()]
        return sum(np.sin(g * (k + 1)).sum() for k, g in enumerate(values))

    assert_slopes(f, x, gradient)
    with mutations.must_be_noticed("the gradient of another input"):
        assert_slopes(f, x, np.roll(gradient, 1, axis=2))


class BlockLSTMCell:
    """A cell of one's own around TensorFlow's fused op, as tf.contrib had one."""

    def __init__(self, given: Case) -> None:
        w = oracles.stacked(given.gates, "igfo")
        self.w = np.concatenate([w["W"], w["R"]], axis=1).T.astype(np.float32)
        self.b = (w["b"] + w["b_R"]).astype(np.float32)
        self.p = [given.peephole[k].astype(np.float32) for k in "ifo"]
        self.units = self.output_size = len(self.p[0])
        self.state_size = rnn_cell.LSTMStateTuple(self.units, self.units)

    def zero_state(self, batch_size: Any, dtype: Any) -> Any:
        zeros = tf.zeros([batch_size, self.units], dtype)
        return rnn_cell.LSTMStateTuple(zeros, zeros)

    def __call__(self, x: Any, state: Any) -> Any:
        found = tf.raw_ops.LSTMBlockCell(
            x=x,
            cs_prev=state.c,
            h_prev=state.h,
            w=self.w,
            wci=self.p[0],
            wcf=self.p[1],
            wco=self.p[2],
            b=self.b,
            forget_bias=0.5,
            cell_clip=0.8,
            use_peephole=True,
        )
        c, h = (tf.ensure_shape(a, state.h.shape) for a in (found.cs, found.h))
        return h, rnn_cell.LSTMStateTuple(c, h)


BLOCK = case("lstm", peephole=True, forget_bias=0.5, cell_clip=0.8)


def test_gates_of_the_fused_op(run: Any) -> None:
    def build(x: Any) -> Any:
        initial = tf.nest.map_structure(lambda a: tf.cast(a, tf.float32), initial_state(BLOCK))
        found = dynamic_rnn(BlockLSTMCell(BLOCK), x, None, initial, return_gates=True)
        return found[2], found[3]

    states, gates = run([], build, rows_first(BLOCK.x).astype(np.float32))
    expected = BLOCK.expected().values
    oracles.assert_close(steps_first(gates), gates_of(expected), 2e-6)
    oracles.assert_close(steps_first(states), {k: expected[k] for k in "hc"}, 2e-6)


def test_gradients_of_the_fused_ops_gates() -> None:
    """One step, with respect to the input: nothing but the gates' own equations."""
    x = rows_first(BLOCK.x)[:, :1]

    def value(x: Any) -> Any:
        initial = tf.nest.map_structure(lambda a: tf.cast(a, tf.float32), initial_state(BLOCK))
        cell = BlockLSTMCell(BLOCK)
        gates = dynamic_rnn(cell, x, None, initial, return_gates=True)[3]
        return sum(tf.reduce_sum(g * (k + 1)) for k, g in enumerate(gates))

    def f(x: np.ndarray) -> float:
        values = gates_of(BLOCK.with_(x=rows_first(x)).expected().values)
        return sum(g.sum() * (k + 1) for k, g in enumerate(values.values()))

    gradient = differentiated(value, tf.constant(x.astype(np.float32))).numpy()
    for d in np.random.default_rng(7).normal(size=(4, *x.shape)):
        slope = (f(x + 1e-6 * d) - f(x - 1e-6 * d)) / 2e-6
        np.testing.assert_allclose((gradient * d).sum(), slope, rtol=2e-5)


class BlockGRUCell:
    def __init__(self, given: Case) -> None:
        self.weights = []
        for order in ("rz", "n"):
            w = oracles.stacked(given.gates, order)
            kernel = np.concatenate([w["W"], w["R"]], axis=1).T
            self.weights += [kernel.astype(np.float32), (w["b"] + w["b_R"]).astype(np.float32)]
        self.state_size = self.output_size = self.weights[1].size // 2

    def zero_state(self, batch_size: Any, dtype: Any) -> Any:
        return tf.zeros([batch_size, self.state_size], dtype)

    def __call__(self, x: Any, h: Any) -> Any:
        w_ru, b_ru, w_c, b_c = self.weights
        found = tf.raw_ops.GRUBlockCell(x=x, h_prev=h, w_ru=w_ru, w_c=w_c, b_ru=b_ru, b_c=b_c)
        h = tf.ensure_shape(found.h, h.shape)
        return h, h


def test_gates_of_the_fused_gru(run: Any) -> None:
    given = CASES["gru"]

    def build(x: Any) -> Any:
        initial = tf.cast(initial_state(given), tf.float32)
        return dynamic_rnn(BlockGRUCell(given), x, None, initial, return_gates=True)[3]

    gates = run([], build, rows_first(given.x).astype(np.float32))
    oracles.assert_close(steps_first(gates), gates_of(given.expected().values), 2e-6)


def test_a_cell_without_gates_says_so() -> None:
    with pytest.raises(UnsupportedModelError, match=r"no LSTM or GRU was recognised .* MatMul"):
        dynamic_rnn(
            rnn_cell.BasicRNNCell(4), tf.zeros([2, 5, 3]), dtype=tf.float32, return_gates=True
        )


def by_hand(cells: Any, given: list[Case], x: np.ndarray, lengths: Any) -> Any:
    """Step cells by hand, keeping each state; return dL/dstate for every step, batch-major."""
    kept: list[Any] = []
    with tf.GradientTape() as tape:
        state = tuple(initial_state(c) for c in given)
        tape.watch(state)
        outputs = []
        for t in range(x.shape[1]):
            y, new = tf.constant(x[:, t]), []
            for k, cell in enumerate(cells):
                y_before = y
                y, after = cell(y, state[k])
                y = y + y_before if k == 1 else y
                new.append(after)
            kept.append(tuple(new))
            alive = (t < lengths)[:, None]
            outputs.append(tf.where(alive, y, 0.0))
            state = tf.nest.map_structure(
                lambda a, b, alive=alive: tf.where(alive, a, b), tuple(new), state
            )
        loss = loss_of(tf.stack(outputs, 1), state)
    found = tape.gradient(loss, kept)
    return tf.nest.map_structure(lambda *a: np.stack([np.asarray(b) for b in a], 1), *found)


def loss_of(outputs: Any, final: Any) -> Any:
    """Look at some outputs, and at the last cell state."""
    return tf.reduce_sum(tf.sin(outputs[:, 2:5])) + tf.reduce_sum(final[0].c ** 2)


@pytest.mark.parametrize(
    ("mode", "lengths"),
    [("v1", LENGTHS), ("v2", np.array([7, 7, 7])), ("function", LENGTHS)],
)
def test_probes_give_the_gradient_of_every_state(
    tf_cell: Any, load: Any, mode: str, lengths: Any
) -> None:
    given = chain()
    x = rows_first(given[0].x)
    by_mode = probed_gradients(tf_cell, load, mode, given, x, lengths)
    cells = [tf_cell(c) for c in given]
    by_hand(cells, given, x, lengths)  # creates the variables
    load(cells, given)
    expected = by_hand(cells, given, x, lengths)
    compare = np.testing.assert_allclose
    for a, b in zip(tf.nest.flatten(by_mode), tf.nest.flatten(expected), strict=True):
        compare(a, b, rtol=0, atol=1e-12)
        assert np.abs(b).max() > 1e-3
    with carried_only():
        wrong = probed_gradients(tf_cell, load, mode, given, x, lengths)
    with mutations.must_be_noticed("c's own way to h of the same step left out"):
        for a, b in zip(tf.nest.flatten(wrong), tf.nest.flatten(expected), strict=True):
            compare(a, b, rtol=0, atol=1e-12)


@contextmanager
def carried_only() -> Iterator[None]:
    real = probes._added
    probes._added = lambda tensor, probe, *, reroute: real(tensor, probe, reroute=False)
    try:
        yield
    finally:
        probes._added = real


def probed_gradients(
    tf_cell: Any, load: Any, mode: str, given: list[Case], x: Any, lengths: Any
) -> Any:
    cells = [tf_cell(c) for c in given]
    cell = rnn_cell.MultiRNNCell([cells[0], rnn_cell.ResidualWrapper(cells[1]), cells[2]])

    def build(x: Any) -> Any:
        initial = tuple(initial_state(c) for c in given)
        outputs, final, states, probed = dynamic_rnn(
            cell, x, lengths, initial, return_probes=True, past_length="zero"
        )
        tf.nest.map_structure(
            lambda a, b: a.shape.assert_is_compatible_with(b.shape), states, probed
        )
        gradients = tf.gradients(loss_of(outputs, final), tf.nest.flatten(probed))
        return tf.nest.pack_sequence_as(probed, gradients)

    if mode == "function":
        v1.nn.dynamic_rnn(cell, tf.constant(x), dtype=tf.float64)
        load(cells, given)
        return tf.nest.map_structure(np.asarray, tf.function(build)(tf.constant(x)))
    (v1.enable_control_flow_v2 if mode == "v2" else v1.disable_control_flow_v2)()
    with tf.Graph().as_default(), v1.Session() as session:
        given_x = v1.placeholder(tf.float64, [None, None, x.shape[2]])
        found = build(given_x)
        load(cells, given, session)
        return session.run(found, {given_x: x})


def test_probes_of_the_backward_direction_are_in_the_order_of_the_input() -> None:
    v1.enable_control_flow_v2()
    with tf.Graph().as_default(), v1.Session() as session:
        x = tf.constant(rows_first(CASES["gru"].x).astype(np.float32))
        cells = rnn_cell.GRUCell(5), rnn_cell.GRUCell(6)
        outputs, _, _, (ahead, back) = bidirectional_dynamic_rnn(
            *cells, x, LENGTHS, dtype=tf.float32, return_probes=True
        )
        # The output at a step is its own state, so what is read before or after cannot matter.
        first = tf.gradients(tf.reduce_sum(outputs[1][:, 1]), back)[0]
        last = tf.gradients(tf.reduce_sum(outputs[0][:, 1]), ahead)[0]
        session.run(v1.global_variables_initializer())
        first, last = session.run([first, last])
    assert back.shape == (3, 7, 6)
    reached = np.abs(first).max(axis=2) > 0
    expected = [[t in range(1, n) for t in range(7)] for n in LENGTHS]
    np.testing.assert_array_equal(reached, expected)
    np.testing.assert_array_equal(
        np.abs(last).max(axis=2) > 0, [[t < 2 and n > 1 for t in range(7)] for n in LENGTHS]
    )


def test_probes_need_a_graph() -> None:
    with pytest.raises(InputError, match=r"eager execution has no graph .* tf\.function"):
        dynamic_rnn(rnn_cell.GRUCell(4), tf.zeros([2, 5, 3]), dtype=tf.float32, return_probes=True)


def test_recognition_wants_the_whole_equation() -> None:
    def op(kind: str, inputs: str, outputs: str) -> Op:
        return Op(kind, outputs, tuple(inputs.split()), tuple(outputs.split()))

    lstm = [
        op("Split", "axis a", "i0 j0 f0 o0"),
        op("Const", "", "bias"),
        op("AddV2", "f0 bias", "f1"),
        op("Sigmoid", "f1", "f"),
        op("Mul", "f c", "kept"),
        op("Sigmoid", "i0", "i"),
        op("Tanh", "j0", "g"),
        op("Mul", "i g", "written"),
        op("AddV2", "kept written", "c'"),
        op("Sigmoid", "o0", "o"),
        op("Tanh", "c'", "shown"),
        op("Mul", "shown o", "h'"),
    ]
    (found,) = recognised(lstm)
    assert found.gates == {"i": "i", "f": "f", "g": "g", "o": "o"}
    assert found.states == {"c'": "c", "h'": "h"}
    for k in (0, 4, 7, 8, 11):
        assert recognised(lstm[:k] + lstm[k + 1 :]) == []
