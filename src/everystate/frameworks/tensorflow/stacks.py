"""What is stacked of a loop, and the last touches to it once the loop is built."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import tensorflow as tf

from everystate.frameworks.tensorflow.gates import GateStack
from everystate.frameworks.tensorflow.lengths import (
    PastLength,
    batch_major,
    filled,
    finish,
    reversed_in_time,
)
from everystate.frameworks.tensorflow.loops import Nested, Tensor, spec
from everystate.frameworks.tensorflow.probes import ProbedCell


class ShownCell:
    """A cell, and which parts of its state are its very output: those need no stack of their own.

    ``h`` of an LSTM or GRU without a wrapper is. TensorFlow stacks it already.
    """

    def __init__(self, cell: Any) -> None:
        self._cell = cell
        self.shared: list[int | None] = []
        """For each leaf of the state the place of the same tensor among the outputs."""

    def __getattr__(self, name: str) -> Any:
        """Return whatever else the cell has: its sizes, its zero state."""
        return getattr(self._cell, name)

    def __call__(self, *args: Any, **options: Any) -> tuple[Nested, Nested]:
        """Call the cell."""
        output, state = self._cell(*args, **options)
        places = {id(tensor): k for k, tensor in enumerate(tf.nest.flatten(output))}
        self.shared = [places.get(id(leaf)) for leaf in tf.nest.flatten(state)]
        return output, state


class LoopStacks:
    """Stacks each leaf of one loop's state, as the loop carries it, over the steps.

    A leaf that is a `tf.TensorArray` keeps its own history: it is returned as it ends.

    Parameters
    ----------
    cell : RNNCell, optional
        The cell to be called in the loop as `cell`. None: one that is not at hand.
    gates : bool
        Whether to stack its gates, too.
    probed : ProbedCell, optional
        The same cell, if it is to be probed.
    """

    def __init__(
        self, cell: Any = None, *, gates: bool = False, probed: ProbedCell | None = None
    ) -> None:
        self.cell = ShownCell(probed or cell)
        self.gates = GateStack() if gates else None
        self.probed = probed
        self.executed: Tensor = None
        self.stacks: list[Tensor | None] = []
        self.gate_stack: Tensor = None
        self.final: Nested = None

    def begin(self, state: Nested, steps: Tensor | None) -> Sequence[tuple[Any, Any]]:
        """Return dtype and shape of each leaf that is a tensor, and of the gates."""
        if self.probed is not None:
            self.probed.begin(state, steps)
        leaves = [leaf for leaf in tf.nest.flatten(state) if not _is_array(leaf)]
        gates = [] if self.gates is None else [self.gates.spec(state)]
        return [*map(spec, leaves), *gates]

    def step(self, time: Tensor, run: Callable[[], Nested]) -> tuple[Nested, list[Tensor | None]]:
        """Take the step; its state is what to stack, and its gates."""
        if self.probed is not None:
            self.probed.time = time
        state, gates = (run(), None) if self.gates is None else self.gates.step(run)
        leaves = tf.nest.flatten(state)
        shared = self._shared(len(leaves))
        own = [None if k is not None else a for a, k in zip(leaves, shared, strict=True)]
        values = [a for a, leaf in zip(own, leaves, strict=True) if not _is_array(leaf)]
        return state, values if self.gates is None else [*values, gates]

    def _shared(self, count: int) -> list[int | None]:
        # Eagerly, a cell may give the same object at one step and another at the next.
        known = self.cell.shared and not tf.executing_eagerly()
        return self.cell.shared if known else [None] * count

    def end(self, stacks: list[Tensor | None], executed: Tensor, state: Nested) -> None:
        """Take the stacks; None where the outputs hold the same."""
        if self.gates is not None:
            self.gate_stack = stacks.pop()
        left = iter(stacks)
        leaves = tf.nest.flatten(state)
        self.stacks = [a if _is_array(a) else next(left) for a in leaves]
        self.executed, self.final = executed, state

    def packed(self, finished: Callable[[int, Any], Any]) -> Nested:
        """Return each leaf's stack, finished, in the structure of the state."""
        found = [a if _is_array(a) else finished(k, a) for k, a in enumerate(self.stacks)]
        return tf.nest.pack_sequence_as(self.final, found)

    def outputs_of(self, leaf: int, outputs: Nested) -> Tensor:
        """Return the stacked output that is the same as a leaf of the state."""
        place = self.cell.shared[leaf]
        assert place is not None
        return tf.nest.flatten(outputs)[place]


class InTurn:
    """Hands one loop after the other to a watcher of its own."""

    def __init__(self, watchers: Sequence[LoopStacks]) -> None:
        self._left = iter(watchers)
        self._now: LoopStacks = watchers[0]

    def begin(self, state: Nested, steps: Tensor | None) -> Sequence[tuple[Any, Any]]:
        """Go on to the next watcher."""
        self._now = next(self._left)
        return self._now.begin(state, steps)

    def step(self, time: Tensor, run: Callable[[], Nested]) -> tuple[Nested, list[Tensor | None]]:
        """Hand on."""
        return self._now.step(time, run)

    def end(self, stacks: list[Tensor | None], executed: Tensor, state: Nested) -> None:
        """Hand on."""
        self._now.end(stacks, executed, state)


def _is_array(leaf: object) -> bool:
    return isinstance(leaf, tf.TensorArray)


@dataclass(frozen=True)
class Layout:
    """What remains to be done to the stacks of a call once its loop is built."""

    lengths: Tensor | None
    past_length: PastLength
    time_major: bool

    def states(self, loop: LoopStacks, outputs: Nested, *, backward: bool = False) -> Nested:
        """Return the states past their lengths as asked, in the order and layout of `outputs`."""

        def one(k: int, stacked: Tensor | None) -> Tensor:
            if stacked is None:
                final = tf.nest.flatten(loop.final)[k]
                return filled(
                    loop.outputs_of(k, outputs),
                    final,
                    self.lengths,
                    self.past_length,
                    self.time_major,
                )
            stacked = finish(stacked, self.lengths, loop.executed, self.past_length)
            return self._laid_out(stacked, backward)

        with tf.name_scope("everystate"):
            return loop.packed(one)

    def gates(self, loop: LoopStacks, *, backward: bool = False) -> Nested:
        """Return the gates likewise; past a row's length there is nothing to carry through."""
        assert loop.gates is not None
        past_length: PastLength = "nan" if self.past_length == "nan" else "zero"
        with tf.name_scope("everystate"):
            values = finish(loop.gate_stack, self.lengths, loop.executed, past_length)
            found = loop.gates.parted(self._laid_out(values, backward))
        return found[0] if len(found) == 1 else found

    def _laid_out(self, leaf: Tensor, backward: bool) -> Tensor:
        leaf = reversed_in_time(leaf, self.lengths) if backward else leaf
        return leaf if self.time_major else batch_major(leaf)
