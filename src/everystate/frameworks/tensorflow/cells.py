"""Cells of TensorFlow 1 that run eagerly: what `dynamic_rnn` stacks of their states is observed."""

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from everystate.errors import UnsupportedModelError
from everystate.frameworks.tensorflow.loops import Nested, Tensor
from everystate.recording.observation import Observation, widened
from everystate.recording.recorder import Recorder

_WATCHED: Final[ContextVar[tuple[tuple[Any, Recorder], ...]]] = ContextVar("cells", default=())
"""Cells that are observed, and to whom what they do is told."""


def is_cell(model: object) -> bool:
    """Whether this is a cell of TensorFlow 1, or a wrapper of one."""
    return any(
        base.__name__ == "RNNCell" and "legacy" in base.__module__ for base in type(model).__mro__
    )


def leaves(cell: Any, state: Nested = None, path: str = "") -> dict[str, dict[str, Any]]:
    """Return what a structure of the cell's states holds, by leaf path and name.

    Parameters
    ----------
    cell : RNNCell
        One of several layers has a leaf for each.
    state : nested structure
        As ``cell.state_size``, which it is by default.
    path : str
        Where the cell is. By default it goes by its class.
    """
    state = cell.state_size if state is None else state
    name = re.sub(r"(?<=.)(?=[A-Z][a-z])|(?<=[a-z])(?=[A-Z])", "_", type(cell).__name__).lower()
    path = path or name
    if hasattr(cell, "_cells") and tf.nest.is_nested(state):
        found: dict[str, dict[str, Any]] = {}
        for k, (inner, part) in enumerate(zip(cell._cells, state, strict=True)):
            found |= leaves(inner, part, f"{path}/cell_{k}")
        return found
    if hasattr(state, "_fields"):
        return {path: dict(zip(state._fields, state, strict=True))}
    flat = tf.nest.flatten(state)
    if len(flat) == 1 and cell.state_size == cell.output_size:
        return {path: {"h": flat[0]}}
    return {path: {f"state_{k}": a for k, a in enumerate(flat)}}  # or c and h side by side


@contextmanager
def watched(cell: Any, recorder: Recorder) -> Iterator[None]:
    """Have every `dynamic_rnn` of a cell within the block tell a recorder."""
    token = _WATCHED.set((*_WATCHED.get(), (cell, recorder)))
    try:
        yield
    finally:
        _WATCHED.reset(token)


def tell(
    cell: Any,
    states: Nested,
    begins_and_ends: tuple[Nested, Nested],
    lengths: Tensor | None,
    time_major: bool,
) -> None:
    """Tell whoever watches a cell what it did in one call of `dynamic_rnn`.

    Raises
    ------
    UnsupportedModelError
        If the call builds a graph, in which nothing has a value yet.
    """
    for recorder in [recorder for each, recorder in _WATCHED.get() if each is cell]:
        if not tf.executing_eagerly():
            raise UnsupportedModelError(
                f"{next(iter(leaves(cell)))}: dynamic_rnn builds a graph here, which has no values "
                "yet. Record what runs it: es.record(session, {placeholder: x}), or "
                "es.record(function.get_concrete_function(x), x); or call it eagerly."
            )
        begins, ends = begins_and_ends
        begins = tf.nest.map_structure(tf.zeros_like, ends) if begins is None else begins
        first, last = leaves(cell, begins), leaves(cell, ends)
        recorder.begin_run()
        try:
            for path, stacked in leaves(cell, states).items():
                precision = next(iter(stacked.values())).dtype.name
                shown = _arrays(stacked)
                if not time_major:
                    shown = {name: np.swapaxes(a, 0, 1) for name, a in shown.items()}
                recorder.observe(
                    Observation(
                        path=path,
                        # c first: the cell's width is that of c, where h is projected.
                        observed=dict(sorted(shown.items(), key=lambda item: item[0] != "c")),
                        initial=_arrays(first[path]),
                        final=_arrays(last[path]),
                        lengths=None if lengths is None else np.asarray(lengths, np.int64),
                        precision=precision,
                    )
                )
        finally:
            recorder.end_run()


def _arrays(state: Mapping[str, Any]) -> dict[str, npt.NDArray[Any]]:
    return {name: widened(np.asarray(a)) for name, a in state.items()}
