"""The states of every step of an LSTM: three ways to ask, one answer.

The question that started this project: "how do I get the intermediate states, not only the last
one, from ``tf.nn.dynamic_rnn``?" Batch-major, with a ``tf.while_loop`` of one's own, and
time-major; then with sequence lengths.

    python examples/dynamic_rnn/three_cases.py

Needs TensorFlow 2.15 or newer.
"""

import numpy as np
import tensorflow as tf

from everystate.frameworks.tensorflow import dynamic_rnn, rnn_cell

BATCH, STEPS, FEATURES, UNITS = 3, 7, 4, 5
tf1 = tf.compat.v1


def batch_major(cell, inputs):
    """Return what `dynamic_rnn` gives: the one line to change in old code is the import."""
    return dynamic_rnn(cell, inputs, dtype=tf.float32)


def loop_of_ones_own(cell, inputs):
    """Write the loop by hand, and return its states.

    The pitfall: ``TensorArray.write(t, state)`` packs an LSTMStateTuple into one tensor of shape
    (2, batch, units), ``c`` first, and fails where ``c`` and ``h`` differ in size. One array for
    each. The cell is called in the scope ``rnn``, or its variables get other names than
    ``dynamic_rnn`` gives them and no checkpoint fits.
    """
    by_step = tf.transpose(inputs, [1, 0, 2])
    arrays = tuple(tf.TensorArray(tf.float32, STEPS) for _ in ("c", "h"))

    def step(t, state, arrays):
        _, state = cell(by_step[t], state)
        written = tuple(array.write(t, part) for array, part in zip(arrays, state, strict=True))
        return t + 1, state, written

    with tf1.variable_scope("rnn", reuse=tf1.AUTO_REUSE):
        start = 0, cell.zero_state(BATCH, tf.float32), arrays
        _, _, arrays = tf.while_loop(lambda t, *_: t < STEPS, step, start)
    c, h = (tf.transpose(array.stack(), [1, 0, 2]) for array in arrays)
    return rnn_cell.LSTMStateTuple(c, h)


def time_major(cell, inputs):
    """Return the same, with time first: it saves two transpositions."""
    with tf1.variable_scope("", reuse=tf1.AUTO_REUSE):
        return dynamic_rnn(cell, tf.transpose(inputs, [1, 0, 2]), dtype=tf.float32, time_major=True)


def with_lengths(cell, inputs, lengths):
    """Return states that are NaN past the end of each row."""
    with tf1.variable_scope("", reuse=tf1.AUTO_REUSE):
        return dynamic_rnn(
            cell, inputs, sequence_length=lengths, dtype=tf.float32, past_length="nan"
        )


def main():
    """Compute all of them in one graph and compare."""
    rng = np.random.default_rng(0)
    with tf.Graph().as_default(), tf1.Session() as session:
        inputs = tf.constant(rng.normal(size=(BATCH, STEPS, FEATURES)), tf.float32)
        cell = rnn_cell.LSTMCell(UNITS)
        outputs, final_state, states = batch_major(cell, inputs)
        by_hand = loop_of_ones_own(cell, inputs)
        _, _, steps_first = time_major(cell, inputs)
        _, ragged_final, ragged = with_lengths(cell, inputs, [7, 3, 5])
        session.run(tf1.global_variables_initializer())
        fetched = (outputs, final_state, states, by_hand, steps_first, ragged_final, ragged)
        values = session.run(fetched)
    outputs, final_state, states, by_hand, steps_first, ragged_final, ragged = values

    print(f"batch-major: c {states.c.shape}, h {states.h.shape}")
    print(f"last step is the final state: {np.array_equal(states.c[:, -1], final_state.c)}")
    print(f"h is the output: {np.array_equal(states.h, outputs)}")
    print(f"loop of one's own: largest difference {np.abs(by_hand.c - states.c).max():.1g}")
    turned = np.swapaxes(steps_first.c, 0, 1)
    print(f"time-major: c {steps_first.c.shape}, difference {np.abs(turned - states.c).max():.1g}")
    print(f"lengths 7, 3, 5: steps of c {(~np.isnan(ragged.c[..., 0])).sum(axis=1)}")
    print(f"row 1 ends as it should: {np.array_equal(ragged.c[1, 2], ragged_final.c[1])}")


if __name__ == "__main__":
    main()
