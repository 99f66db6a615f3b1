"""Capture the states of recurrent functions that code one cannot edit calls."""

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import wraps
from typing import Any

import tensorflow as tf
from tensorflow.python.ops import rnn as tf_rnn

from everystate.errors import NothingRecordedError, UnknownLayerError
from everystate.frameworks.tensorflow.lengths import held
from everystate.frameworks.tensorflow.loops import Nested, Tensor, watching
from everystate.frameworks.tensorflow.stacks import LoopStacks


@dataclass(frozen=True)
class CapturedCall:
    """One call of a recurrent function.

    Parameters
    ----------
    scope : str
        Scope of its variables: ``rnn``, ``encoder/rnn``, ``bidirectional_rnn/bw``.
    states : nested structure
        Each state at every step, *time-major* whatever the call's own layout: (time, batch,
        units). In the order of processing, also those of a backward pass; past a row's length
        as carried through.
    initial_state, final_state : nested structure
        The state before the first and after the last step.
    """

    scope: str
    states: Nested
    initial_state: Nested
    final_state: Nested


class Captures(dict[str, CapturedCall]):
    """The calls by their scopes, in the order in which they were made."""

    def __missing__(self, scope: str) -> CapturedCall:
        raise UnknownLayerError(f"no call was captured in {scope!r}; there are: {', '.join(self)}.")

    def note(self, scope: str, states: Nested, initial_state: Nested, final_state: Nested) -> None:
        """Add a call; one more of the same scope gets a number."""
        name, k = scope, 0
        while name in self:
            k += 1
            name = f"{scope}_{k}"
        self[name] = CapturedCall(name, states, initial_state, final_state)


def _scope() -> str:
    return str(tf.compat.v1.get_variable_scope().name)


@contextmanager
def capturing() -> Iterator[Captures]:
    """Capture the states of every recurrent function that is called in a ``with`` block.

    Sees ``dynamic_rnn``, ``bidirectional_dynamic_rnn``, ``raw_rnn``, ``static_rnn`` and what
    calls them, by whatever name the code imported them and however deep inside. The code gets
    what it would have got. Only graphs that are built in the block are seen: for one that
    exists, see `tap`.

    Yields
    ------
    dict of str to CapturedCall
        By scope; complete when the block is over.

    Raises
    ------
    NothingRecordedError
        If none was called.
    UnknownLayerError
        When a scope is asked for that is not there; the message lists those that are.

    Examples
    --------
    >>> import tensorflow as tf
    >>> from everystate.frameworks.tensorflow import capturing, rnn_cell
    >>> def build(x):  # somebody else's
    ...     with tf.compat.v1.variable_scope("encoder"):
    ...         return tf.compat.v1.nn.dynamic_rnn(rnn_cell.LSTMCell(4), x, dtype=tf.float32)[0]
    >>> with tf.Graph().as_default(), capturing() as captured:
    ...     y = build(tf.compat.v1.placeholder(tf.float32, [2, 50, 3]))
    >>> captured["encoder/rnn"].states.c.shape
    TensorShape([50, 2, 4])
    """
    captures = Captures()
    with watching(_LoopCapture(captures)), _static_rnn_replaced(captures):
        yield captures
    if not captures:
        raise NothingRecordedError(
            "capturing: no recurrent function of tf.compat.v1.nn was called in the block. Build "
            "the graph inside it; for a graph that exists already use tap."
        )


class _LoopCapture:
    """Notes each loop; a `LoopStacks` of its own does the stacking."""

    def __init__(self, captures: Captures) -> None:
        self._captures = captures
        self._loop = LoopStacks()
        self._initial: Nested = None
        self._steps: Tensor | None = None

    def begin(self, state: Nested, steps: Tensor | None) -> Sequence[tuple[Any, Any]]:
        self._loop, self._initial, self._steps = LoopStacks(), state, steps
        return self._loop.begin(state, steps)

    def step(self, time: Tensor, run: Callable[[], Nested]) -> tuple[Nested, list[Tensor | None]]:
        return self._loop.step(time, run)

    def end(self, stacks: list[Tensor | None], executed: Tensor, state: Nested) -> None:
        self._loop.end(stacks, executed, state)
        # A loop that knows its steps beforehand may stop earlier than that.
        open_ended = self._steps is None
        with tf.name_scope("everystate"):
            states = self._loop.packed(lambda _, a: a if open_ended else held(a, executed))
        self._captures.note(_scope(), states, self._initial, state)


class _SteppedCell:
    """Notes the state that a cell is given at each step."""

    def __init__(self, cell: Any) -> None:
        self._cell = cell
        self.given: list[Nested] = []
        self.scope = ""

    def __getattr__(self, name: str) -> Any:
        return getattr(self._cell, name)

    def __call__(self, inputs: Any, state: Any, *args: Any, **options: Any) -> Any:
        self.scope = self.scope or _scope()  # before the cell opens its own
        self.given.append(state)
        return self._cell(inputs, state, *args, **options)


@contextmanager
def _static_rnn_replaced(captures: Captures) -> Iterator[None]:
    """Have every module that holds ``static_rnn``, by whatever name, hold one that notes it.

    It unrolls its steps in Python: there is no loop to watch, only the cell.
    """
    real = tf_rnn.static_rnn

    @wraps(real)
    def noting(cell: Any, inputs: Any, *args: Any, **options: Any) -> Any:
        stepped = _SteppedCell(cell)
        outputs, final = real(stepped, inputs, *args, **options)
        # What a step is given is what the one before it left, held where a row had ended.
        after = [*stepped.given[1:], final]
        with tf.name_scope("everystate"):
            states = tf.nest.map_structure(lambda *steps: tf.stack(steps), *after)
        captures.note(stepped.scope, states, stepped.given[0], final)
        return outputs, final

    places = [
        (module, name)
        for module in list(sys.modules.values())
        for name, value in list(getattr(module, "__dict__", {}).items())
        if value is real
    ]
    try:
        for module, name in places:
            setattr(module, name, noting)
        yield
    finally:
        for module, name in places:
            setattr(module, name, real)
