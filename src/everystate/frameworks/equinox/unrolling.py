"""`unroll` for Equinox's cells."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp

from everystate.errors import UnsupportedModelError
from everystate.frameworks.equinox.cells import WEIGHTS, call_of, is_cell, state_of
from everystate.frameworks.jax.unrolling import check_sequence, unrolled_cell
from everystate.recording.unrolled import Unrolled


def unroll(layer: eqx.Module, xs: Any, state: Any = None) -> Unrolled:
    """Step a cell of Equinox over a sequence and return all its states, differentiable.

    Parameters
    ----------
    layer : equinox.nn.LSTMCell, equinox.nn.GRUCell, or a module that names its states
        The cell.
    xs : array, shape (time, features) or (time, batch, features)
        The inputs.
    state : array or tuple of array, optional
        The state before the first step, (units,) or (batch, units), as the cell takes it. None:
        zeros.

    Raises
    ------
    UnsupportedModelError
        If `layer` is no cell, or a user's own without a `state` to begin with.
    InputError, InputTypeError
        If the input does not fit the cell.
    """
    if not is_cell(layer):
        raise UnsupportedModelError(
            f"unroll takes one cell, got {type(layer).__name__}. Try es.unroll(model.cell, xs), or "
            "es.record(model, xs) for a whole model."
        )
    path = type(layer).__name__.lower()
    call = call_of(path, type(layer))
    xs = check_sequence(path, xs, getattr(layer, "input_size", None), (2, 3))
    units = getattr(layer, "hidden_size", None)
    if state is None:
        if units is None:
            raise UnsupportedModelError(
                f"{path}: give the state before the first step: es.unroll(cell, xs, state)."
            )
        zeros = jnp.zeros((*xs.shape[1:-1], units), xs.dtype)
        state = zeros if len(call.states) == 1 else (zeros,) * len(call.states)

    def step(state: Any, x: Any) -> tuple[Any, Any]:
        result = layer(x, state)  # type: ignore[operator]
        after = state_of(result, call)
        return after, result[0] if after is not result else jax.tree.leaves(after)[0]

    weights = {name: a for name in WEIGHTS if (a := getattr(layer, name, None)) is not None}
    return unrolled_cell(call, step if xs.ndim == 2 else jax.vmap(step), xs, state, weights)
