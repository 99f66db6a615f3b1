r"""The gated recurrent unit and its variants.

.. math::
    r &= \sigma(W_r x + b_r + R_r h + b_{Rr}) \\
    z &= \sigma(W_z x + b_z + R_z h + b_{Rz}) \\
    n &= \tanh(W_n x + b_n + r \odot (R_n h + b_{Rn})) \quad\text{(reset after)} \\
    n &= \tanh(W_n x + b_n + R_n (r \odot h) + b_{Rn}) \quad\text{(reset before)} \\
    h' &= (1 - z) \odot n + z \odot h \quad\text{(z keeps; z writes: exchange z and 1 - z)}

Cho et al. 2014 (arXiv:1406.1078) reset before the product and let z keep; Chung et al. 2014
(arXiv:1412.3555) let z write; cuDNN, and with it PyTorch and Keras' default, reset after it.
"""

from dataclasses import dataclass
from typing import ClassVar, Literal

from everystate.cells.activations import Array, activation
from everystate.cells.base import Cell, States, Weights, bounded, split


@dataclass(frozen=True)
class GRU(Cell):
    """Gated recurrent unit: rows of the weights in the order r, z, n.

    Parameters
    ----------
    reset : {"after", "before"}
        Whether the reset gate is applied after or before the recurrent product.
    update : {"keeps", "writes"}
        Whether z is the share of the old state that is kept or of the candidate that is written.
    activation, recurrent_activation : str
        Of the candidate ``n``; of the gates ``r`` and ``z``.
    gate_clip : float, optional
        Bound of what goes into these activations (ONNX). None: no bound.

    Examples
    --------
    >>> import numpy as np
    >>> w = Weights(W=np.ones((6, 3)), R=np.ones((6, 2)))
    >>> cell = GRU()
    >>> after = cell.step(w, cell.from_input(w, np.ones((1, 3))), {"h": np.zeros((1, 2))})
    >>> after["h"].round(4).tolist()
    [[0.0472, 0.0472]]
    """

    reset: Literal["after", "before"] = "after"
    update: Literal["keeps", "writes"] = "keeps"
    activation: str = "tanh"
    recurrent_activation: str = "sigmoid"
    gate_clip: float | None = None

    states: ClassVar[tuple[str, ...]] = ("h",)
    gates: ClassVar[tuple[str, ...]] = ("r", "z", "n")

    @property
    def unit_wise(self) -> bool:
        """False where the reset comes first: a candidate then needs the reset of every unit."""
        return self.reset == "after"

    def evolve(self, w: Weights, a_x: Array, a_h: Array, before: States) -> dict[str, Array]:
        """Return h, r, z, n of a stretch of steps (see `Cell.evolve`)."""
        sigma = bounded(activation(self.recurrent_activation), self.gate_clip)
        h = before["h"]
        x_r, x_z, x_n = split(a_x, 3)
        h_r, h_z, h_n = split(a_h, 3)
        r = sigma(x_r + h_r)
        z = sigma(x_z + h_z)
        from_h = r * h_n if self.reset == "after" else self._reset_first(w, r * h)
        n = bounded(activation(self.activation), self.gate_clip)(x_n + from_h)
        gates = {"r": r, "z": z, "n": n}
        return {**self.from_gates(w, gates, before), **gates}

    def expose(self, w: Weights, gates: States, states: States, out: Array | None = None) -> Array:
        """Return ``h' = (1 - z) * n + z * h`` of a stretch of steps (see `Cell.expose`)."""
        z = gates["z"]
        keep, write = (z, 1.0 - z) if self.update == "keeps" else (1.0 - z, z)
        return write * gates["n"] + keep * states["h"]

    def _reset_first(self, w: Weights, h: Array) -> Array:
        size = self.units(w)
        a = h @ w.R[2 * size :].T
        return a if w.b_R is None else a + w.b_R[2 * size :]
