"""Flax's cells: their equations, and their weights in canonical form.

Linen keeps a kernel ``(features, units)`` for each gate, NNX too in its ``LSTMCell``, and stacks
them along the columns in the others (``flax/linen/recurrent.py``, ``flax/nnx/nn/recurrent.py``).
Gate order: LSTM i f g o, with one bias on the recurrent side; GRU r z n, with biases on the
input side, and one of the recurrent candidate in Linen alone.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import flax.linen as nn
import jax
import jax.numpy as jnp
from array_api_compat import array_namespace
from flax import nnx

from everystate.cells import GRU, LSTM, Cell, SimpleRNN, Weights

Named = Mapping[str, Any]
Reader = Callable[[Named], Weights]

ACTIVATIONS: Final[Mapping[Any, str]] = {
    jax.nn.sigmoid: "sigmoid",
    nn.sigmoid: "sigmoid",
    nnx.sigmoid: "sigmoid",
    jnp.tanh: "tanh",
    jax.nn.tanh: "tanh",
    nn.tanh: "tanh",
    nnx.tanh: "tanh",
    jax.nn.relu: "relu",
    jax.nn.hard_sigmoid: "hard_sigmoid",
}
"""Activation functions whose equations are known here."""


@dataclass(frozen=True)
class Known:
    """What is known of a class of cells.

    Parameters
    ----------
    states : tuple of str
        Names of what it carries, in its own order.
    cell : callable, optional
        Gives the equations of one cell; None if its activation is unknown.
    read : callable, optional
        Turns its weights, by name, into canonical form.
    gate_order : str
        For the leaf's attributes.
    """

    states: tuple[str, ...]
    cell: Callable[[Any], Cell | None] | None = None
    read: Reader | None = None
    gate_order: str = ""


def _lstm(module: Any) -> Cell | None:
    gate, inner = ACTIVATIONS.get(module.gate_fn), ACTIVATIONS.get(module.activation_fn)
    if gate is None or inner is None:
        return None
    return LSTM(activation=inner, recurrent_activation=gate, output_activation=inner)


def _gru(module: Any) -> Cell | None:
    gate, inner = ACTIVATIONS.get(module.gate_fn), ACTIVATIONS.get(module.activation_fn)
    return None if gate is None or inner is None else GRU("after", "keeps", inner, gate)


def _simple(module: Any) -> Cell | None:
    inner = ACTIVATIONS.get(module.activation_fn)
    return None if inner is None or module.residual else SimpleRNN(inner)


def _rows(w: Named, *names: str) -> Any:
    """Return kernels with a column a unit as rows, one below the other."""
    kernels = [w[f"{name}/kernel"] for name in names]
    return array_namespace(*kernels).concat([kernel.T for kernel in kernels])


def _biases(w: Named, *names: str) -> Any:
    """Return biases, one after the other; zero where there is none."""
    kernels = [w[f"{name}/kernel"] for name in names]
    xp = array_namespace(*kernels)
    zeros = (xp.zeros(kernel.shape[1], dtype=kernel.dtype) for kernel in kernels)
    return xp.concat([w.get(f"{n}/bias", zero) for n, zero in zip(names, zeros, strict=True)])


def _apart(before: str, gates: str) -> tuple[str, ...]:
    return tuple(before + gate for gate in gates)


def _lstm_apart(w: Named) -> Weights:
    renamed = {name.replace("if_/", "if/"): a for name, a in w.items()}  # `if` is no name in NNX
    inputs, recurrent = _apart("i", "ifgo"), _apart("h", "ifgo")
    return Weights(_rows(renamed, *inputs), _rows(renamed, *recurrent), _biases(w, *recurrent))


def _gru_apart(w: Named) -> Weights:
    inputs, recurrent = _apart("i", "rzn"), _apart("h", "rzn")
    return Weights(
        _rows(w, *inputs), _rows(w, *recurrent), _biases(w, *inputs), _biases(w, *recurrent)
    )


def _simple_apart(w: Named) -> Weights:
    return Weights(_rows(w, "i"), _rows(w, "h"), _biases(w, "i"))


def _stacked(w: Named) -> Weights:
    """Read a kernel that holds all gates on either side, and the bias of either side."""
    return Weights(
        _rows(w, "dense_i"), _rows(w, "dense_h"), _biases(w, "dense_i"), _biases(w, "dense_h")
    )


_LSTM_STATES: Final = ("c", "h")
KNOWN: Final[Mapping[type, Known]] = {
    nn.LSTMCell: Known(_LSTM_STATES, _lstm, _lstm_apart, "i f g o"),
    nn.OptimizedLSTMCell: Known(_LSTM_STATES, _lstm, _lstm_apart, "i f g o"),
    nn.GRUCell: Known(("h",), _gru, _gru_apart, "r z n"),
    nn.SimpleCell: Known(("h",), _simple, _simple_apart),
    nn.MGUCell: Known(("h",)),
    nn.ConvLSTMCell: Known(_LSTM_STATES),
    nnx.LSTMCell: Known(_LSTM_STATES, _lstm, _lstm_apart, "i f g o"),
    nnx.OptimizedLSTMCell: Known(_LSTM_STATES, _lstm, _stacked, "i f g o"),
    nnx.GRUCell: Known(("h",), _gru, _stacked, "r z n"),
    nnx.SimpleCell: Known(("h",), _simple, _stacked),
}
"""Flax's own cells by class."""


def known(cls: type) -> Known | None:
    """Return what is known of a class of cells; None if it is neither Flax's nor made from one.

    A subclass with a call of its own may follow other equations: only its states are known.
    """
    for base in cls.__mro__:
        if base in KNOWN:
            found = KNOWN[base]
            own = cls.__call__ is base.__call__
            return found if own else Known(found.states)
    return None
