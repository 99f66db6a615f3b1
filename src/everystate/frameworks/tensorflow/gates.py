"""The gates of every step, as the very tensors that the cells computed them as."""

from collections import namedtuple
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final

import tensorflow as tf
from tensorflow.python.framework import op_callbacks

from everystate.errors import UnsupportedModelError
from everystate.frameworks.tensorflow.loops import Nested, Tensor, spec
from everystate.recording.recognition import FoundCell, Op, recognised

LSTMGates = namedtuple("LSTMGates", ("i", "f", "g", "o"))
"""Input gate, forget gate, candidate, output gate."""
GRUGates = namedtuple("GRUGates", ("r", "z", "n"))
"""Reset gate, update gate (``u`` in TensorFlow: the share of the state that is kept), candidate."""

GATES: Final[dict[str, Any]] = {"LSTM": LSTMGates, "GRU": GRUGates}


class OpLog:
    """Notes every op that is executed, or added to a graph, in a block."""

    def __init__(self) -> None:
        self.ops: list[Op] = []
        self.tensors: dict[int, Tensor] = {}
        self.attrs: dict[str, dict[str, Any]] = {}

    @contextmanager
    def noting(self) -> Iterator[None]:
        """Note the ops of this block."""
        op_callbacks.add_op_callback(self._note)
        try:
            yield
        finally:
            op_callbacks.remove_op_callback(self._note)

    def _note(
        self,
        kind: Any,
        inputs: Any,
        attrs: Any,
        outputs: Any,
        op_name: Any = None,
        graph: Any = None,
    ) -> None:
        kind = kind.decode() if isinstance(kind, bytes) else kind
        label = f"{len(self.ops)}"
        for tensor in (*inputs, *outputs):
            self.tensors[id(tensor)] = tensor  # held, so that no id comes twice
        ids = (tuple(map(id, tensors)) for tensors in (inputs, outputs))
        self.ops.append(Op(kind, label, *ids))
        if kind.endswith("BlockCell"):
            pairs = zip(attrs[::2], attrs[1::2], strict=True)
            self.attrs[label] = {key: _plain(value) for key, value in pairs}

    def gates(self, found: FoundCell) -> dict[str, Tensor]:
        """Return the gates of a cell, differentiable."""
        if found.op.type.endswith("BlockCell"):
            inputs = [self.tensors[k] for k in found.op.inputs]  # type: ignore[index]
            return _OF_BLOCKS[found.op.type](inputs, self.attrs[found.op.name])
        return {name: self.tensors[k] for name, k in found.gates.items()}  # type: ignore[index]


def _plain(attr: Any) -> Any:
    """Return an attribute's value: a graph notes them as protocol buffers."""
    return getattr(attr, attr.WhichOneof("value")) if hasattr(attr, "WhichOneof") else attr


def _of_lstm_block(inputs: Sequence[Tensor], attrs: dict[str, Any]) -> dict[str, Tensor]:
    """Return the gates of ``LSTMBlockCell`` from its inputs.

    Its outputs hold them too, but a gradient that comes in through those is lost: none of the
    gradients ever registered for the op looks at them. Order ``i c f o``, as in
    ``lstm_ops.h``.
    """
    x, c, h, w, p_i, p_f, p_o, b = inputs
    i, g, f, o = tf.split(tf.concat([x, h], 1) @ w + b, 4, axis=1)
    peephole = attrs["use_peephole"]
    i = tf.sigmoid(i + p_i * c if peephole else i)
    f = f + tf.cast(attrs["forget_bias"], f.dtype)
    f = tf.sigmoid(f + p_f * c if peephole else f)
    g = tf.tanh(g)
    if peephole:
        after, bound = f * c + i * g, attrs["cell_clip"]
        o = o + p_o * (tf.clip_by_value(after, -bound, bound) if bound > 0 else after)
    return {"i": i, "f": f, "g": g, "o": tf.sigmoid(o)}


def _of_gru_block(inputs: Sequence[Tensor], attrs: dict[str, Any]) -> dict[str, Tensor]:
    """Return the gates of ``GRUBlockCell`` from its inputs, for the same reason."""
    x, h, w_ru, w_c, b_ru, b_c = inputs
    r, z = tf.split(tf.sigmoid(tf.concat([x, h], 1) @ w_ru + b_ru), 2, axis=1)
    return {"r": r, "z": z, "n": tf.tanh(tf.concat([x, r * h], 1) @ w_c + b_c)}


_OF_BLOCKS: Final[dict[str, Callable[..., dict[str, Tensor]]]] = {
    "LSTMBlockCell": _of_lstm_block,
    "GRUBlockCell": _of_gru_block,
}


class GateStack:
    """Stacks the gates of all cells of a step side by side, in one tensor.

    One stack, whatever the cells: which they are is known only once they were called, and a
    loop's variables must be known before.
    """

    def __init__(self) -> None:
        self.families: list[str] = []
        self.sizes: list[int] = []

    def spec(self, state: Nested) -> tuple[Any, Any]:
        """Return dtype and shape of the stack, by the state's."""
        for leaf in tf.nest.flatten(state):
            if not isinstance(leaf, tf.TensorArray):
                dtype, shape = spec(leaf)
                if dtype.is_floating and shape.rank != 0:
                    return dtype, tf.TensorShape([shape[0] if shape.rank else None, None])
        raise UnsupportedModelError(f"{NO_GATES} Its state holds no matrix of floats: {state}.")

    def step(self, run: Callable[[], Nested]) -> tuple[Nested, Tensor]:
        """Take a step; return its state, and its gates side by side."""
        log = OpLog()
        with log.noting():
            state = run()
        found = recognised(log.ops)
        if not found:
            raise UnsupportedModelError(
                f"{NO_GATES} It computes {', '.join(sorted({op.type for op in log.ops}))}."
            )
        gates = [log.gates(cell) for cell in found]
        self.families = [cell.family for cell in found]
        self.sizes = [g.shape.as_list()[-1] for gate in gates for g in gate.values()]
        return state, tf.concat([g for gate in gates for g in gate.values()], axis=-1)

    def parted(self, stacked: Tensor) -> tuple[Any, ...]:
        """Return the stack, any layout with the gates last, as one tuple of gates for each cell."""
        left = iter(tf.split(stacked, self.sizes, axis=-1))
        kinds = [GATES[family] for family in self.families]
        return tuple(kind(*(next(left) for _ in kind._fields)) for kind in kinds)


NO_GATES: Final = (
    "return_gates=True: no LSTM or GRU was recognised among the ops of the cell. Gates are read "
    "off the cells of rnn_cell, LSTMBlockCell, GRUBlockCell, and cells of one's own written in "
    "the same equations; leave return_gates out for the states of any other."
)
