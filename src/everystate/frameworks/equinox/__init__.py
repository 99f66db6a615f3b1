"""Equinox: its cells in a user's scan, with the gates that the scan does not carry."""

from everystate.frameworks.equinox.models import call, layers, matches, observe, stream
from everystate.frameworks.equinox.unrolling import unroll

__all__ = ["call", "layers", "matches", "observe", "stream", "unroll"]
