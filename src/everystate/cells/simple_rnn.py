r"""The simple recurrent cell.

.. math::
    h' = \tanh(W x + b + R h + b_R)

Elman 1990 (doi:10.1207/s15516709cog1402_1).
"""

from dataclasses import dataclass
from typing import ClassVar

from everystate.cells.activations import Array, activation
from everystate.cells.base import Cell, States, Weights, bounded


@dataclass(frozen=True)
class SimpleRNN(Cell):
    """Elman's cell: one state, no gates.

    Parameters
    ----------
    activation : str
        ``tanh`` or ``relu``, as a rule.
    gate_clip : float, optional
        Bound of what goes into the activation (ONNX). None: no bound.

    Examples
    --------
    >>> import numpy as np
    >>> w = Weights(W=np.ones((2, 3)), R=np.ones((2, 2)))
    >>> cell = SimpleRNN(activation="relu")
    >>> cell.step(w, cell.from_input(w, np.ones((1, 3))), {"h": np.ones((1, 2))})["h"].tolist()
    [[5.0, 5.0]]
    """

    activation: str = "tanh"
    gate_clip: float | None = None

    states: ClassVar[tuple[str, ...]] = ("h",)
    gates: ClassVar[tuple[str, ...]] = ()

    def evolve(self, w: Weights, a_x: Array, a_h: Array, before: States) -> dict[str, Array]:
        """Return h of a stretch of steps (see `Cell.evolve`)."""
        return {"h": bounded(activation(self.activation), self.gate_clip)(a_x + a_h)}
