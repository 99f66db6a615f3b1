"""Keras' cells: which equations, weights in canonical form, and the names of states and gates.

Gate order of Keras' kernels (columns): ``LSTMCell`` i f c o, with c the candidate g; ``GRUCell``
z r h, with h the candidate n; ``reset_after=True`` keeps two biases, (2, 3 * units). The forget
gate's bias of one is in the stored bias (``keras/src/layers/rnn/lstm.py`` and ``gru.py``).
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

import keras
import numpy.typing as npt
from keras import activations, layers
from keras.src.layers.rnn.conv_lstm import ConvLSTMCell

from everystate.cells import GRU, LSTM, Cell, SimpleRNN, Weights
from everystate.errors import InputError, UnsupportedModelError
from everystate.frameworks.keras.activations import hard_sigmoid_keras2
from everystate.frameworks.keras.backend import Tensor, as_array, native
from everystate.frameworks.keras.replacing import replaced
from everystate.recording import custom

NAMES: Final = {
    activations.tanh: "tanh",
    activations.sigmoid: "sigmoid",
    activations.hard_sigmoid: "hard_sigmoid",
    hard_sigmoid_keras2: "hard_sigmoid_keras2",
    activations.relu: "relu",
    activations.linear: "linear",
}
"""The activations that can be replayed."""

OUTPUT: Final = "output"
"""What a trace calls the output of a user's cell, where it is none of its states."""


@dataclass(frozen=True)
class Kind:
    """A family of Keras' cells.

    Parameters
    ----------
    own : class
        Keras' class; a subclass with a `call` of its own is no cell of this kind.
    states : tuple of str
        Its states, in Keras' order.
    recurrent, candidate : tuple of str
        The gates, in the order in which `call` puts them through ``recurrent_activation``, and
        the one that it puts through ``activation`` first.
    order : str
        The gates in the order of the kernel's columns, in Keras' letters.
    """

    own: Any
    states: tuple[str, ...]
    recurrent: tuple[str, ...] = ()
    candidate: tuple[str, ...] = ()
    order: str = ""


KINDS: Final = (
    Kind(layers.LSTMCell, ("h", "c"), ("i", "f", "o"), ("g",), "i f c o"),
    Kind(layers.GRUCell, ("h",), ("z", "r"), ("n",), "z r h"),
    Kind(layers.SimpleRNNCell, ("h",)),
    Kind(ConvLSTMCell, ("h", "c"), ("i", "f", "o"), ("g",), "i f c o"),
)


def kind_of(cell: Any) -> Kind | None:
    """Return the family of a cell; None of one whose equations are the user's own."""
    return next(
        (k for k in KINDS if isinstance(cell, k.own) and type(cell).call is k.own.call), None
    )


def state_names(cell: Any, count: int) -> tuple[str, ...]:
    """Return the names of a cell's `count` states: Keras', the user's, or ``state_0``, ...

    Raises
    ------
    UnsupportedModelError
        If the user's are not as many, or one is that of the cell's output.
    """
    kind = kind_of(cell)
    if kind is not None:
        return kind.states
    if not custom.is_cell(cell):
        return tuple(f"state_{k}" for k in range(count))
    named = custom.state_names(cell)
    if len(named) != count:
        raise UnsupportedModelError(
            f"{type(cell).__name__}: {custom.ATTRIBUTE} names {len(named)} states "
            f"({', '.join(named)}), but it has {count}. Name each of them."
        )
    if OUTPUT in named:
        raise UnsupportedModelError(
            f"{type(cell).__name__}: {custom.ATTRIBUTE} calls a state {OUTPUT!r}, which is what "
            "the trace calls what the cell puts out. Choose another name."
        )
    return named


def equations(cell: Any) -> Cell | None:
    """Return the equations of a cell, by which its gates are named; None of the user's own."""
    kind = kind_of(cell)
    if kind is None:
        return None
    phi = _name(cell.activation)
    if kind.own is layers.SimpleRNNCell:
        return SimpleRNN(activation=phi)
    sigma = _name(cell.recurrent_activation)
    if kind.own is layers.GRUCell:
        reset: Any = "after" if cell.reset_after else "before"
        return GRU(reset=reset, activation=phi, recurrent_activation=sigma)
    return LSTM(activation=phi, recurrent_activation=sigma, output_activation=phi)


def is_replayable(cell: Any) -> bool:
    """Whether all that a cell hides follows from its outputs: no convolution, activations known."""
    kind = kind_of(cell)
    used = [getattr(cell, name, None) for name in ("activation", "recurrent_activation")]
    known = all(f is None or (callable(f) and f in NAMES) for f in used)
    return kind is not None and kind.own is not ConvLSTMCell and known


def check_input(path: str, cell: Any, x: Tensor) -> None:
    """Check what a layer reads, before a back end would fail with less to say.

    Raises
    ------
    InputError
        If there are no rows or steps, or not as many features as the kernel has rows.
    """
    shape = tuple(x.shape)
    if 0 in shape:
        raise InputError(
            f"{path}: the input of shape {shape} is empty; there is nothing to record."
        )
    kind = kind_of(cell)
    if kind and kind.own is not ConvLSTMCell and shape[-1] != cell.kernel.shape[0]:
        raise InputError(
            f"{path}: got {shape[-1]} features (shape {shape}), expected {cell.kernel.shape[0]}."
        )


def weights_of(cell: Any) -> Weights:
    """Return the weights of a cell that can be replayed, as its `call` uses them."""
    w, r = _rounded(cell, cell.kernel).T, _rounded(cell, cell.recurrent_kernel).T
    b = None if cell.bias is None else _rounded(cell, cell.bias)
    b_r = None
    if b is not None and b.ndim == 2:
        b, b_r = b
    named = {"W": w, "R": r, "b": b, "b_R": b_r}
    found = Weights(**{name: None if a is None else native(a) for name, a in named.items()})
    gru = isinstance(cell, layers.GRUCell)
    return GRU().by_block(found, lambda z_r_n: z_r_n[[1, 0, 2]]) if gru else found


def _rounded(cell: Any, variable: Any) -> npt.NDArray[Any]:
    """Return a weight in the precision that Keras casts it to before it is used."""
    a = keras.ops.cast(variable, cell.compute_dtype)
    return as_array(a)


def _name(activation: Callable[..., Any]) -> str:
    return NAMES.get(activation) or str(getattr(activation, "__name__", type(activation).__name__))


@contextmanager
def gates_of(cell: Any) -> Iterator[dict[str, Tensor]]:
    """Within the block, keep the gates that one call of a cell computes, as it computes them."""
    caught: dict[str, Tensor] = {}
    kind = kind_of(cell)
    if kind is None or not kind.recurrent:
        yield caught
        return
    sigma = _spied(cell.recurrent_activation, kind.recurrent, caught)
    phi = _spied(cell.activation, kind.candidate, caught)
    with replaced(cell, "recurrent_activation", sigma), replaced(cell, "activation", phi):
        yield caught


def _spied(
    activation: Callable[[Tensor], Tensor], names: Sequence[str], caught: dict[str, Tensor]
) -> Callable[[Tensor], Tensor]:
    """Return an activation that keeps its first results under `names`."""
    left = iter(names)

    def spied(x: Tensor) -> Tensor:
        y = activation(x)
        name = next(left, None)
        if name is not None:
            caught[name] = y
        return y

    return spied
