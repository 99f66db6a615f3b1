"""A cell of one's own on NumPy: any callable that names its states (`everystate.recording.custom`).

>>> import numpy as np, everystate as es
>>> def leaky(x, v):
...     return 0.9 * v + 0.1 * x
>>> leaky.everystate_states = ("v",)
>>> trace = es.record(leaky, np.ones((5, 2, 3)), np.zeros((2, 3)))
>>> trace["leaky"].v.isel(batch=0, unit=0).values.round(3).tolist()
[0.1, 0.19, 0.271, 0.344, 0.41]
"""

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from functools import partial
from typing import Any

from everystate.errors import InputError, InputTypeError
from everystate.frameworks.numpy.reading import Tensor
from everystate.recording.custom import is_cell, state_names, unroll_cell
from everystate.recording.observation import Observation, as_numpy, widened
from everystate.recording.recorder import Recorder

_observed: ContextVar[tuple[tuple[object, Recorder], ...]] = ContextVar("cells", default=())
"""Cells that are being observed, innermost last, each with its recorder."""


def matches(model: object) -> bool:
    """Whether `model` is called for a step and says what its states are called."""
    return callable(model) and is_cell(model) and not isinstance(model, type)


def path_of(cell: Any) -> str:
    """Return a function's name, or the name of an object's class, in small letters."""
    while isinstance(cell, partial):
        cell = cell.func
    name = getattr(cell, "__name__", type(cell).__name__)
    return re.sub(r"\W+", "_", name).strip("_").lower()


@contextmanager
def observe(cell: Callable[..., Any], recorder: Recorder) -> Iterator[None]:
    """Have `call` report to `recorder`; steps that the user takes alone are not seen."""
    token = _observed.set((*_observed.get(), (cell, recorder)))
    try:
        yield
    finally:
        _observed.reset(token)


def call(cell: Callable[..., Any], inputs: Sequence[Any]) -> object:
    """Step a cell over the first axis of its input.

    Parameters
    ----------
    cell : callable
        The cell.
    inputs : sequence
        The input, (time, batch, ...), and the state before the first step, if there is one.

    Returns
    -------
    tuple
        Outputs, (time, batch, ...), and final state.

    Raises
    ------
    InputError
        If there are more inputs, or no step.
    """
    path = path_of(cell)
    if not 1 <= len(inputs) <= 2:
        raise InputError(
            f"{path}: got {len(inputs)} inputs, expected x, or x and the state; several states are "
            "one tuple, es.record(cell, x, (h, c))."
        )
    out = unroll_cell(path, cell, *inputs)
    for observed, recorder in reversed(_observed.get()):
        if observed is cell:
            recorder.observe(_observation(path, cell, inputs[0], out.states[path]))
            break
    return out.outputs, out.final_state


def _observation(path: str, cell: object, x: Any, states: Any) -> Observation:
    names = state_names(cell)
    observed = {name: _flat(path, name, states[name], 2) for name in names}
    given = [name for name in names if f"initial_{name}" in states]
    read = as_numpy(x)
    return Observation(
        path=path,
        observed=observed,
        initial={name: _flat(path, name, states[f"initial_{name}"], 1) for name in given},
        final={name: a[-1] for name, a in observed.items()},
        inputs=_flat(path, "the input", read, 2) if read.dtype.kind == "f" else None,
        precision=next(iter(observed.values())).dtype.name,
        attrs={"module": getattr(cell, "__name__", type(cell).__name__)},
    )


def _flat(path: str, what: str, a: Any, axes: int) -> Tensor:
    """Return (time, batch, units) or (batch, units); further dimensions are flattened into units.

    Parameters
    ----------
    path, what : str
        For messages.
    a : array
        With time first if `axes` is 2, else with the batch first. Without a batch it gets one.
    axes : int
        How many axes come before the units.
    """
    array = as_numpy(a)
    if array.dtype.kind != "f":
        raise InputTypeError(
            f"{path}: {what} has dtype {array.dtype}, expected floating numbers. Try "
            ".astype('float32')."
        )
    wide = widened(array)
    if wide.ndim <= axes:
        return wide.reshape((*wide.shape[: axes - 1], 1, -1))
    return wide.reshape((*wide.shape[:axes], -1))
