"""No framework: ``.safetensors`` weights with PyTorch's names, run on NumPy."""

from everystate.frameworks.numpy.loading import load
from everystate.frameworks.numpy.observing import call, layers, matches, observe
from everystate.frameworks.numpy.stack import Stack, Stacks
from everystate.frameworks.numpy.streaming import stream
from everystate.frameworks.numpy.unrolling import unroll

__all__ = ["Stack", "Stacks", "call", "layers", "load", "matches", "observe", "stream", "unroll"]
