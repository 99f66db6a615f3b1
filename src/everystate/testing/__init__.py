"""What authors of frameworks, cells and tests of everystate share; it needs pytest."""

from everystate.testing.requirements import importorskip

__all__ = ["importorskip"]
