"""What authors of frameworks, cells and tests of everystate share; it needs pytest."""

from everystate.testing.cell_contract import CellContract
from everystate.testing.framework_contract import FrameworkContract
from everystate.testing.requirements import importorskip

__all__ = ["CellContract", "FrameworkContract", "importorskip"]
