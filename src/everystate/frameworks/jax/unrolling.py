"""States and gates as arrays of JAX, attached to the graph."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from everystate.cells import Cell, Weights
from everystate.errors import InputError, InputTypeError
from everystate.frameworks.jax.observations import Steps, before_each, finished
from everystate.frameworks.jax.tags import Call, names_in
from everystate.frameworks.jax.tracing import is_array
from everystate.recording.stretches import in_processing_order
from everystate.recording.unrolled import LayerStates, States, Unrolled
from everystate.recording.verify import Verification

Arrays = Mapping[str, Any]


def variables_of(
    call: Call, after: Arrays, initial: Arrays, x: Any, weights: Arrays
) -> dict[str, Any]:
    """Return states and gates of a cell at every step, differentiable.

    Every state is known, so all steps are one batch: no recurrence is run again. Where the
    numbers are there, and not traced, the replay is verified.

    Parameters
    ----------
    call : Call
        The cell.
    after : mapping
        Each state after each step, of shape (time, ..., units), in order of processing.
    initial : mapping
        Each state before the first step, of shape (..., units).
    x : array, shape (time, ..., features)
        The inputs.
    weights : mapping
        The cell's weights, by name; empty if there is nothing to replay with.

    Raises
    ------
    ReplayMismatchError
        If the equations do not give the states that the cell had.
    """
    order = call.cell.states if call.cell else call.states
    states = {s: after[s] for s in order}
    if call.cell is None or call.weights is None or not weights:
        return states
    before = {s: before_each(after[s], initial[s]) for s in order}
    values = _at_once(call.cell, call.weights(weights), x, before)
    if not any(isinstance(a, jax.core.Tracer) for a in (*after.values(), x, *weights.values())):
        _verify(call, (after, initial, x, weights), values)
    return {name: states.get(name, a) for name, a in values.items()}


def _at_once(cell: Cell, w: Weights, x: Any, before: Arrays) -> dict[str, Any]:
    """Evolve steps whose incoming states are all known: time is just more batch."""
    lead = before["h"].shape[:-1]

    def flat(a: Any) -> Any:
        return jnp.broadcast_to(a, (*lead, a.shape[-1])).reshape((-1, a.shape[-1]))

    h = flat(before["h"])[None]
    known = {name: flat(before[name]) for name in cell.memory} | {"h": h}
    values = cell.evolve(w, cell.from_input(w, flat(x))[None], cell.from_state(w, h), known)
    return {name: a.reshape((*lead, a.shape[-1])) for name, a in values.items()}


def _verify(call: Call, given: tuple[Arrays, Arrays, Any, Arrays], values: Arrays) -> None:
    after, initial, x, weights = given

    def rows(a: Any) -> Any:
        a = np.asarray(a)
        return a.reshape((a.shape[0], -1, a.shape[-1]))

    forward = Call(call.path, call.cell, call.states, weights=call.weights)
    steps = Steps(
        {s: rows(a) for s, a in after.items()},
        {s: rows(np.asarray(a)[None])[0] for s, a in initial.items()},
        rows(x),
    )
    seen = finished(forward, steps, {n: np.asarray(a) for n, a in weights.items()})
    check = Verification(in_processing_order(seen))
    check.compare(
        {n: rows(a).astype(seen.observed["h"].dtype) for n, a in values.items()},
        slice(0, seen.steps),
    )


def unrolled_cell(
    call: Call,
    step: Callable[[Any, Any], tuple[Any, Any]],
    xs: Any,
    state: Any,
    weights: Arrays,
) -> Unrolled:
    """Step a cell over the first axis of its input.

    Parameters
    ----------
    call : Call
        The cell.
    step : callable
        Takes a state and an input, returns the next state and the output.
    xs : array, shape (time, ..., features)
        The inputs.
    state : pytree
        The state before the first step, as the cell takes it.
    weights : mapping
        The cell's weights, by name.
    """

    def both(state: Any, x: Any) -> Any:
        state, y = step(state, x)
        return state, (state, y)

    final, (after, outputs) = jax.lax.scan(both, state, xs)
    names = names_in(state, call)
    named = dict(zip(names, jax.tree.leaves(after), strict=True))
    initial = dict(zip(names, jax.tree.leaves(state), strict=True))
    variables = variables_of(call, named, initial, xs, weights)
    return Unrolled(outputs, final, States({call.path: layer_states(variables, initial)}))


def layer_states(variables: Arrays, initial: Arrays) -> LayerStates:
    """Return variables, and the states before the first step, of one layer."""
    return LayerStates(
        {**variables, **{f"initial_{s}": initial[s] for s in variables if s in initial}}
    )


def check_sequence(path: str, xs: Any, features: int | None, ranks: Sequence[int]) -> Any:
    """Return a cell's input as an array of JAX.

    Raises
    ------
    InputTypeError
        If it is no array.
    InputError
        If it has no step, or another rank or feature count than the cell takes.
    """
    if not is_array(xs):
        raise InputTypeError(
            f"{path}: got {type(xs).__name__}, expected an array (time, features)."
        )
    shape = tuple(xs.shape)
    wrong = features is not None and shape[-1:] != (features,)
    if len(shape) not in ranks or not shape[0] or wrong:
        raise InputError(
            f"{path}: got an input of shape {shape}, expected (time, features) or (time, batch, "
            f"features), of one step at least{f' and {features} features' if features else ''}."
        )
    return jnp.asarray(xs)
