"""Gradients with respect to the state at every step: zeros added to it, to be differentiated by.

A stacked state is a leaf of the graph: nothing that is computed later depends on it, so
``tf.gradients(loss, states.c)`` is None. A zero that is added to ``c`` at step t, before
anything reads it, has the gradient that ``c`` has there.
"""

from collections.abc import Callable
from typing import Any

import tensorflow as tf

from everystate.errors import InputError
from everystate.frameworks.tensorflow.loops import Nested, Tensor


class ProbedCell:
    """A cell to whose state a probe is added as soon as it is computed.

    Also what the cell itself, or a layer above it, makes of the new state sees the sum: the
    gradient by the probe of c includes the way through ``h = o * tanh(c)`` of the same step.
    That is the gradient which an unrolled graph gives for its own c.

    Parameters
    ----------
    cell : RNNCell
        It is called as it is.
    time_major : bool
        Layout of the probes.
    turn : callable, optional
        From the order of the input to the order of processing, time-major.
    """

    def __init__(
        self, cell: Any, time_major: bool, turn: Callable[[Tensor], Tensor] | None = None
    ) -> None:
        if tf.executing_eagerly():
            raise InputError(
                "return_probes=True: eager execution has no graph to put the probes into. Put the "
                "call, the loss and tf.gradients(loss, probes) into a tf.function."
            )
        self._cell, self._time_major, self._turn = cell, time_major, turn
        self.probes: Nested = None
        self.time: Tensor = None
        self._arrays: list[tf.TensorArray | None] = []

    def __getattr__(self, name: str) -> Any:
        """Return whatever else the cell has: its sizes, its zero state."""
        return getattr(self._cell, name)

    def begin(self, state: Nested, steps: Tensor) -> None:
        """Make a probe for each tensor of floats in the state; None stands for the others."""
        probes: list[Tensor | None] = []
        with tf.name_scope("everystate"):
            for leaf in tf.nest.flatten(state):
                if isinstance(leaf, tf.TensorArray) or not tf.as_dtype(leaf.dtype).is_floating:
                    probes.append(None)
                    self._arrays.append(None)
                    continue
                probe, by_step = self._zeros(tf.convert_to_tensor(leaf), steps)
                array = tf.TensorArray(probe.dtype, steps, clear_after_read=False)
                probes.append(probe)
                self._arrays.append(array.unstack(self._turn(by_step) if self._turn else by_step))
        self.probes = tf.nest.pack_sequence_as(state, probes)

    def _zeros(self, leaf: Tensor, steps: Tensor) -> tuple[Tensor, Tensor]:
        """Return zeros in the layout of the states, and time-major."""
        rank = leaf.shape.rank
        shape = tf.shape(leaf)
        if self._time_major or rank == 0:
            zeros = tf.zeros(tf.concat([[steps], shape], 0), leaf.dtype)
            return zeros, zeros
        zeros = tf.zeros(tf.concat([shape[:1], [steps], shape[1:]], 0), leaf.dtype)
        return zeros, tf.transpose(zeros, [1, 0, *range(2, rank + 1)])

    def __call__(self, *args: Any, **options: Any) -> tuple[Nested, Nested]:
        """Call the cell, and add this step's probes to its state."""
        graph = tf.compat.v1.get_default_graph()
        known = set(graph.get_operations())
        output, state = self._cell(*args, **options)
        after: dict[int, Tensor] = {}
        leaves = []
        for leaf, array in zip(tf.nest.flatten(state), self._arrays, strict=True):
            if array is not None:
                now = after.get(id(leaf), leaf)
                probe = tf.ensure_shape(array.read(self.time), leaf.shape)
                after[id(leaf)] = _added(now, probe, reroute=leaf.op not in known)
            leaves.append(leaf)
        outputs = [after.get(id(a), a) for a in tf.nest.flatten(output)]
        states = [after.get(id(a), a) for a in leaves]
        return tf.nest.pack_sequence_as(output, outputs), tf.nest.pack_sequence_as(state, states)


def _added(tensor: Tensor, probe: Tensor, *, reroute: bool) -> Tensor:
    """Return the sum, and hand it to all that read the tensor so far.

    Not where the cell hands on a state that it was given: what reads that came before.
    """
    readers = tensor.consumers() if reroute else []
    total = tensor + probe
    for op in readers:
        for k, given in enumerate(op.inputs):
            if given is tensor:
                op._update_input(k, total)
    return total
