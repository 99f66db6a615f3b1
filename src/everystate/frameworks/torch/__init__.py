"""PyTorch: ``nn.LSTM``, ``nn.GRU``, ``nn.RNN``, their cells, and cells of one's own."""

from everystate.frameworks.torch.calling import call, layers, matches
from everystate.frameworks.torch.observing import observe
from everystate.frameworks.torch.streaming import stream
from everystate.frameworks.torch.unrolling import unroll

__all__ = ["call", "layers", "matches", "observe", "stream", "unroll"]
