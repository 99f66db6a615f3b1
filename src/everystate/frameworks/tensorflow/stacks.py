"""What is stacked of a loop, and the last touches to it once the loop is built."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import tensorflow as tf

from everystate.frameworks.tensorflow.gates import GateStack
from everystate.frameworks.tensorflow.lengths import (
    PastLength,
    batch_major,
    finish,
    reversed_in_time,
)
from everystate.frameworks.tensorflow.loops import Nested, Tensor, spec
from everystate.frameworks.tensorflow.probes import ProbedCell


@dataclass
class Stacks:
    """Stacks each leaf of a loop's state, as the loop carries it, over the steps.

    A leaf that is a `tf.TensorArray` keeps its own history: it is returned as it ends.
    """

    gates: list[GateStack]
    """One for each loop to come, or none."""
    probed: list[ProbedCell]
    """The cells of the loops to come, or none."""
    built: list["Stacked"] = field(default_factory=list)

    def begin(self, state: Nested, steps: Tensor | None) -> Sequence[tuple[Any, Any]]:
        """Return dtype and shape of each leaf that is a tensor, and of the gates."""
        k = len(self.built)
        for cell in self.probed[k : k + 1]:
            cell.begin(state, steps)
        return [spec(leaf) for leaf in _tensors(state)] + [
            g.spec(state) for g in self.gates[k : k + 1]
        ]

    def step(self, time: Tensor, run: Callable[[], Nested]) -> tuple[Nested, list[Tensor]]:
        """Take the step; its state is what to stack, and its gates."""
        k = len(self.built)
        for cell in self.probed[k : k + 1]:
            cell.time = time
        if not self.gates:
            state = run()
            return state, _tensors(state)
        state, gates = self.gates[k].step(run)
        return state, [*_tensors(state), gates]

    def end(self, stacks: list[Tensor], executed: Tensor, state: Nested) -> None:
        """Give the stacks the state's structure."""
        gates = stacks.pop() if self.gates else None
        left = iter(stacks)
        leaves = [a if _is_array(a) else next(left) for a in tf.nest.flatten(state)]
        self.built.append(Stacked(tf.nest.pack_sequence_as(state, leaves), gates, executed))


@dataclass(frozen=True)
class Stacked:
    """What one loop gave: states and gates, time-major, and the number of steps executed."""

    states: Nested
    gates: Tensor
    executed: Tensor


def _is_array(leaf: object) -> bool:
    return isinstance(leaf, tf.TensorArray)


def _tensors(state: Nested) -> list[Tensor]:
    return [leaf for leaf in tf.nest.flatten(state) if not _is_array(leaf)]


@dataclass(frozen=True)
class Layout:
    """What remains to be done to the stacks of a call once its loop is built."""

    lengths: Tensor | None
    past_length: PastLength
    time_major: bool

    def states(self, stacked: Stacked, *, backward: bool = False) -> Nested:
        """Return the states past their lengths as asked, in the order and layout of the call."""

        def one(leaf: Any) -> Any:
            if _is_array(leaf):
                return leaf
            leaf = finish(leaf, self.lengths, stacked.executed, self.past_length)
            return self._laid_out(leaf, backward)

        with tf.name_scope("everystate"):
            return tf.nest.map_structure(one, stacked.states)

    def gates(self, stacked: Stacked, stack: GateStack, *, backward: bool = False) -> Nested:
        """Return the gates likewise; past a row's length there is nothing to carry through."""
        past_length: PastLength = "nan" if self.past_length == "nan" else "zero"
        with tf.name_scope("everystate"):
            values = finish(stacked.gates, self.lengths, stacked.executed, past_length)
            found = stack.parted(self._laid_out(values, backward))
        return found[0] if len(found) == 1 else found

    def _laid_out(self, leaf: Tensor, backward: bool) -> Tensor:
        leaf = reversed_in_time(leaf, self.lengths) if backward else leaf
        return leaf if self.time_major else batch_major(leaf)
