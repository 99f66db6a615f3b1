r"""The long short-term memory cell and its variants.

.. math::
    i &= \sigma(W_i x + R_i h + p_i \odot c + b_i) \\
    f &= \sigma(W_f x + R_f h + p_f \odot c + b_f + \text{forget\_bias}) \\
    g &= \tanh(W_g x + R_g h + b_g) \\
    c' &= \mathrm{clip}(f \odot c + i \odot g) \\
    o &= \sigma(W_o x + R_o h + p_o \odot c' + b_o) \\
    h' &= \mathrm{clip}(P\,(o \odot \tanh c'))

Hochreiter and Schmidhuber 1997 (doi:10.1162/neco.1997.9.8.1735); the forget gate: Gers,
Schmidhuber and Cummins 2000 (doi:10.1162/089976600300015015); peepholes: Gers, Schraudolph
and Schmidhuber 2002; the projection: Sak, Senior and Beaufays 2014 (arXiv:1402.1128).
Order of clip, output peephole and projection: ``LSTMCell.call`` in TensorFlow's
``rnn_cell_impl.py``.
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from array_api_compat import array_namespace

from everystate.cells.activations import Array, activation
from everystate.cells.base import Cell, States, Weights, bounded, product, split
from everystate.cells.scan import clip, linear_scan


@dataclass(frozen=True)
class LSTM(Cell):
    """Long short-term memory: rows of the weights in the order i, f, g, o.

    Peepholes and the projection are there when `Weights` has them.

    Parameters
    ----------
    activation : str
        Of the candidate ``g``.
    recurrent_activation : str
        Of the gates ``i``, ``f`` and ``o``.
    output_activation : str
        Of the cell state on its way out.
    forget_bias : float
        Added to the forget gate at run time, on top of the stored bias (TensorFlow 1).
    cell_clip, projection_clip : float, optional
        Bounds of ``|c|``, and of ``|h|`` after the projection. None: no bound.
    gate_clip : float, optional
        Bound of what goes into the activations of gates and candidate (ONNX). None: no bound.
    coupled : bool, optional
        Whether the forget gate is ``f = 1 - i`` (ONNX's ``input_forget``; Greff et al. 2017,
        doi:10.1109/TNNLS.2016.2582924). None, as False: it has weights of its own.

    Examples
    --------
    >>> import numpy as np
    >>> w = Weights(W=np.ones((8, 3)), R=np.ones((8, 2)))
    >>> cell = LSTM()
    >>> state = {"h": np.zeros((1, 2)), "c": np.zeros((1, 2))}
    >>> after = cell.step(w, cell.from_input(w, np.ones((1, 3))), state)
    >>> after["c"].round(4).tolist()
    [[0.9479, 0.9479]]
    """

    activation: str = "tanh"
    recurrent_activation: str = "sigmoid"
    output_activation: str = "tanh"
    forget_bias: float = 0.0
    cell_clip: float | None = None
    projection_clip: float | None = None
    gate_clip: float | None = None
    coupled: bool | None = None

    states: ClassVar[tuple[str, ...]] = ("h", "c")
    gates: ClassVar[tuple[str, ...]] = ("i", "f", "g", "o")
    memory: ClassVar[tuple[str, ...]] = ("c",)

    def evolve(self, w: Weights, a_x: Array, a_h: Array, before: States) -> dict[str, Array]:
        """Return h, c, i, f, g, o of a stretch of steps (see `Cell.evolve`)."""
        if w.peephole is None:
            gates = self._gates(a_x + a_h)
        else:
            gates = self._through_peepholes(w.peephole, a_x + a_h, before["c"])
        return {**self.from_gates(w, gates, before), **gates}

    def gates_at(self, w: Weights, a: Array, out: States | None = None) -> dict[str, Array] | None:
        """Return i, f, g, o of a stretch of steps; None with peepholes (see `Cell.gates_at`)."""
        return self._gates(a, out) if w.peephole is None else None

    def remember(
        self, w: Weights, gates: States, before: States, out: States | None = None
    ) -> dict[str, Array]:
        """Return ``c' = clip(f * c + i * g)`` of a stretch of steps (see `Cell.remember`)."""
        i, f, g = (gates[name] for name in "ifg")
        if out is None:
            return {"c": linear_scan(f, i * g, before["c"], self.cell_clip)}
        u = np.multiply(i, g, out=out["c"])
        return {"c": linear_scan(f, u, before["c"], self.cell_clip, out=u)}

    def expose(self, w: Weights, gates: States, states: States, out: Array | None = None) -> Array:
        """Return ``h' = clip(P (o * tanh(c')))`` of a stretch of steps (see `Cell.expose`)."""
        h = activation(self.output_activation)(states["c"], out)
        h = gates["o"] * h if out is None else np.multiply(gates["o"], h, out=h)
        if w.projection is None:
            return h
        return clip(product(h, w.projection.T), self.projection_clip)

    def _gates(self, a: Array, out: States | None = None) -> dict[str, Array]:
        a_i, a_f, a_g, a_o = split(a, 4)
        room = out or dict.fromkeys(self.gates)
        i = self._gate(a_i, room["i"])
        if self.coupled:
            f = 1.0 - i if out is None else np.subtract(1.0, i, out=room["f"])
        else:
            f = self._gate(self._biased(a_f), room["f"])
        g = self._candidate(a_g, room["g"])
        return {"i": i, "f": f, "g": g, "o": self._gate(a_o, room["o"])}

    def _gate(self, a: Array, out: Array | None = None) -> Array:
        return bounded(activation(self.recurrent_activation), self.gate_clip)(a, out)

    def _candidate(self, a: Array, out: Array | None = None) -> Array:
        return bounded(activation(self.activation), self.gate_clip)(a, out)

    def _biased(self, a_f: Array) -> Array:
        return a_f + self.forget_bias if self.forget_bias else a_f

    def _through_peepholes(self, peephole: Array, a: Array, c: Array) -> dict[str, Array]:
        p_i, p_f, p_o = peephole
        a_i, a_f, a_g, a_o = split(a, 4)
        g = self._candidate(a_g)
        steps = []
        for a_it, a_ft, a_ot, g_t in zip(a_i, self._biased(a_f), a_o, g, strict=True):
            i = self._gate(a_it + p_i * c)
            f = 1.0 - i if self.coupled else self._gate(a_ft + p_f * c)
            c = clip(f * c + i * g_t, self.cell_clip)
            o = self._gate(a_ot + p_o * c)
            steps.append((i, f, o))
        xp = array_namespace(g)
        i, f, o = (xp.stack(variable) for variable in zip(*steps, strict=True))
        return {"i": i, "f": f, "g": g, "o": o}
