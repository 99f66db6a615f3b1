"""``record`` of graphs that live in the process: sessions, concrete functions, Keras 2 models."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import everystate as es
import mutations
import oracles
from cases import case
from everystate.errors import InputError, UnsupportedModelError
from everystate.testing import importorskip

tf = importorskip("tensorflow")

from everystate.frameworks.tensorflow import rnn_cell

v1 = tf.compat.v1
GIVEN = case("lstm", seed=4, sizes=(7, 3, 4, 5), forget_bias=1.0, peephole=True)
X = GIVEN.x.swapaxes(0, 1)
LENGTHS = np.array([7, 3, 5])
TOP = es.Select(layers="rnn/*")


@pytest.fixture(params=["v1", "v2"])
def session(request: Any, tf_cell: Any, load: Any) -> Iterator[Any]:
    """A session as a script has it: placeholders, a pipeline, an optimiser, trained weights."""
    on = request.param == "v2"
    (v1.enable_control_flow_v2 if on else v1.disable_control_flow_v2)()
    (v1.enable_v2_tensorshape if on else v1.disable_v2_tensorshape)()
    with tf.Graph().as_default(), v1.Session() as session:
        x = v1.placeholder(tf.float64, [None, None, 4], name="x")
        n = v1.placeholder(tf.int32, [None], name="n")
        labels = v1.placeholder(tf.float64, [None, None, 5], name="labels")
        cell = tf_cell(GIVEN)
        start = rnn_cell.LSTMStateTuple(*(tf.constant(GIVEN.initial[k]) for k in "ch"))
        outputs, _ = v1.nn.dynamic_rnn(cell, x, n, start)
        loss = tf.reduce_mean((outputs - labels) ** 2)
        step = v1.train.GradientDescentOptimizer(0.1).minimize(loss)
        pipeline = v1.data.make_initializable_iterator(v1.data.Dataset.from_tensors(X))
        v1.nn.dynamic_rnn(tf_cell(GIVEN), pipeline.get_next(), dtype=tf.float64, scope="piped")
        session.run([v1.global_variables_initializer(), pipeline.initializer])
        load([cell], [GIVEN], session)
        session.feeds = {x: X, n: LENGTHS}
        session.labels, session.step = labels, step
        yield session


def values(leaf: Any) -> dict[str, np.ndarray]:
    return {name: leaf[name].values.swapaxes(0, 1) for name in ("h", "c", *"ifgo")}


def test_a_session_is_recorded_with_the_weights_that_it_has(session: Any) -> None:
    before = session.graph.as_graph_def()
    session.graph.finalize()
    leaf = es.record(session, session.feeds, select=TOP)["rnn/lstm_cell"]
    oracles.assert_close(values(leaf), GIVEN.expected(lengths=LENGTHS).values)
    for fault, gates in mutations.of_gates(GIVEN.gates):
        with mutations.must_be_noticed(fault):
            oracles.assert_close(values(leaf), GIVEN.expected(gates=gates, lengths=LENGTHS).values)
    session.run(session.step, {**session.feeds, session.labels: np.ones((3, 7, 5))})
    after = es.record(session, {"x": X, "n:0": LENGTHS}, select=TOP)["rnn/lstm_cell"]
    assert float(abs(after.c - leaf.c).max()) > 1e-3
    assert session.graph.as_graph_def() == before


def test_what_comes_from_a_pipeline_is_fed(session: Any) -> None:
    piped = es.Select(layers="piped/*")
    with pytest.raises(InputError, match=r"IteratorGetNext gives what .* Feed it: es.record"):
        es.record(session, {}, select=piped)
    leaf = es.record(session, {"IteratorGetNext:0": X}, select=piped)["piped/lstm_cell"]
    assert leaf.c.shape == (3, 7, 5)


def test_a_session_without_values_is_told_of() -> None:
    with tf.Graph().as_default(), v1.Session() as session:
        x = v1.placeholder(tf.float32, [None, None, 4])
        v1.nn.dynamic_rnn(rnn_cell.GRUCell(5), x, dtype=tf.float32)
        with pytest.raises(InputError, match=r"variables without values. Run .*initializer"):
            es.record(session, {x: X})


def test_a_graph_without_its_session_leads_to_it(session: Any) -> None:
    for without in (session.graph, next(iter(session.feeds))):
        with pytest.raises(UnsupportedModelError, match=r"in the session. .*es.record\(session"):
            es.record(without, session.feeds)
    with pytest.raises(InputError, match=r"variables without values: rnn/.* es.record\(session"):
        es.record(session.graph.as_graph_def(), session.feeds, select=TOP)


def test_a_checkpoint_is_known_by_the_name_its_saver_was_given(
    session: Any, tmp_path: Path
) -> None:
    prefix = v1.train.Saver().save(session, str(tmp_path / "model.ckpt"), global_step=3)
    feeds = {"x": X, "n": LENGTHS}
    leaf = es.record(prefix, feeds, select=TOP)["rnn/lstm_cell"]
    assert leaf.c.equals(es.record(session, feeds, select=TOP)["rnn/lstm_cell"].c)


def test_a_concrete_function() -> None:
    def build(x: Any) -> Any:
        with v1.variable_scope("own"):  # outside of graphs, names are shared by all tests
            return v1.nn.dynamic_rnn(cell, x, dtype=tf.float64)[0]

    cell = rnn_cell.LSTMCell(5, dtype=tf.float64)
    function = tf.function(build)
    concrete = function.get_concrete_function(tf.TensorSpec([None, None, 4], tf.float64))
    leaf = es.record(concrete, X)["own/rnn/lstm_cell"]
    np.testing.assert_allclose(leaf.h, function(X), rtol=0, atol=1e-12)
    with pytest.raises(UnsupportedModelError, match=r"get_concrete_function\(x\), x\)"):
        es.record(function, X)


def test_a_model_of_keras_2() -> None:
    keras = importorskip("tf_keras")
    keras.utils.set_random_seed(2)
    model = keras.Sequential(
        [
            keras.layers.Input((None, 4)),
            keras.layers.LSTM(5, return_sequences=True, bias_initializer="normal", name="a"),
            keras.layers.GRU(6, name="b"),
        ],
        name="stack",
    )
    trace = es.record(model, X.astype("float32"))
    kernel, recurrent, bias = (w.astype(float) for w in model.layers[0].get_weights())
    h = c = np.zeros((3, 5))
    for t in range(7):
        i, f, g, o = np.split(X[:, t] @ kernel + h @ recurrent + bias, 4, axis=1)
        c = c / (1 + np.exp(-f)) + np.tanh(g) / (1 + np.exp(-i))
        h = np.tanh(c) / (1 + np.exp(-o))
        np.testing.assert_allclose(trace["stack/a"].c[:, t], c, rtol=0, atol=1e-6)
    last = trace["stack/b"].h[:, -1]
    np.testing.assert_allclose(last, model(X.astype("float32")), rtol=0, atol=1e-6)
    first = model.layers[0]
    states = es.unroll(first.cell, X.astype("float32")).states  # [h, c], as Keras has them
    np.testing.assert_allclose(states[1], trace["stack/a"].c, rtol=0, atol=1e-6)
    with pytest.raises(UnsupportedModelError, match=r"got a LSTM, expected a cell, .*layer\.cell"):
        es.unroll(first, X.astype("float32"))
    with pytest.raises(InputError, match="LSTM was never called"):
        es.record(keras.layers.LSTM(5), X)
