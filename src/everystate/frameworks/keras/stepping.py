"""A recurrent layer's loop run so that each step also puts out every state and gate.

It runs on the back end's own ``rnn``, compiled or not, and gradients flow through all of it.
"""

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from math import prod
from typing import Any

from keras import layers, ops, tree
from keras.src import backend as keras_backend

from everystate.frameworks.keras.backend import Tensor
from everystate.frameworks.keras.kinds import OUTPUT, equations, gates_of, state_names

Leaf = Mapping[str, Tensor]
"""States and gates by name, each (batch, time, ...) in the order of input."""


def stepped(
    layer: layers.RNN,
    sequences: Tensor,
    initial_state: Any,
    mask: Tensor | None = None,
    training: bool = False,
) -> tuple[Tensor, Any, list[Leaf]]:
    """Run a layer's loop and return all that its steps compute.

    Parameters
    ----------
    layer : keras.layers.RNN
        The layer; its weights exist.
    sequences : tensor, shape (batch, time, ...)
        What it reads.
    initial_state : tensor or nested structure of tensors
        Its state before the first step.
    mask : tensor of bool, shape (batch, time), optional
        Which steps count. At the others states are carried over, and gates are zero.
    training : bool
        Whether dropout is active.

    Returns
    -------
    outputs : tensor, shape (batch, time, ...)
        What the cell put out, in the order of processing; zero where the mask says so.
    final : nested structure of tensors
        The state after the last step.
    leaves : list of dict
        For each cell: every state and gate.
    """
    note = _Note()
    x = sequences if mask is None else _with_mask(sequences, mask)

    def step(inputs: Tensor, states: Any) -> tuple[Tensor, Any]:
        worked = None
        if mask is not None:
            worked = ops.cast(_first(inputs[..., -1]), "bool")
            inputs = inputs[..., :-1]
        output, after, gates = _one_step(layer, inputs, states, training)
        after = _carried(worked, after, states)
        if worked is not None:
            shown = [output, gates]
            output, gates = _carried(worked, shown, tree.map_structure(ops.zeros_like, shown))
        return note.packed(output, after, gates), after

    initial_state = list(initial_state) if tree.is_nested(initial_state) else [initial_state]
    _, packed, final = keras_backend.rnn(
        step,
        x,
        initial_state,
        go_backwards=layer.go_backwards,
        unroll=layer.unroll,
        input_length=x.shape[1],
    )
    output, states, gates = note.unpacked(packed)
    return output, list(final), _leaves(layer, output, states, gates)


def _one_step(layer: layers.RNN, inputs: Tensor, states: Any, training: bool) -> Any:
    kwargs = {"training": training} if getattr(layer.cell, "_call_has_training_arg", False) else {}
    with ExitStack() as stack:
        gates = [stack.enter_context(gates_of(cell)) for cell in cells_of(layer)]
        output, after = layer.cell(inputs, states, **kwargs)
    after = list(after) if tree.is_nested(after) else [after]
    if isinstance(layer.cell, layers.StackedRNNCells) and tree.is_nested(states[0]):
        # A stack of one cell returns what its cell does, without a list around it.
        after = [after] if len(gates) == 1 else after
    return output, after, gates


def cells_of(layer: layers.RNN) -> list[Any]:
    """Return the cells of a layer: its one, or those stacked in it."""
    stacked = isinstance(layer.cell, layers.StackedRNNCells)
    return list(layer.cell.cells) if stacked else [layer.cell]


class _Note:
    """Packs what one step computes into one tensor, and remembers how to unpack all steps."""

    def packed(self, *parts: Any) -> Tensor:
        flat = tree.flatten(list(parts))
        self.structure = list(parts)
        self.shapes = [tuple(a.shape[1:]) for a in flat]
        self.dtypes = [keras_backend.standardize_dtype(a.dtype) for a in flat]
        rows = [ops.cast(ops.reshape(a, (-1, prod(a.shape[1:]))), self.dtypes[0]) for a in flat]
        return ops.concatenate(rows, axis=-1)

    def unpacked(self, packed: Tensor) -> list[Any]:
        found, start = [], 0
        before = (-1, packed.shape[1] or ops.shape(packed)[1])
        for shape, dtype in zip(self.shapes, self.dtypes, strict=True):
            part = packed[..., start : start + prod(shape)]
            found.append(ops.cast(ops.reshape(part, (*before, *shape)), dtype))
            start += prod(shape)
        return list(tree.pack_sequence_as(self.structure, found))


def _leaves(layer: layers.RNN, output: Tensor, states: Any, gates: Any) -> list[Leaf]:
    cells = cells_of(layer)
    of_cells = states if isinstance(layer.cell, layers.StackedRNNCells) else [states]
    found: list[Leaf] = []
    for cell, state, caught in zip(cells, of_cells, gates, strict=True):
        flat = tree.flatten(state)
        leaf = dict(zip(state_names(cell, len(flat)), flat, strict=True))
        known = equations(cell)
        leaf |= {name: caught[name] for name in (known.gates if known else ()) if name in caught}
        if known is None and cell is cells[-1]:
            leaf[OUTPUT] = output
        if layer.go_backwards:
            leaf = {name: ops.flip(a, axis=1) for name, a in leaf.items()}
        found.append(leaf)
    return found


def _with_mask(x: Tensor, mask: Tensor) -> Tensor:
    """Return the sequences with the mask as one more feature: the one form all back ends loop."""
    mask = ops.cast(mask, x.dtype)
    for _ in range(len(x.shape) - 2):
        mask = mask[..., None]
    return ops.concatenate([x, mask + ops.zeros_like(x[..., :1])], axis=-1)


def _first(a: Tensor) -> Tensor:
    """Return the first number of each row."""
    return ops.reshape(a, (ops.shape(a)[0], -1))[:, 0]


def _carried(worked: Tensor | None, after: Any, before: Sequence[Any]) -> Any:
    if worked is None:
        return after

    def chosen(new: Tensor, old: Tensor) -> Tensor:
        rows = ops.reshape(worked, (-1, *(1,) * (len(new.shape) - 1)))
        return ops.where(rows, new, old)

    return tree.map_structure(chosen, after, tree.pack_sequence_as(after, tree.flatten(before)))
