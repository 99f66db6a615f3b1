"""Which axis of a model's input is time, where only running the model tells."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from everystate.errors import EverystateError, InputError

ORDER: Final = (1, 0, 2)
"""Axes, the likeliest first."""
FEW: Final = (11, 7, 5, 3, 2, 13, 17)
"""Steps to run: a number that no other axis has. There are more of them than axes."""
MUCH: Final = 4096
"""An axis longer than this is no batch, nor are there as many features; `SHORT` of it is run."""
SHORT: Final = 48

Ones = npt.NDArray[Any]


def time_axis_of(
    x: Any,
    sizes: Sequence[int | None] | None,
    steps_of: Callable[[Ones], set[int]],
    name: str,
) -> int:
    """Return which axis of an input is time: the one that all layers take as many steps of.

    The model runs on a few steps of ones, once as a rule, once for each axis at most.

    Parameters
    ----------
    x : array
        The input, or anything with its ``shape`` and ``dtype``; it is not read.
    sizes : sequence of int or None, optional
        The size that the model demands of each axis; None where any will do. None for all: it
        demands nothing.
    steps_of : callable
        Runs the model on an array; returns how many steps its layers took.
    name : str
        What the model is called in messages.

    Raises
    ------
    InputError
        If the input has another number of axes; if none of them, or more than one, may be time;
        or if the model takes only a fixed number of steps, and not those of the input.
    """
    sizes = [None] * len(x.shape) if sizes is None else sizes
    if len(sizes) != len(x.shape):
        wanted = ", ".join("?" if size is None else str(size) for size in sizes)
        raise InputError(
            f"{name}: the input has shape {tuple(x.shape)}, expected ({wanted}). A missing axis is "
            "added by x[:, None] or x[None]."
        )
    fails: EverystateError | None = None
    for axis, shape in _attempts(x.shape, sizes):
        try:
            steps = steps_of(np.ones(shape, x.dtype))
        except EverystateError as error:
            fails = error
            continue
        if steps == {shape[axis]}:
            return _checked(x.shape, sizes, axis, name)
    raise InputError(
        f"which axis of the input of shape {tuple(x.shape)} is time? {name} does not tell"
        f"{'.' if fails is None else f': {fails}'} Say time_axis=0 or time_axis=1."
    ) from fails


def _attempts(
    shape: Sequence[int], sizes: Sequence[int | None]
) -> Iterator[tuple[int, tuple[int, ...]]]:
    """Yield an axis that may be time and an input's shape, in which no other is as long."""
    axes = [axis for axis in ORDER if axis < len(shape)]
    for axis in sorted(axes, key=lambda axis: sizes[axis] is not None):
        tried = [size or (n if n <= MUCH else SHORT) for n, size in zip(shape, sizes, strict=True)]
        tried[axis] = steps = sizes[axis] or _unlike(tried)
        for other in axes:
            if other != axis and tried[other] == steps and sizes[other] is None:
                tried[other] = _unlike(tried)
        if tried.count(steps) == 1:
            yield axis, tuple(tried)


def _unlike(numbers: Sequence[int]) -> int:
    return next(n for n in FEW if n not in numbers)


def _checked(shape: Sequence[int], sizes: Sequence[int | None], axis: int, name: str) -> int:
    steps = sizes[axis]
    if steps is not None and steps != shape[axis]:
        raise InputError(
            f"{name} takes {steps} steps at once, neither more nor fewer: axis {axis} of its input "
            f"is fixed, and the input of shape {tuple(shape)} has {shape[axis]}. Save the model "
            f"with that axis left open (None, or a dynamic axis); or say time_axis={axis}, chunk="
            f"{steps} and, by step=, that its state is carried from one such stretch to the next."
        )
    return axis
