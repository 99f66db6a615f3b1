"""Keras 3 on TensorFlow, PyTorch and JAX: every ``keras.layers.RNN``, with any cell."""

from everystate.frameworks.keras.calling import call, layers, matches
from everystate.frameworks.keras.observing import observe
from everystate.frameworks.keras.states_of import StatesOf
from everystate.frameworks.keras.streaming import stream
from everystate.frameworks.keras.training import RecordStates
from everystate.frameworks.keras.unrolling import unroll

__all__ = ["RecordStates", "StatesOf", "call", "layers", "matches", "observe", "stream", "unroll"]
