"""States from what is left of an old model: a checkpoint, and a frozen graph.

A model is trained and saved by TensorFlow's own ``dynamic_rnn``, as years ago. Then the code is
changed by one line, and the checkpoint restored; then there is no code at all, only a ``.pb``.

    python examples/dynamic_rnn/from_files.py

Needs TensorFlow 2.15 or newer. Writes into a temporary folder.
"""

import tempfile
from pathlib import Path

import numpy as np
import tensorflow as tf

import everystate as es
from everystate.frameworks.tensorflow import dynamic_rnn, rnn_cell

tf1 = tf.compat.v1


def model(function):
    """Build the model with one or the other ``dynamic_rnn``; return its inputs and results."""
    x = tf1.placeholder(tf.float32, [None, None, 3], name="x")
    lengths = tf1.placeholder(tf.int32, [None], name="lengths")
    cells = [rnn_cell.LSTMCell(6), rnn_cell.DropoutWrapper(rnn_cell.GRUCell(4))]
    results = function(rnn_cell.MultiRNNCell(cells), x, sequence_length=lengths, dtype=tf.float32)
    tf.identity(results[0], name="y")
    return {"x": x, "lengths": lengths}, results


def save(folder, feeds):
    """Train nothing, but save everything: a checkpoint and a frozen graph."""
    with tf.Graph().as_default() as graph, tf1.Session() as session:
        inputs, (outputs, _) = model(tf1.nn.dynamic_rnn)
        session.run(tf1.global_variables_initializer())
        tf1.train.Saver().save(session, str(folder / "model.ckpt"))
        frozen = tf1.graph_util.convert_variables_to_constants(session, graph.as_graph_def(), ["y"])
        (folder / "frozen.pb").write_bytes(frozen.SerializeToString())
        return session.run(outputs, {inputs[name]: feeds[name] for name in inputs})


def restored(folder, feeds):
    """Build the model with our ``dynamic_rnn`` and restore the old checkpoint into it."""
    with tf.Graph().as_default(), tf1.Session() as session:
        inputs, results = model(dynamic_rnn)
        tf1.train.Saver().restore(session, str(folder / "model.ckpt"))
        return session.run(results, {inputs[name]: feeds[name] for name in inputs})


def main():
    """Compare what the three give."""
    x = np.random.default_rng(0).normal(size=(2, 9, 3))
    feeds = {"x": x, "lengths": [9, 5]}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        old = save(folder, feeds)
        outputs, _, (lstm, gru) = restored(folder, feeds)
        trace = es.record(folder / "frozen.pb", feeds)
    print(f"restored: outputs as before: {np.array_equal(outputs, old)}")
    print(f"restored: c {lstm.c.shape}, h of the second layer {gru.shape}")
    for leaf in trace.leaves:
        print(f"frozen graph: {leaf.path}: {', '.join(leaf.data_vars)}")
    c = trace["rnn/multi_rnn_cell/cell_0"].c
    print(f"frozen graph: c as restored: {np.allclose(c[0], lstm.c[0], atol=1e-6)}")
    print(f"frozen graph: NaN past the length: {bool(np.isnan(c[1, 5:]).all())}")


if __name__ == "__main__":
    main()
