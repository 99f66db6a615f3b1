"""``everystate record`` with a frozen graph, whose inputs have names."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import everystate as es
from everystate.testing import importorskip

tf = importorskip("tensorflow")

from everystate.frameworks.tensorflow import dynamic_rnn, rnn_cell

v1 = tf.compat.v1
LENGTHS = np.array([5, 3], np.int32)
X = np.random.default_rng(3).normal(size=(2, 5, 3)).astype("float32")


@pytest.fixture
def states(folder: Path) -> Any:
    """Write ``frozen.pb``; return the cell state that `dynamic_rnn` has of it."""
    with tf.Graph().as_default() as graph, v1.Session() as session:
        x = v1.placeholder(tf.float32, [None, None, 3], name="x")
        n = v1.placeholder_with_default(tf.fill(tf.shape(x)[:1], tf.shape(x)[1]), [None], name="n")
        v1.set_random_seed(5)
        cell = rnn_cell.LSTMCell(4, initializer=v1.random_normal_initializer(stddev=0.7))
        outputs, _, states = dynamic_rnn(cell, x, n, dtype=tf.float32, past_length="nan")
        tf.identity(outputs, name="y")
        session.run(v1.global_variables_initializer())
        frozen = v1.graph_util.convert_variables_to_constants(session, graph.as_graph_def(), ["y"])
        Path("frozen.pb").write_bytes(frozen.SerializeToString())
        return {
            "ragged": session.run(states.c, {x: X, n: LENGTHS}),
            "whole": session.run(states.c, {x: X[:1]}),
        }


def test_an_array_for_each_placeholder(run: Any, states: Any) -> None:
    np.savez("feeds.npz", x=X, n=LENGTHS)
    done = run("record", "frozen.pb", "feeds.npz", "-o", "run.zarr")
    assert done.code == 0, done.err
    assert "read feeds.npz: x 2x5x3, n 2" in done.err
    leaf = es.open_trace("run.zarr")["rnn/lstm_cell"]
    np.testing.assert_allclose(leaf.c, states["ragged"], rtol=0, atol=1e-6)
    assert leaf.length.values.tolist() == LENGTHS.tolist()


def test_one_series_goes_to_the_only_placeholder_that_needs_one(run: Any, states: Any) -> None:
    np.save("x.npy", X[0])
    done = run(
        "record", "frozen.pb", "x.npy", "-o", "run.zarr", "--batch-first", "--variables", "gates"
    )
    assert done.code == 0, done.err
    leaf = es.open_trace("run.zarr")["rnn/lstm_cell"]
    assert {"i", "f", "g", "o"} == {n for n in leaf.data_vars if not n.startswith("initial")}
    done = run("record", "frozen.pb", "x.npy", "-o", "other.zarr", "--batch-first")
    np.testing.assert_allclose(
        es.open_trace("other.zarr")["rnn/lstm_cell"].c, states["whole"], rtol=0, atol=1e-6
    )


def test_a_name_that_no_placeholder_has(run: Any, states: Any) -> None:
    np.savez("feeds.npz", x=X, lengths=LENGTHS)
    done = run("record", "frozen.pb", "feeds.npz", "-o", "run.zarr")
    assert done.code == 1
    assert "the graph has no placeholder lengths; there are: x (None, None, 3)" in done.err
    assert not Path("run.zarr").exists()


def test_a_file_that_is_no_graph(run: Any, folder: Path) -> None:
    Path("frozen.pb").write_bytes(b"\x00\x01 nothing of the kind")
    np.save("x.npy", X)
    done = run("record", "frozen.pb", "x.npy", "-o", "run.zarr")
    assert done.code == 1
    assert "frozen.pb: cannot be read as a frozen GraphDef" in done.err
