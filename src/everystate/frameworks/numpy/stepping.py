"""The loop over time: one layer in one direction, step by step, with the equations of its cell."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np

from everystate.cells import Cell, Weights
from everystate.frameworks.numpy.reading import Tensor
from everystate.recording.observation import Lengths

BLOCK_BYTES: Final = 1 << 20
"""Input products that are computed at once: they stay in the cache until their step comes."""


@dataclass(frozen=True, eq=False)
class Layer:
    """One layer in one direction.

    Parameters
    ----------
    path : str
        Its leaf path.
    weights : Weights
        In canonical form.
    reverse : bool
        Whether it begins with the last step.
    """

    path: str
    weights: Weights
    reverse: bool


def step_through(
    cell: Cell,
    layer: Layer,
    x: Tensor,
    state: Mapping[str, Tensor],
    kept: Mapping[str, Tensor],
    *,
    lengths: Lengths | None,
    tick: Callable[[int], None],
) -> dict[str, Tensor]:
    """Run a layer over a sequence, and keep some of its variables at every step.

    Parameters
    ----------
    cell : Cell
        The equations.
    layer : Layer
        Weights and direction.
    x : ndarray, shape (time, batch, features)
        The input.
    state : mapping
        Each state before the first step, shape (batch, units).
    kept : mapping of str to ndarray, shape (time, batch, units)
        The variables to keep, and where: written in place, zero past a row's length.
    lengths : ndarray of int, shape (batch,), optional
        Valid steps of each row. None: all.
    tick : callable
        Called with the number of steps done.

    Returns
    -------
    dict
        Each state after the last step of each row, shape (batch, units).
    """
    state, w = dict(state), layer.weights
    steps = x.shape[0]
    size = max(1, BLOCK_BYTES // max(1, x.shape[1] * w.W.shape[0] * x.itemsize))
    starts = range(0, steps, size)
    with np.errstate(over="ignore", invalid="ignore"):  # NaN in, NaN out: reported as a whole
        for done, start in enumerate(reversed(starts) if layer.reverse else starts, start=1):
            a_x = cell.from_input(w, x[start : start + size])
            inside = range(a_x.shape[0])
            for k in reversed(inside) if layer.reverse else inside:
                after = cell.step(w, a_x[k], state)
                if lengths is None:
                    shown, state = after, {name: after[name] for name in state}
                else:
                    # A row that has not begun (backwards) or has ended keeps the state it has.
                    valid = (start + k < lengths)[:, None]
                    shown = {name: np.where(valid, after[name], 0) for name in kept}
                    state = {n: np.where(valid, after[n], before) for n, before in state.items()}
                for name, place in kept.items():
                    place[start + k] = shown[name]
            tick(min(done * size, steps))
    return state
