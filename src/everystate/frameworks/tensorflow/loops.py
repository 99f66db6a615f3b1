"""Watch the loops that TensorFlow's own recurrent functions build, and stack what they carry.

``dynamic_rnn``, ``bidirectional_dynamic_rnn`` and ``raw_rnn`` live in one module of
TensorFlow and all call ``while_loop`` through it. While `watching`, that name stands for a
loop which calls TensorFlow's, with the states of every step as further loop variables. So
TensorFlow's code runs as it is, whoever calls it and by whatever reference: its argument
checks, its variable names and its arithmetic are the real ones.
"""

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Final, Protocol

import numpy as np
import tensorflow as tf
from tensorflow.python.framework import tensor_util
from tensorflow.python.ops import rnn as tf_rnn
from tensorflow.python.ops import while_loop as tf_while_loop

from everystate.errors import UnsupportedModelError

Tensor = Any
"""A `tf.Tensor`, symbolic or eager."""
Nested = Any
"""A structure of tensors that ``tf.nest`` knows: a cell's state, as a rule."""

STATE_AT: Final = {3: 2, 6: 4}
"""Where the state stands among the loop variables of ``dynamic_rnn`` (3) and ``raw_rnn`` (6)."""


class Watcher(Protocol):
    """What is called back for each loop that is built while `watching`."""

    def begin(self, state: Nested, steps: Tensor | None) -> Sequence[tuple[Any, Any]]:
        """Return dtype and element shape of each stack that `step` will fill.

        Parameters
        ----------
        state : nested structure
            The state before the first step.
        steps : scalar tensor, optional
            Steps at most. None: not known beforehand.
        """

    def step(self, time: Tensor, run: Callable[[], Nested]) -> tuple[Nested, list[Tensor | None]]:
        """Call `run`, which takes the step and returns the state; return it and what to stack.

        None in a stack's place leaves it empty.
        """

    def end(self, stacks: list[Tensor | None], executed: Tensor, state: Nested) -> None:
        """Take the stacks, time-major, the number of steps executed, and the final state."""


_watcher: ContextVar[Watcher | None] = ContextVar("everystate_tensorflow_watcher", default=None)


@contextmanager
def watching(watcher: Watcher | None) -> Iterator[None]:
    """Report each loop of a recurrent function built in this block, by this thread, to `watcher`.

    None watches nothing, within a block that does.
    """
    token = _watcher.set(watcher)
    _stand_in.install()
    try:
        yield
    finally:
        _stand_in.remove()
        _watcher.reset(token)


class _StandIn:
    """Stands for TensorFlow's module ``while_loop`` where its recurrent functions look it up."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._users = 0

    def install(self) -> None:
        with self._lock:
            self._users += 1
            tf_rnn.while_loop = self

    def remove(self) -> None:
        with self._lock:
            self._users -= 1
            if not self._users:
                tf_rnn.while_loop = tf_while_loop

    def while_loop(self, cond: Any, body: Any, loop_vars: Any, **options: Any) -> Any:
        watcher = _watcher.get()
        if watcher is None:
            return tf_while_loop.while_loop(cond, body, loop_vars, **options)
        if len(loop_vars) not in STATE_AT:
            raise UnsupportedModelError(
                f"TensorFlow {tf.__version__} builds its recurrent loops with {len(loop_vars)} "
                "variables, expected 3 or 6: it is newer than this everystate. Update everystate."
            )
        build = _eager_loop if tf.executing_eagerly() else _graph_loop
        return build(watcher, cond, body, loop_vars, options)


_stand_in: Final = _StandIn()


def _step_of(watcher: Watcher, body: Any, loop_vars: Any) -> tuple[list[Any], list[Any]]:
    """Take one step; return the loop variables after it, and what to stack."""
    at = STATE_AT[len(loop_vars)]
    after: list[Any] = []

    def run() -> Nested:
        after.extend(body(*loop_vars))
        return after[at]

    with watching(None):  # a loop inside the cell has no place in this one's stacks
        state, values = watcher.step(loop_vars[0], run)
    after[at] = state
    return after, values


def _graph_loop(watcher: Watcher, cond: Any, body: Any, loop_vars: Any, options: Any) -> Any:
    state, steps = loop_vars[STATE_AT[len(loop_vars)]], options.get("maximum_iterations")
    arrays = [
        tf.TensorArray(
            dtype,
            size=0 if steps is None else steps,
            dynamic_size=steps is None,
            element_shape=shape,
            clear_after_read=False,
            name=f"everystate_{k}",
        )
        for k, (dtype, shape) in enumerate(watcher.begin(state, steps))
    ]

    def watched(*variables: Any) -> Any:
        *own, stacks = variables
        after, values = _step_of(watcher, body, own)
        pairs = zip(stacks, values, strict=True)
        written = [a if v is None else a.write(own[0], v) for a, v in pairs]
        filled[:] = [v is not None for v in values]
        return (*after, written)

    filled: list[bool] = []
    everything = (*loop_vars, arrays)
    *result, ended = tf_while_loop.while_loop(cond, watched, everything, **options)
    stacks = [a.stack() if full else None for a, full in zip(ended, filled, strict=True)]
    for stack in stacks:
        if stack is not None:
            stack.set_shape([_known(steps), *stack.shape[1:]])
    watcher.end(stacks, result[0], result[STATE_AT[len(result)]])
    return tuple(result)


def _known(steps: Tensor | None) -> int | None:
    """Return the number of steps, where the graph tells: ``dynamic_rnn`` takes it off a shape."""
    if steps is None or steps.op.type != "StridedSlice":
        return None
    shape = tensor_util.constant_value_as_shape(steps.op.inputs[0])
    known: int | None = shape.as_list()[0] if shape.rank else None
    return known


def _eager_loop(watcher: Watcher, cond: Any, body: Any, loop_vars: Any, options: Any) -> Any:
    watcher.begin(loop_vars[STATE_AT[len(loop_vars)]], options.get("maximum_iterations"))
    history: list[list[Tensor]] = []

    def watched(*variables: Any) -> Any:
        after, values = _step_of(watcher, body, variables)
        history.append(values)
        return tuple(after)

    result = tf_while_loop.while_loop(cond, watched, loop_vars, **options)
    stacks = [tf.stack(values) for values in zip(*history, strict=True)]
    watcher.end(stacks, result[0], result[STATE_AT[len(result)]])
    return result


def spec(leaf: Any) -> tuple[Any, Any]:
    """Return dtype and static shape of a state's leaf: a tensor, a variable, an array."""
    if not hasattr(leaf, "dtype"):
        leaf = np.asarray(leaf)
    return tf.as_dtype(leaf.dtype).base_dtype, tf.TensorShape(leaf.shape)
