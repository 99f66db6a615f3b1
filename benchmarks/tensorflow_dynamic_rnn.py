"""What the states of every step cost beside TensorFlow's own `dynamic_rnn`, in a graph."""

from typing import Any

import numpy as np
import tensorflow as tf
from benchmarks.timing import best_of

from everystate.frameworks.tensorflow import dynamic_rnn, rnn_cell

SHAPES = [(32, 100, 64, 128), (64, 200, 128, 512), (1, 2000, 32, 256), (16, 1000, 8, 64)]
"""(batch, time, features, units)."""

v1 = tf.compat.v1


def built(shape: tuple[int, int, int, int], run: Any, **options: Any) -> tuple[Any, Any]:
    """Return a session and what to fetch: all that `run` returns, one value of each tensor.

    A whole array that leaves the session is copied; that is no part of the loop.
    """
    graph = tf.Graph()
    with graph.as_default():
        x = tf.constant(np.random.default_rng(0).normal(size=shape[:3]), tf.float32)
        found = run(rnn_cell.LSTMCell(shape[3]), x, dtype=tf.float32, **options)
        last = [a[-1, -1] for a in tf.nest.flatten(found) if a.shape.rank == 3]
        session = v1.Session(graph=graph)
        session.run(v1.global_variables_initializer())
    return session, [*last, found[1]]


def measure(shape: tuple[int, int, int, int], rounds: int) -> list[float]:
    """Return the times of TensorFlow's function, ours, and ours with gates, in seconds."""
    runs = [built(shape, v1.nn.dynamic_rnn), built(shape, dynamic_rnn)]
    runs.append(built(shape, dynamic_rnn, return_gates=True))
    return best_of([lambda s=s, f=f: s.run(f) for s, f in runs], rounds)


def main(rounds: int) -> None:
    """Print the table."""
    for flow in (2, 1):
        v1.enable_control_flow_v2() if flow == 2 else v1.disable_control_flow_v2()
        print(f"tensorflow {tf.__version__}, control flow v{flow}; times tf.nn.dynamic_rnn")
        print(f"{'(B, T, D, H)':>20} {'stock':>10} {'all states':>14} {'and gates':>14}")
        for shape in SHAPES:
            stock, *others = measure(shape, rounds)
            ratios = " ".join(f"{seconds / stock:13.2f}x" for seconds in others)
            print(f"{shape!s:>20} {stock * 1e3:7.1f} ms {ratios}")
    v1.enable_control_flow_v2()
