"""JAX: the carry of every ``lax.scan`` of a function, at every step."""

from everystate.frameworks.jax.functions import call, layers, matches, observe, stream, unroll
from everystate.frameworks.jax.scans import tap_scans

__all__ = ["call", "layers", "matches", "observe", "stream", "tap_scans", "unroll"]
