"""What each layer and direction of a stack did in one call: its input, output and states.

A fused kernel shows the output of the last layer and the last state of every layer. What
lies between two layers is brought out by running the inner layers again, one by one, on the
same kernels: bitwise what they gave inside the stack, dropout included if the random state
is the one the call began with.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pad_packed_sequence

from everystate.errors import InputError
from everystate.frameworks.torch.modules import Place, places, raw_weights
from everystate.recording.observation import Lengths

_KERNELS: Final[Mapping[str, Any]] = {
    "LSTM": torch._VF.lstm,
    "GRU": torch._VF.gru,
    "RNN_TANH": torch._VF.rnn_tanh,
    "RNN_RELU": torch._VF.rnn_relu,
}


@dataclass(eq=False)
class Call:
    """The arguments of one call of a stack, time-major and batched.

    Parameters
    ----------
    x : Tensor
        Shape (time, batch, features); of a packed sequence, its data.
    state : tuple of Tensor
        ``(h_0,)`` or ``(h_0, c_0)``, each (layers * directions, batch, units), in the order
        of the rows of `x` (sorted by length if packed).
    packed : PackedSequence, optional
        The input, if it was packed.
    """

    x: Tensor
    state: tuple[Tensor, ...]
    packed: PackedSequence | None = None

    @property
    def lengths(self) -> Lengths | None:
        """Length of each row in the caller's order; None if the input was not packed."""
        if self.packed is None:
            return None
        return np.asarray(pad_packed_sequence(self.packed)[1], dtype=np.int64)

    def padded(self, data: Tensor) -> Tensor:
        """Return packed data as (time, batch, ...) in the caller's row order."""
        return (
            data if self.packed is None else pad_packed_sequence(self.packed._replace(data=data))[0]
        )

    def in_callers_order(self, state: Tensor) -> Tensor:
        """Return states, shape (..., batch, units), in the caller's row order."""
        order = None if self.packed is None else self.packed.unsorted_indices
        return state if order is None else state.index_select(-2, order)


@dataclass(eq=False)
class Pass:
    """One layer in one direction: everything time-major, padded, in the caller's row order.

    Parameters
    ----------
    place : Place
        Which layer and direction.
    x, h : Tensor
        Input and output, each (time, batch, ...).
    initial, final : dict
        ``h``, and ``c`` of an LSTM: (batch, units).
    """

    place: Place
    x: Tensor
    h: Tensor
    initial: dict[str, Tensor]
    final: dict[str, Tensor]


def bind(stack: nn.RNNBase, x: Tensor | PackedSequence, hx: Any = None) -> Call:
    """Return a call's arguments in time-major, batched form, zero states filled in.

    Raises
    ------
    InputError
        If `hx` is of another shape than the stack takes: its kernels do not look.
    """
    packed = x if isinstance(x, PackedSequence) else None
    data = x.data if isinstance(x, PackedSequence) else time_major(stack, x)
    batch = int(packed.batch_sizes[0]) if packed is not None else data.shape[1]
    expected = _state_shapes(stack, batch)
    if hx is None:
        return Call(data, tuple(data.new_zeros(shape) for shape in expected), packed)
    state = tuple(hx) if isinstance(hx, (tuple, list)) else (hx,)
    if isinstance(x, Tensor) and x.dim() == 2:
        expected = [(rows, units) for rows, _, units in expected]
    got = [tuple(getattr(s, "shape", (type(s).__name__,))) for s in state]
    if got != expected:
        raise InputError(
            f"{type(stack).__name__.lower()}: got an initial state of {_shapes(got)}, expected "
            f"{_shapes(expected)}."
        )
    state = tuple(s.unsqueeze(1) if s.dim() == 2 else s for s in state)
    if packed is not None and packed.sorted_indices is not None:
        state = tuple(s.index_select(1, packed.sorted_indices) for s in state)
    return Call(data, state, packed)


def time_major(stack: nn.RNNBase, a: Tensor) -> Tensor:
    """Return a stack's input or output as (time, batch, ...)."""
    if a.dim() == 2:
        return a.unsqueeze(1)
    return a.transpose(0, 1) if stack.batch_first else a


def restored(
    stack: nn.RNNBase, x: Tensor | PackedSequence, output: Tensor, final: tuple[Tensor, ...]
) -> tuple[Tensor | PackedSequence, Any]:
    """Return output and last states as the stack itself returns them for an input like `x`.

    Parameters
    ----------
    stack : torch.nn.LSTM, GRU or RNN
        The module.
    x : Tensor or PackedSequence
        Its input, in the caller's layout.
    output : Tensor
        Shape (time, batch, units), or packed data.
    final : tuple of Tensor
        Each (layers * directions, batch, units).
    """
    if isinstance(x, PackedSequence):
        return x._replace(data=output), final if len(final) > 1 else final[0]
    final = tuple(s.squeeze(1) for s in final) if x.dim() == 2 else final
    return in_layout(stack, x, output), final if len(final) > 1 else final[0]


def in_layout(stack: nn.RNNBase, x: Tensor, a: Tensor) -> Tensor:
    """Return (time, batch, units) or (batch, units) in the layout of the stack's input `x`."""
    if x.dim() == 2:
        return a.squeeze(-2)
    return a.transpose(0, 1) if stack.batch_first and a.dim() == 3 else a


def _state_shapes(stack: nn.RNNBase, batch: int) -> list[tuple[int, ...]]:
    count = stack.num_layers * (2 if stack.bidirectional else 1)
    sizes = [stack.proj_size or stack.hidden_size]
    if isinstance(stack, nn.LSTM):
        sizes.append(stack.hidden_size)
    return [(count, batch, size) for size in sizes]


def _shapes(shapes: Sequence[tuple[Any, ...]]) -> str:
    names = ("h_0", "c_0", "and more")
    return ", ".join(f"{name} {shape}" for name, shape in zip(names, shapes, strict=False))


def run_layer(stack: nn.RNNBase, layer: int, x: Tensor, call: Call) -> tuple[Tensor, ...]:
    """Run one layer, both directions, on PyTorch's fused kernel.

    Returns
    -------
    tuple of Tensor
        The output, then the last states.
    """
    rows = _rows(stack, layer)
    state = tuple(s[rows].contiguous() for s in call.state)
    weights = [w for place in places(stack)[rows] for w in raw_weights(stack, place.suffix)]
    hx = state if isinstance(stack, nn.LSTM) else state[0]
    rest = (hx, weights, stack.bias, 1, 0.0, stack.training, stack.bidirectional)
    kernel = _KERNELS[stack.mode]
    if call.packed is None:
        return tuple(kernel(x, *rest, False))
    return tuple(kernel(x, call.packed.batch_sizes, *rest))


def passes(
    stack: nn.RNNBase, call: Call, output: Tensor | None = None, final: Sequence[Tensor] = ()
) -> tuple[list[Pass], Tensor]:
    """Return what each layer and direction did, and the output.

    Parameters
    ----------
    stack : torch.nn.LSTM, GRU or RNN
        The module.
    call : Call
        What it was called with.
    output : Tensor, optional
        Its output, time-major or packed data, so that the last layer need not run again.
        None: run it.
    final : sequence of Tensor
        Its last states, in the caller's row order; empty if the layers are run here.

    Returns
    -------
    list of Pass
        In the order of ``h_n``.
    Tensor
        The last layer's output, time-major or packed data.
    """
    found: list[Pass] = []
    x = h = call.x
    for layer in range(stack.num_layers):
        last = layer == stack.num_layers - 1
        own: Sequence[Tensor] = ()
        if last and output is not None:
            h = output
        else:
            h, *own = run_layer(stack, layer, x, call)
        ends = [s[_rows(stack, layer)] for s in final]
        found += _split(stack, layer, call, x, h, ends or [call.in_callers_order(s) for s in own])
        if not last:
            x = torch.dropout(h, stack.dropout, True) if stack.training and stack.dropout else h
    return found, h


def _split(
    stack: nn.RNNBase,
    layer: int,
    call: Call,
    x: Tensor,
    h: Tensor,
    final: Sequence[Tensor],
) -> list[Pass]:
    """Split one layer's run into its directions; its last states are in the caller's row order."""
    rows = _rows(stack, layer)
    here, x = places(stack)[rows], call.padded(x)
    first = by_name([call.in_callers_order(s[rows]) for s in call.state])
    last = by_name(final)
    parts = zip(here, call.padded(h).chunk(len(here), -1), strict=True)
    return [
        Pass(place, x, part, *({n: s[k] for n, s in states.items()} for states in (first, last)))
        for k, (place, part) in enumerate(parts)
    ]


def by_name(states: Iterable[Tensor]) -> dict[str, Tensor]:
    """Return states, which PyTorch gives as ``(h,)`` or ``(h, c)``, by name."""
    return dict(zip("hc", states, strict=False))


def _rows(stack: nn.RNNBase, layer: int) -> slice:
    """Return which rows of ``h_n`` are one layer's."""
    directions = 2 if stack.bidirectional else 1
    return slice(layer * directions, (layer + 1) * directions)
