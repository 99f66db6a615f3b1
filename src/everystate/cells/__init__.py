"""The equations of recurrent cells, once for NumPy, PyTorch and JAX arrays."""

from everystate.cells.base import Cell, States, Weights
from everystate.cells.gru import GRU
from everystate.cells.lstm import LSTM
from everystate.cells.simple_rnn import SimpleRNN

__all__ = ["GRU", "LSTM", "Cell", "SimpleRNN", "States", "Weights"]
