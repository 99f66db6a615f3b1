"""TensorFlow: all states of ``dynamic_rnn``, of graphs that exist already, and of TF 1 cells."""

from everystate.frameworks.tensorflow import rnn_cell
from everystate.frameworks.tensorflow.capture import capturing
from everystate.frameworks.tensorflow.dynamic import bidirectional_dynamic_rnn, dynamic_rnn
from everystate.frameworks.tensorflow.files import read_graph
from everystate.frameworks.tensorflow.model import call, layers, matches, observe, unroll
from everystate.frameworks.tensorflow.streaming import stream
from everystate.frameworks.tensorflow.tap import tap

__all__ = [
    "bidirectional_dynamic_rnn",
    "call",
    "capturing",
    "dynamic_rnn",
    "layers",
    "matches",
    "observe",
    "read_graph",
    "rnn_cell",
    "stream",
    "tap",
    "unroll",
]
