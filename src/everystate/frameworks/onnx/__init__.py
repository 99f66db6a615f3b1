"""ONNX: recurrent nodes and loops of a model's file, run by onnxruntime."""

from everystate.frameworks.onnx.model import call, layers, matches, observe, unroll

__all__ = ["call", "layers", "matches", "observe", "unroll"]
