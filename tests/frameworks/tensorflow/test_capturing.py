"""``capturing()`` around code that one cannot edit, whichever recurrent function it calls."""

from typing import Any

import numpy as np
import pytest

import mutations
import oracles
from cases import Case, case
from everystate.errors import NothingRecordedError, UnknownLayerError
from everystate.testing import importorskip

tf = importorskip("tensorflow")

from everystate.frameworks.tensorflow import capturing, rnn_cell

v1 = tf.compat.v1
borrowed_static_rnn = v1.nn.static_rnn  # as ``from ... import static_rnn as`` would
LENGTHS = np.array([3, 0, 6])
GIVEN = case("lstm", seed=1, forget_bias=1.0)


def initial_state(given: Case) -> Any:
    state = {name: tf.constant(a) for name, a in given.initial.items()}
    return rnn_cell.LSTMStateTuple(state["c"], state["h"])


def held(given: Case, lengths: Any, *, reverse: bool = False) -> dict[str, np.ndarray]:
    """The states carried through, in the order of processing."""
    x = given.x
    if reverse:
        x = np.stack(
            [np.concatenate([x[:n, b][::-1], x[n:, b]]) for b, n in enumerate(lengths)], axis=1
        )
    values = given.with_(x=x).expected(lengths=lengths).values
    found = {}
    for name in "ch":
        found[name] = values[name].copy()
        for row, n in enumerate(lengths):
            found[name][n:, row] = values[name][n - 1, row] if n else given.initial[name][row]
    return found


def by_dynamic_rnn(cell: Any, x: Any, lengths: Any) -> Any:
    inputs = tf.transpose(x, [1, 0, 2])
    return v1.nn.dynamic_rnn(cell, inputs, lengths, initial_state(GIVEN))


def by_static_rnn(cell: Any, x: Any, lengths: Any) -> Any:
    return borrowed_static_rnn(
        cell, tf.unstack(x), initial_state(GIVEN), sequence_length=lengths, dtype=tf.float64
    )


def by_raw_rnn(cell: Any, x: Any, lengths: Any) -> Any:
    def loop_fn(t: Any, output: Any, state: Any, _: Any) -> Any:
        state = initial_state(GIVEN) if state is None else state
        return t >= lengths, tf.gather(x, tf.minimum(t, 6)), state, output, None

    emitted, final, _ = v1.nn.raw_rnn(cell, loop_fn)
    return emitted.stack(), final


@pytest.mark.parametrize("build", [by_dynamic_rnn, by_static_rnn, by_raw_rnn])
@pytest.mark.parametrize("mode", ["v1", "v2"])
def test_states_of_a_graph_in_the_making(tf_cell: Any, load: Any, build: Any, mode: str) -> None:
    (v1.enable_control_flow_v2 if mode == "v2" else v1.disable_control_flow_v2)()
    values = []
    for captured in (True, False):
        with tf.Graph().as_default(), v1.Session() as session:
            cell = tf_cell(GIVEN)
            x = tf.constant(GIVEN.x)
            lengths = tf.constant(LENGTHS, tf.int32)
            with v1.variable_scope("encoder"):
                if captured:
                    with capturing() as found:
                        results = build(cell, x, lengths)
                    assert list(found) == ["encoder/rnn"]
                    assert found["encoder/rnn"].scope == "encoder/rnn"
                    results = results, found["encoder/rnn"].states
                else:
                    results = build(cell, x, lengths)
            session.run(v1.global_variables_initializer())
            load([cell], [GIVEN], session)
            values.append(session.run(results))
    (stock, states), plain = values
    for a, b in zip(tf.nest.flatten(stock), tf.nest.flatten(plain), strict=True):
        np.testing.assert_array_equal(a, b)
    steps = len(states.c)  # raw_rnn stops at the longest row's end
    assert steps == (6 if build is by_raw_rnn else 7)
    wanted = {name: a[:steps] for name, a in held(GIVEN, LENGTHS).items()}
    oracles.assert_close(states._asdict(), wanted)
    for fault, wrong in mutations.of_values(wanted):
        with mutations.must_be_noticed(fault):
            oracles.assert_close(states._asdict(), wrong)


def test_both_directions_and_repeated_scopes(tf_cell: Any, load: Any) -> None:
    back = case("lstm", seed=2).with_(x=GIVEN.x)
    with tf.Graph().as_default(), v1.Session() as session:
        cells = tf_cell(GIVEN), tf_cell(back)
        x = tf.constant(GIVEN.x)
        with capturing() as found:
            states = initial_state(GIVEN), initial_state(back)
            options = {"time_major": True}
            v1.nn.bidirectional_dynamic_rnn(*cells, x, LENGTHS, *states, **options)
            with v1.variable_scope("", reuse=v1.AUTO_REUSE):
                for _ in range(2):
                    v1.nn.dynamic_rnn(rnn_cell.GRUCell(3), tf.zeros([2, 4, 5]), dtype=tf.float32)
        session.run(v1.global_variables_initializer())
        load(cells, [GIVEN, back], session)
        ahead, behind = session.run(
            [found[f"bidirectional_rnn/{way}"].states for way in ("fw", "bw")]
        )
    assert list(found) == ["bidirectional_rnn/fw", "bidirectional_rnn/bw", "rnn", "rnn_1"]
    assert found["rnn_1"].states.shape == (4, 2, 3)
    oracles.assert_close(ahead._asdict(), held(GIVEN, LENGTHS))
    oracles.assert_close(behind._asdict(), held(back, LENGTHS, reverse=True))


def test_eager_calls_are_captured_too() -> None:
    with capturing() as found:
        _, final = v1.nn.dynamic_rnn(rnn_cell.GRUCell(3), tf.ones([2, 4, 5]), dtype=tf.float32)
    np.testing.assert_array_equal(found["rnn"].states[-1], final)
    np.testing.assert_array_equal(found["rnn"].initial_state, np.zeros((2, 3)))
    np.testing.assert_array_equal(found["rnn"].final_state, final)


def test_what_is_not_there_is_said() -> None:
    with capturing() as found:
        v1.nn.dynamic_rnn(rnn_cell.GRUCell(3), tf.ones([2, 4, 5]), dtype=tf.float32)
    with pytest.raises(UnknownLayerError, match="no call was captured in 'rn'; there are: rnn"):
        found["rn"]
    with (
        pytest.raises(NothingRecordedError, match=r"no recurrent function .* use tap"),
        capturing(),
    ):
        tf.ones([2])


def test_static_rnn_is_itself_again_afterwards() -> None:
    from tensorflow.python.ops import rnn

    def fail() -> None:
        with capturing():
            assert v1.nn.static_rnn is not real
            assert globals()["borrowed_static_rnn"] is not real
            raise ZeroDivisionError

    real = rnn.static_rnn
    with pytest.raises(ZeroDivisionError):
        fail()
    assert v1.nn.static_rnn is borrowed_static_rnn is rnn.static_rnn is real
