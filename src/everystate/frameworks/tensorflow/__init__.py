"""TensorFlow: all states of ``dynamic_rnn``, of graphs that exist already, and of TF 1 cells."""

from everystate.frameworks.tensorflow import rnn_cell
from everystate.frameworks.tensorflow.dynamic import bidirectional_dynamic_rnn, dynamic_rnn

__all__ = ["bidirectional_dynamic_rnn", "dynamic_rnn", "rnn_cell"]
