"""What a stack is called with: checked, cast, and brought to (time, batch, features)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from everystate.errors import InputError, InputTypeError
from everystate.frameworks.numpy.reading import Tensor
from everystate.recording.observation import Lengths, as_numpy, check_numbers

if TYPE_CHECKING:
    from everystate.frameworks.numpy.stack import Stack


@dataclass(frozen=True, eq=False)
class Given:
    """The input of one call.

    Parameters
    ----------
    x : ndarray, shape (time, batch, features)
        The sequence, in the weights' dtype.
    initial : list of dict
        For each layer and direction, each state before the first step, (batch, units).
    stateless : bool
        Whether the caller gave no state, so that it begins with zeros.
    lengths : ndarray of int, shape (batch,), optional
        Valid steps of each row. None: all.
    batched : bool
        Whether the caller's arrays have a batch.
    """

    x: Tensor
    initial: list[dict[str, Tensor]]
    stateless: bool
    lengths: Lengths | None
    batched: bool

    def in_layout(self, stack: "Stack", a: Tensor) -> Tensor:
        """Return (time, batch, units) in the layout of the caller's input."""
        if not self.batched:
            return a[:, 0]
        return a.swapaxes(0, 1) if stack.batch_first else a


def read_input(stack: "Stack", x: Any, state: Any, lengths: Sequence[int] | None) -> Given:
    """Check what a stack is called with.

    Raises
    ------
    InputError
        If a shape does not fit, or batch or time are empty.
    InputTypeError
        If something is not an array of numbers.
    """
    array = _numbers(stack, x, "the input")
    if array.ndim == 1 and stack.features == 1:
        array = array[:, None]
    batched = array.ndim == 3
    _check_shape(stack, array)
    array = array[:, None] if not batched else array.swapaxes(0, 1) if stack.batch_first else array
    steps, batch = array.shape[:2]
    return Given(
        x=array,
        initial=_initial(stack, state, batch, batched),
        stateless=state is None,
        lengths=None if lengths is None else _lengths(stack, lengths, steps, batch),
        batched=batched,
    )


def _numbers(stack: "Stack", a: Any, what: str) -> Tensor:
    try:
        array = as_numpy(a)
    except (TypeError, ValueError, RuntimeError) as error:
        raise InputTypeError(
            f"{stack.name}: {what} is a {type(a).__name__} that NumPy cannot read ({error}). "
            "Expected an array of numbers."
        ) from error
    check_numbers(array, f"{stack.name}: {what}")
    return array.astype(stack.dtype, copy=False)


def _check_shape(stack: "Stack", x: Tensor) -> None:
    order = "batch, time" if stack.batch_first else "time, batch"
    expected = f"({order}, {stack.features}) or (time, {stack.features})"
    expected += " or (time,)" if stack.features == 1 else ""
    got = f"{stack.name}: got an input of shape {x.shape}, expected {expected}."
    if x.ndim not in (2, 3):
        raise InputError(f"{got} Add or drop a dimension, x[:, None] or x[0].")
    if x.shape[-1] != stack.features:
        elsewhere = [k for k, size in enumerate(x.shape[:-1]) if size == stack.features]
        hint = (
            f"Axis {elsewhere[-1]} has {stack.features}: try np.moveaxis(x, {elsewhere[-1]}, -1)."
            if elsewhere
            else "Choose the features that the model was trained on, in their order."
        )
        raise InputError(f"{got} The model reads {stack.features} features a step. {hint}")
    if 0 in x.shape:
        raise InputError(f"{got} It is empty, so there is nothing to record.")


def _initial(stack: "Stack", state: Any, batch: int, batched: bool) -> list[dict[str, Tensor]]:
    names, count = stack.cell.states, len(stack.layers)
    shapes = {name: (count, batch, stack.sizes[name]) for name in names}
    if state is None:
        zeros = {name: np.zeros(shape, stack.dtype) for name, shape in shapes.items()}
        return [{name: zeros[name][k] for name in names} for k in range(count)]
    given = state if isinstance(state, tuple | list) and len(names) > 1 else (state,)
    if len(given) != len(names):
        raise InputError(
            f"{stack.name}: the state has {len(given)} parts, expected {len(names)}: "
            f"({', '.join(f'{name}_0' for name in names)})."
        )
    found = {}
    for name, part in zip(names, given, strict=True):
        array = _numbers(stack, part, f"the initial state {name}_0")
        shape = shapes[name] if batched else (count, shapes[name][2])
        if array.shape != shape:
            axes = "layers * directions, batch, units" if batched else "layers * directions, units"
            raise InputError(
                f"{stack.name}: {name}_0 has shape {array.shape}, expected {shape}: ({axes})."
            )
        # A copy: the caller may go on to change it, and the trace keeps it.
        found[name] = array.reshape(shapes[name]).copy()
    return [{name: found[name][k] for name in names} for k in range(count)]


def _lengths(stack: "Stack", lengths: Sequence[int], steps: int, batch: int) -> Lengths:
    array = np.asarray(lengths)
    fits = array.shape == (batch,) and array.dtype.kind in "iu"
    if not fits or array.min() < 1 or array.max() > steps:
        raise InputError(
            f"{stack.name}: lengths={lengths!r}, expected {batch} whole numbers, one for each row, "
            f"from 1 to {steps}."
        )
    return array.astype(np.int64)
