"""Drop-in ``dynamic_rnn`` and ``bidirectional_dynamic_rnn`` that return every state."""

import warnings
from functools import partial
from typing import Any

import tensorflow as tf
from tensorflow.python.framework import ops
from tensorflow.python.ops import control_flow_util
from tensorflow.python.ops import rnn as tf_rnn
from tensorflow.python.ops.rnn_cell_impl import assert_like_rnncell

from everystate.errors import EverystateWarning, InputTypeError
from everystate.frameworks.tensorflow.cells import tell
from everystate.frameworks.tensorflow.lengths import (
    PastLength,
    check_past_length,
    checked,
    reversed_in_time,
)
from everystate.frameworks.tensorflow.loops import Nested, watching
from everystate.frameworks.tensorflow.probes import ProbedCell
from everystate.frameworks.tensorflow.stacks import InTurn, Layout, LoopStacks


def dynamic_rnn(
    cell: Any,
    inputs: Nested,
    sequence_length: Any = None,
    initial_state: Nested = None,
    dtype: Any = None,
    parallel_iterations: int | None = None,
    swap_memory: bool = False,
    time_major: bool = False,
    scope: Any = None,
    *,
    past_length: PastLength = "copy",
    return_gates: bool = False,
    return_probes: bool = False,
) -> tuple[Nested, ...]:
    """Run a cell over a sequence as ``tf.compat.v1.nn.dynamic_rnn`` does, and return every state.

    TensorFlow's own function does the work, so outputs, final state and the names of
    variables are its own; the loop only writes down, as well, the state of each step.

    Parameters
    ----------
    cell : RNNCell
        Or a wrapper, or any object with ``state_size``, ``output_size`` and
        ``__call__(inputs, state)``.
    inputs : tensor, shape (batch, time, ...), or a nested structure of such
        With `time_major`, (time, batch, ...).
    sequence_length : int tensor, shape (batch,), optional
        Valid steps of each row. Past them outputs are zero and the state stays. None: all.
    initial_state : nested structure, optional
        In the structure of ``cell.state_size``. None: zeros of `dtype`.
    dtype : tf.DType, optional
        Needed if there is no initial state.
    parallel_iterations : int, optional
        Iterations that may run at a time. None: 32. Eager execution ignores it, and warns.
    swap_memory : bool
        Whether to hold in the host's memory what the gradient needs. Control flow v1 alone
        can do that; elsewhere it is ignored, and a warning says so.
    time_major : bool
        Whether time is the first dimension, of inputs, outputs and states alike.
    scope : str or VariableScope, optional
        Scope of the variables. None: ``rnn``.
    past_length : {"copy", "zero", "nan"}
        What `states` hold past a row's length: the state as it is carried through, zero, or NaN.
        Gates there are zero, or NaN.
    return_gates : bool
        Whether to return the gates too: the very tensors that the cells computed.
    return_probes : bool
        Whether to return the probes too, to differentiate by; needs a graph.

    Returns
    -------
    outputs : nested structure
        As TensorFlow's.
    final_state : nested structure
        As TensorFlow's.
    states : nested structure
        In the structure of the final state, each tensor with a dimension of time:
        ``LSTMStateTuple(c, h)`` of shape (batch, time, units). The value at time t is the
        one *after* input t. A scalar state has shape (time,); a state that is a
        `tf.TensorArray` is returned as it ends.
    gates : LSTMGates(i, f, g, o), GRUGates(r, z, n), or a tuple of them
        With `return_gates`. Of several cells, one for each that has gates, in the order of
        computation. They are differentiable as the states are.
    probes : nested structure
        With `return_probes`: zeros in the structure and shape of `states`, added to them at each
        step. ``tf.gradients(loss, probes.c)`` is dL/dc_t at every step, by every way from
        c_t to the loss. None for a state that is not of floats.

    Raises
    ------
    InputError
        If a length is negative or beyond the input (in a graph that can only tell when it
        runs: ``tf.errors.InvalidArgumentError``), `past_length` is unknown, or probes are
        asked for without a graph.
    UnsupportedModelError
        If gates are asked for and none is recognised in what the cell computes.
    InputTypeError
        If the cell is a class, or one of Keras 3.
    ValueError, TypeError
        As TensorFlow's.

    Examples
    --------
    >>> import tensorflow as tf
    >>> from everystate.frameworks.tensorflow import dynamic_rnn, rnn_cell
    >>> with tf.Graph().as_default():
    ...     x = tf.compat.v1.placeholder(tf.float32, [2, 50, 3])
    ...     outputs, final, states = dynamic_rnn(rnn_cell.LSTMCell(4), x, dtype=tf.float32)
    >>> states.c.shape
    TensorShape([2, 50, 4])
    """
    _check_cell("cell", cell)
    check_past_length(past_length)
    _warn_ignored(parallel_iterations, swap_memory)
    lengths = checked(sequence_length, inputs, time_major)
    probed = ProbedCell(cell, time_major) if return_probes else None
    loop = LoopStacks(cell, gates=return_gates, probed=probed)
    with watching(loop):
        outputs, final_state = tf_rnn.dynamic_rnn(
            loop.cell,
            inputs,
            lengths,
            initial_state,
            dtype,
            parallel_iterations,
            swap_memory,
            time_major,
            scope,
        )
    past = Layout(lengths, past_length, time_major)
    found = [outputs, final_state, past.states(loop, outputs)]
    tell(cell, found[2], (initial_state, final_state), lengths, time_major)
    found += [past.gates(loop)] if return_gates else []
    found += [probed.probes] if probed else []
    return tuple(found)


def bidirectional_dynamic_rnn(
    cell_fw: Any,
    cell_bw: Any,
    inputs: Nested,
    sequence_length: Any = None,
    initial_state_fw: Nested = None,
    initial_state_bw: Nested = None,
    dtype: Any = None,
    parallel_iterations: int | None = None,
    swap_memory: bool = False,
    time_major: bool = False,
    scope: Any = None,
    *,
    past_length: PastLength = "copy",
    return_gates: bool = False,
    return_probes: bool = False,
) -> tuple[Nested, ...]:
    """Run two cells as ``tf.compat.v1.nn.bidirectional_dynamic_rnn``, and return every state.

    Parameters
    ----------
    cell_fw, cell_bw : RNNCell
        The cells that read forwards and backwards.
    inputs, sequence_length, dtype, parallel_iterations, swap_memory, time_major, past_length
        As in `dynamic_rnn`.
    initial_state_fw, initial_state_bw : nested structure, optional
        As ``initial_state`` there, for each direction.
    scope : str or VariableScope, optional
        Scope of the variables. None: ``bidirectional_rnn``.

    Returns
    -------
    outputs : tuple of two nested structures
        As TensorFlow's: forward and backward.
    final_states : tuple of two nested structures
        As TensorFlow's.
    states : tuple of two nested structures
        As `dynamic_rnn` returns them. Those of the backward pass are in the order of the
        *input*, as its outputs are: the value at time t is the one after input t was read,
        and its final state stands at time 0.

    Raises
    ------
    InputError, ValueError, TypeError
        As `dynamic_rnn`.

    Examples
    --------
    >>> import tensorflow as tf
    >>> from everystate.frameworks.tensorflow import bidirectional_dynamic_rnn, rnn_cell
    >>> with tf.Graph().as_default():
    ...     x = tf.compat.v1.placeholder(tf.float32, [2, 50, 3])
    ...     cells = rnn_cell.GRUCell(4), rnn_cell.GRUCell(5)
    ...     _, _, (forward, backward) = bidirectional_dynamic_rnn(*cells, x, dtype=tf.float32)
    >>> backward.shape
    TensorShape([2, 50, 5])
    """
    _check_cell("cell_fw", cell_fw)
    _check_cell("cell_bw", cell_bw)
    check_past_length(past_length)
    _warn_ignored(parallel_iterations, swap_memory)
    lengths = checked(sequence_length, inputs, time_major)
    probed: list[ProbedCell | None] = [None, None]
    if return_probes:
        turn = partial(reversed_in_time, lengths=lengths)
        probed = [ProbedCell(cell_fw, time_major), ProbedCell(cell_bw, time_major, turn)]
    cells = zip((cell_fw, cell_bw), probed, strict=True)
    loops = [LoopStacks(cell, gates=return_gates, probed=p) for cell, p in cells]
    with watching(InTurn(loops)):
        outputs, final_states = tf_rnn.bidirectional_dynamic_rnn(
            *(loop.cell for loop in loops),
            inputs,
            lengths,
            initial_state_fw,
            initial_state_bw,
            dtype,
            parallel_iterations,
            swap_memory,
            time_major,
            scope,
        )
    past = Layout(lengths, past_length, time_major)
    ways = list(zip(loops, outputs, (False, True), strict=True))
    found = [outputs, final_states, tuple(past.states(a, y, backward=b) for a, y, b in ways)]
    if return_gates:
        found.append(tuple(past.gates(a, backward=b) for a, _, b in ways))
    if return_probes:
        found.append(tuple(cell.probes for cell in probed if cell))
    return tuple(found)


def _check_cell(name: str, cell: Any) -> None:
    """Raise `InputTypeError` for what is often given for a cell; else what TensorFlow says."""
    own = "Give one of everystate.frameworks.tensorflow.rnn_cell, such as rnn_cell.LSTMCell(units)"
    if isinstance(cell, type):
        raise InputTypeError(f"{name}: got the class {cell.__name__}, expected a cell. {own}.")
    if any(base.__module__.startswith("keras.src.layers.") for base in type(cell).__mro__):
        raise InputTypeError(
            f"{name}: got a {type(cell).__name__} of Keras 3, which it cannot call. {own}, "
            "or leave it to Keras: es.record(model, x), es.unroll(layer_or_cell, x)."
        )
    assert_like_rnncell(name, cell)


def _warn_ignored(parallel_iterations: int | None, swap_memory: bool) -> None:
    """Warn of the options that the control flow in force does not read."""
    eager = tf.executing_eagerly()
    v2 = not eager and control_flow_util.EnableControlFlowV2(ops.get_default_graph())
    how = "eager execution" if eager else "control flow v2"
    if swap_memory and (eager or v2):
        warnings.warn(
            f"swap_memory=True is ignored by {how}; only control flow v1 reads it "
            "(tf.compat.v1.disable_control_flow_v2(), outside of tf.function).",
            EverystateWarning,
            stacklevel=3,
        )
    if parallel_iterations is not None and eager:
        warnings.warn(
            f"parallel_iterations={parallel_iterations} is ignored by {how}, which takes one "
            "step after the other; wrap the call in tf.function to have it read.",
            EverystateWarning,
            stacklevel=3,
        )
