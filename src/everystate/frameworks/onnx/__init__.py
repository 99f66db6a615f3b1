"""ONNX: recurrent nodes and loops of a model's file, run by onnxruntime."""

from everystate.frameworks.onnx.model import call, layers, matches, observe, unroll
from everystate.frameworks.onnx.streaming import stream

__all__ = ["call", "layers", "matches", "observe", "stream", "unroll"]
