"""Flax, Linen and NNX: recurrent layers and cells, with the gates that their scans do not carry."""

from everystate.frameworks.flax.models import call, layers, matches, observe, stream
from everystate.frameworks.flax.unrolling import unroll

__all__ = ["call", "layers", "matches", "observe", "stream", "unroll"]
