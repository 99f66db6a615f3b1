"""A cell of one's own: the names of its states, and one step.

Whatever the framework, a cell says by one attribute, on its class or on itself, what its states
are called, and takes a step when it is called:

* ``everystate_states = ("h", "c")``: names, one for each array of the state;
* ``cell(x, state) -> state``, or ``cell(x, state) -> (output, state)``; with several states also
  one argument for each, ``cell(x, h, c) -> (h, c)`` or ``-> (output, h, c)``.

A state is an array, or any nesting of tuples, lists and mappings of arrays. Its arrays have the
names in the order of the structure, mappings in their own order; a mapping whose keys are the
names goes by them. Their first axis is the batch; the units of a trace are all other axes,
flattened.
"""

import inspect
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

from array_api_compat import array_namespace, is_jax_array

from everystate import schema
from everystate.cells.activations import Array
from everystate.errors import InputError, UnsupportedModelError
from everystate.recording.unrolled import LayerStates, States, Unrolled

ATTRIBUTE: Final = "everystate_states"


def is_cell(value: object) -> bool:
    """Whether something says what its states are called."""
    return hasattr(value, ATTRIBUTE)


def state_names(cell: object) -> tuple[str, ...]:
    """Return the names of a cell's states.

    Raises
    ------
    UnsupportedModelError
        If they are no texts, two are the same, or one has a slash or means something else.
    """
    given = getattr(cell, ATTRIBUTE)
    names = (given,) if isinstance(given, str) else tuple(given)
    texts = all(isinstance(name, str) and name for name in names)
    taken = [n for n in map(str, names) if n in schema.RESERVED or n.startswith(schema.INITIAL)]
    taken += [n for n in map(str, names) if "/" in n]
    if not texts or taken or len(set(names)) < len(names):
        raise UnsupportedModelError(
            f"{ATTRIBUTE} = {given!r}: expected different texts, none of which has a slash, begins "
            f"with {schema.INITIAL} or is one of {', '.join(schema.RESERVED)}: these mean "
            "something else in a trace."
        )
    return names


def distinct(names: Iterable[str]) -> tuple[str, ...]:
    """Return names in which none comes twice: a number is put behind those that do.

    Examples
    --------
    >>> distinct(["h", "h_1", "c", "h"])
    ('h', 'h_1', 'c', 'h_2')
    """
    found: list[str] = []
    for name in names:
        own, count = name, 0
        while own in found:
            count += 1
            own = f"{name}_{count}"
        found.append(own)
    return tuple(found)


def arrays_of(value: Any) -> Iterator[Array]:
    """Yield the arrays of a nested structure, in its order."""
    if isinstance(value, Mapping):
        for part in value.values():
            yield from arrays_of(part)
    elif isinstance(value, tuple | list):
        for part in value:
            yield from arrays_of(part)
    elif hasattr(value, "shape") and hasattr(value, "dtype"):
        yield value


def takes_states_apart(cell: object, names: tuple[str, ...]) -> bool:
    """Whether a cell takes its states as arguments of their own, ``cell(x, h, c)``.

    It does if it needs as many arguments as there are states, beside its input, or if those
    arguments are called as the states are.
    """
    try:
        signature = inspect.signature(getattr(cell, "forward", cell))  # type: ignore[arg-type]
    except (TypeError, ValueError):  # a callable written in C says nothing
        return False
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    given = [p for p in signature.parameters.values() if p.kind in kinds]
    needed = sum(p.default is p.empty for p in given)
    called_so = [p.name for p in given[1 : 1 + len(names)]] == list(names)
    return len(names) > 1 and (needed == 1 + len(names) or called_so)


def split(path: str, names: tuple[str, ...], value: Any, *, apart: bool = False) -> tuple[Any, Any]:
    """Return output and state of what a step returned; None where it returned its state alone.

    Parameters
    ----------
    path : str
        The cell's path, for the message.
    names : tuple of str
        The states' names.
    value : array or nested structure
        A state, or ``(output, state)``.
    apart : bool, default False
        Whether it may be ``(output, h, c)``, too (see `takes_states_apart`).

    Raises
    ------
    UnsupportedModelError
        If neither the value nor its last element holds as many arrays as there are names.
    """
    if len(list(arrays_of(value))) == len(names):
        return None, value
    if isinstance(value, tuple | list) and value:
        *output, last = value
        if len(list(arrays_of(last))) == len(names):
            return output[0] if len(output) == 1 else tuple(output), last
        if apart and len(value) == 1 + len(names) == len(list(arrays_of(value))):
            return value[0], tuple(value[1:])
    raise UnsupportedModelError(
        f"{path}: {ATTRIBUTE} names {len(names)} states ({', '.join(names)}), but a step "
        f"gave {len(list(arrays_of(value)))} arrays. A step returns its state, or (output, state)."
    )


def named(
    path: str, names: tuple[str, ...], value: Any, *, apart: bool = False
) -> dict[str, Array]:
    """Return the states, by name, in what a step was given or returned (see `split`)."""
    state = split(path, names, value, apart=apart)[1]
    if isinstance(state, Mapping) and set(state) == set(names):
        state = {name: state[name] for name in names}  # whatever its order
    return dict(zip(names, arrays_of(state), strict=True))


def unroll_cell(path: str, cell: Any, x: Array, state: Any = None) -> Unrolled:
    """Step a cell over the first axis of `x` and return all its states, differentiable.

    Parameters
    ----------
    path : str
        What the cell is called.
    cell : callable
        A cell that names its states.
    x : array, shape (time, batch, ...)
        The input, of any library whose arrays can be stacked.
    state : array or nested structure, optional
        The state before the first step. None: the cell gets None, and has to know.

    Returns
    -------
    Unrolled
        ``outputs`` are those of the steps; of a cell that returns its state alone, its first
        state. ``final_state`` has the cell's own structure.

    Raises
    ------
    InputError
        If there is no step, no state and the cell cannot start without one, or an array whose
        shape changes from step to step.
    UnsupportedModelError
        If a step does not return as many arrays as there are names.

    Examples
    --------
    >>> import numpy as np
    >>> def leaky(x, v):
    ...     return 0.5 * v + x
    >>> leaky.everystate_states = ("v",)
    >>> out = unroll_cell("leaky", leaky, np.ones((3, 1, 1)), np.zeros((1, 1)))
    >>> out.states.v.ravel().tolist()
    [1.0, 1.5, 1.75]
    """
    names = state_names(cell)
    if not len(getattr(x, "shape", ())) or not x.shape[0]:
        raise InputError(
            f"{path}: got an input of shape {getattr(x, 'shape', None)}, expected (time, batch, "
            "features), of one step at least."
        )
    initial = {} if state is None else _kept(named(path, names, state), leaves=True)
    outputs, states = [], []
    apart = takes_states_apart(cell, names)
    step = _with_states_apart(cell, names) if apart else cell
    for t in range(x.shape[0]):
        stepped = _first_step(path, step, names, x[t]) if state is None else step(x[t], state)
        output, state = split(path, names, stepped, apart=apart)
        states.append(_kept(named(path, names, state)))
        outputs.append(states[-1][names[0]] if output is None else _copied(output))
    variables = {n: _stacked(f"{path}: {n}", [found[n] for found in states]) for n in names}
    variables |= {f"initial_{name}": a for name, a in initial.items()}
    arrays = all(hasattr(o, "shape") for o in outputs)
    together = _stacked(f"{path}: the output", outputs) if arrays else outputs
    return Unrolled(together, state, States({path: LayerStates(variables)}))


def _with_states_apart(cell: Any, names: tuple[str, ...]) -> Any:
    """Return ``cell(x, h, c)`` as a cell of one state, or None."""

    def step(x: Array, state: Any) -> Any:
        return cell(x, *([None] * len(names) if state is None else arrays_of(state)))

    return step


def _first_step(path: str, step: Any, names: tuple[str, ...], x: Array) -> Any:
    """Return what a cell makes of no state, or say that it needs one."""
    try:
        return step(x, None)
    except (TypeError, AttributeError) as error:
        raise InputError(
            f"{path}: got no initial state, and its first step failed with None in place of one "
            f"({error}). Give the state before the first step: es.record(cell, x, state), or "
            f"es.unroll(cell, x, state); its arrays are {', '.join(names)}."
        ) from error


def _kept(states: dict[str, Array], *, leaves: bool = False) -> dict[str, Array]:
    """Return copies; with `leaves`, PyTorch's leaves, which nobody changes in place, themselves."""

    def is_leaf(a: Array) -> bool:
        return leaves and getattr(a, "requires_grad", False) and a.is_leaf

    return {name: a if is_leaf(a) else _copied(a) for name, a in states.items()}


def _copied(a: Any) -> Any:
    """Return an array of its own, differentiable: the next step may change this one in place."""
    copy = getattr(a, "clone", None) or getattr(a, "copy", None)
    if copy is None or not hasattr(a, "shape") or is_jax_array(a):  # which nobody changes
        return a
    return copy()


def _stacked(what: str, steps: list[Array]) -> Array:
    shapes = list(dict.fromkeys(tuple(a.shape) for a in steps))
    if len(shapes) > 1:
        raise InputError(
            f"{what} has shape {shapes[0]} at step 0 and {shapes[1]} later on, expected one shape "
            "at all steps."
        )
    return array_namespace(*steps).stack(steps)
