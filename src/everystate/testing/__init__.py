"""What authors of frameworks, cells and tests of everystate share; it needs pytest."""

from everystate.testing.cell_contract import CellContract
from everystate.testing.framework_contract import FrameworkContract
from everystate.testing.requirements import importorskip
from everystate.testing.stream_contract import StreamContract

__all__ = ["CellContract", "FrameworkContract", "StreamContract", "importorskip"]
