"""Sequence lengths: checked before the loop, and what the states hold past a row's length."""

from typing import Any, Final, Literal

import tensorflow as tf
from tensorflow.python.framework import tensor_util

from everystate.errors import InputError
from everystate.frameworks.tensorflow.loops import Nested, Tensor

PastLength = Literal["copy", "zero", "nan"]
PAST_LENGTH: Final = ("copy", "zero", "nan")


def check_past_length(past_length: str) -> None:
    """Raise `InputError` if `past_length` is none of those that there are."""
    if past_length not in PAST_LENGTH:
        raise InputError(f"past_length={past_length!r}: expected one of {', '.join(PAST_LENGTH)}.")


def checked(lengths: Any, inputs: Nested, time_major: bool) -> Tensor | None:
    """Return the lengths as a tensor that fails if one is negative or beyond the input.

    TensorFlow takes both without a word. What can be told now is told now; the rest by
    an assertion in the graph.

    Raises
    ------
    InputError
        If a length is known already, and wrong.
    """
    if lengths is None:
        return None
    with tf.name_scope("everystate"):
        return _checked(tf.convert_to_tensor(lengths), inputs, time_major)


def _checked(lengths: Tensor, inputs: Nested, time_major: bool) -> Tensor:
    if lengths.shape.rank not in (None, 1):
        return lengths  # TensorFlow says what is wrong
    first = tf.nest.flatten(inputs)[0]
    axis = 0 if time_major else 1
    known, most = tensor_util.constant_value(lengths), _known(first, axis)
    if known is not None and known.size and int(known.min()) < 0:
        raise InputError(
            f"sequence_length={known.tolist()}: a length is negative, expected 0 or more."
        )
    if known is not None and most is not None:
        if known.size and int(known.max()) > most:
            raise InputError(
                f"sequence_length={known.tolist()}: longer than the input, which has {most} "
                "steps. Is time_major right?"
            )
        return lengths
    message = "sequence_length: each must be between 0 and the input's number of steps"
    bound = tf.cast(tf.shape(first)[axis], lengths.dtype)
    with tf.control_dependencies(
        [
            tf.debugging.assert_non_negative(lengths, message),
            tf.debugging.assert_less_equal(lengths, bound, message),
        ]
    ):
        return tf.identity(lengths)


def _known(a: Any, axis: int) -> int | None:
    """Return the size of an axis, where it is known before the graph runs."""
    shape = tf.TensorShape(a.shape)
    if shape.rank is None or shape.rank <= axis:
        return None
    known: int | None = shape.as_list()[axis]  # shape[axis] is a Dimension without v2 behaviour
    return known


def finish(
    stacked: Tensor, lengths: Tensor | None, executed: Tensor, past_length: PastLength
) -> Tensor:
    """Return a stacked state, time-major, with the steps past each row's length as asked.

    Parameters
    ----------
    stacked : tensor, shape (time, batch, ...)
        As the loop wrote it. A scalar state, shape (time,), has no rows: it goes on
        counting to the end of the longest.
    lengths : tensor, shape (batch,), optional
        Valid steps of each row.
    executed : scalar tensor
        Steps that the loop took: it stops at the longest row's end.
    past_length : {"copy", "zero", "nan"}
        As in `dynamic_rnn`.

    Raises
    ------
    InputError
        For NaN in a state of integers.
    """
    if lengths is None:
        return stacked
    if past_length == "copy" or stacked.shape.rank == 1:
        return held(stacked, executed)
    return tf.where(
        _valid(stacked, lengths, time_major=True), stacked, _blank(stacked, past_length)
    )


def filled(
    outputs: Tensor,
    final: Tensor,
    lengths: Tensor | None,
    past_length: PastLength,
    time_major: bool,
) -> Tensor:
    """Return a state that the outputs hold, past each row's length as asked.

    Parameters
    ----------
    outputs : tensor, shape (batch, time, ...) or, with `time_major`, (time, batch, ...)
        As TensorFlow returns them: zero past a row's length.
    final : tensor, shape (batch, ...)
        The state at the end: what is carried through.
    lengths, past_length
        As in `finish`.
    time_major : bool
        Which layout.
    """
    if lengths is None or past_length == "zero":
        return outputs
    carried = tf.expand_dims(final, 0 if time_major else 1)
    past = carried if past_length == "copy" else _blank(outputs, past_length)
    return tf.where(_valid(outputs, lengths, time_major=time_major), outputs, past)


def _valid(a: Tensor, lengths: Tensor, *, time_major: bool) -> Tensor:
    """Return where a tensor's steps are within the rows' lengths, to be broadcast over the rest."""
    time = tf.range(tf.shape(a)[0 if time_major else 1], dtype=tf.int32)
    lengths = tf.cast(lengths, tf.int32)
    valid = time[:, None] < lengths if time_major else time < lengths[:, None]
    return valid[(..., *[None] * (a.shape.rank - 2))]


def _blank(a: Tensor, past_length: PastLength) -> Tensor:
    if past_length == "nan" and not a.dtype.is_floating:
        raise InputError(
            f"past_length='nan': a state of dtype {a.dtype.name} cannot hold NaN. "
            "Use 'copy' or 'zero'."
        )
    return tf.constant(float("nan") if past_length == "nan" else 0, a.dtype)


def held(stacked: Tensor, executed: Tensor) -> Tensor:
    """Return a stack whose steps beyond those executed hold the last one that was."""
    if tf.executing_eagerly():  # there the loop goes through all steps
        return stacked
    steps, executed = tf.shape(stacked)[0], tf.cast(executed, tf.int32)
    last = tf.minimum(tf.range(steps), executed - 1)
    # Most often some row is as long as the input: then there is nothing to copy.
    to_the_end = tf.cond(executed < steps, lambda: tf.gather(stacked, last), lambda: stacked)
    to_the_end.set_shape(stacked.shape)
    return to_the_end


def reversed_in_time(stacked: Tensor, lengths: Tensor | None) -> Tensor:
    """Return a stacked state, time-major, of a backward pass in the order of the input.

    Each row turns within its length; what is past it stays. A scalar state has no rows,
    so with lengths it stays in the order of processing.
    """
    if lengths is None:
        return tf.reverse(stacked, axis=[0])
    if stacked.shape.rank == 1:
        return stacked
    return tf.reverse_sequence(stacked, lengths, seq_axis=0, batch_axis=1)


def batch_major(stacked: Tensor) -> Tensor:
    """Return a tensor with batch and time exchanged; one without rows as it is."""
    if stacked.shape.rank == 1:
        return stacked
    return tf.transpose(stacked, [1, 0, *range(2, stacked.shape.rank)])
