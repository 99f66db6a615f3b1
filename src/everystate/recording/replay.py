"""Replay: what a fused kernel hides, computed from the states that it shows.

``h`` at every step is the kernel's own output, so the gates of all steps are matrix
products over ``(x_t, h_{t-1})`` and only ``c`` needs a scan. No recurrence is run again:
errors do not build up. Time is cut into blocks that fit the processor's cache, which also
bounds the working memory, whatever the length of the sequence.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Final

import numpy as np
import numpy.typing as npt
from array_api_compat import array_namespace

from everystate import schema
from everystate.cells import Weights
from everystate.cells.activations import Array
from everystate.recording.observation import Lengths, Observation, as_numpy, turn
from everystate.recording.selection import Plan
from everystate.recording.verify import Verification

BLOCK_BYTES: Final = 1 << 20
"""Gates of one block: small enough for the cache between the products and the scan."""
BLOCK_ROWS: Final = 512
"""Rows of one block at least: fewer make the matrix product itself slower."""


@dataclass(eq=False)
class Recorded:
    """What was recorded of one sequence in one layer: NumPy arrays, time-major.

    Parameters
    ----------
    path : str
        Leaf path in the trace.
    variables : dict
        Arrays of shape (selected steps, batch, units), in input time order.
    origins : dict
        ``observed`` or ``replayed``, per variable.
    initial, final : dict
        Each state before the first and after the last step, shape (batch, units).
    steps : ndarray of int
        Index of each recorded step in the sequence.
    length : int
        Steps of the whole sequence, recorded or not.
    units : ndarray of int, optional
        Index of each recorded unit. None: all.
    lengths : ndarray of int, shape (batch,), optional
        Valid steps of each row. None: all.
    attrs : dict
        Attributes of the leaf.
    seen : Observation
        Cell and weights, for the leaf's attributes; it holds no sequence any more.
    """

    path: str
    variables: dict[str, npt.NDArray[np.generic]]
    origins: dict[str, schema.Origin]
    initial: dict[str, npt.NDArray[np.generic]]
    final: dict[str, npt.NDArray[np.generic]]
    steps: npt.NDArray[np.int64]
    length: int
    seen: Observation
    units: npt.NDArray[np.int64] | None = None
    lengths: Lengths | None = None
    attrs: dict[str, str | int | float] = field(default_factory=dict)


def replay(seen: Observation, plan: Plan) -> Recorded:
    """Record one observation: copy what was shown, replay and verify what was hidden.

    Parameters
    ----------
    seen : Observation
        What the framework showed.
    plan : Plan
        What to record of it.

    Returns
    -------
    Recorded

    Raises
    ------
    ReplayMismatchError
        If a replayed state differs from the framework's beyond rounding.
    """
    seen.cell and seen.weights and seen.cell.check(seen.weights, seen.path)
    hidden = tuple(v for v in plan.variables if v not in (*seen.observed, schema.INPUTS))
    variables, attrs = _replayed(seen, plan, hidden) if hidden or seen.shows_gates else ({}, {})
    origins: dict[str, schema.Origin] = dict.fromkeys(variables, schema.REPLAYED)
    for name in plan.variables:
        if name not in hidden:
            variables[name] = _shown(seen, plan, name)
            origins[name] = schema.OBSERVED
    for name, array in variables.items():
        variables[name] = _blank_past_end(array, plan.steps, seen.lengths)
    return Recorded(
        path=seen.path,
        variables={name: variables[name] for name in plan.variables if name in variables},
        origins=origins,
        initial={k: _of_units(as_numpy(a), plan.units) for k, a in seen.initial.items()},
        final={k: _of_units(as_numpy(a), plan.units) for k, a in seen.final.items()},
        steps=np.asarray(plan.steps, dtype=np.int64),
        length=seen.steps,
        units=plan.units,
        lengths=seen.lengths,
        attrs={**seen.attrs, **attrs},
        seen=replace(seen, observed={}, inputs=None, previous=None, initial={}, final={}),
    )


def _shown(seen: Observation, plan: Plan, name: str) -> npt.NDArray[np.generic]:
    source = seen.inputs if name == schema.INPUTS else seen.observed[name]
    assert source is not None
    units = None if name == schema.INPUTS else plan.units
    chosen = _of_units(as_numpy(source)[_slice(plan.steps)], units)
    return np.array(chosen, dtype=plan.dtype)  # a copy: the framework may reuse its buffer


def _replayed(
    seen: Observation, plan: Plan, hidden: tuple[str, ...]
) -> tuple[dict[str, npt.NDArray[np.generic]], dict[str, float]]:
    ahead = in_processing_order(seen)
    ragged_backward = seen.reverse and seen.lengths is not None
    steps = plan.steps
    if ragged_backward:  # each row turns about a place of its own: keep all, choose afterwards
        steps = range(seen.steps)
    elif seen.reverse:
        steps = range(seen.steps - 1 - steps[-1], seen.steps - steps[0], steps.step)
    check = Verification(ahead, _computable_units(ahead, plan))
    kept: dict[str, npt.NDArray[np.generic]] = {}
    for block, values in _stretches(ahead, steps, check.units):
        check.compare(values, block)
        for name in hidden:
            _keep(kept, name, values, block, steps, plan, check.units)
    if seen.reverse:
        kept = {name: turn(a, seen.lengths) for name, a in kept.items()}
    if ragged_backward:
        kept = {name: a[_slice(plan.steps)] for name, a in kept.items()}
    attrs = {f"max_error_{name}": error for name, error in check.errors.items()}
    attrs |= {"tolerance": check.tolerance, "unverified_values": check.unverified}
    return kept, attrs


def in_processing_order(seen: Observation) -> Observation:
    """Return an observation with its sequences in the order in which the layer reads them."""
    if not seen.reverse:
        return seen
    return replace(
        seen,
        observed={name: turn(a, seen.lengths) for name, a in seen.observed.items()},
        inputs=None if seen.inputs is None else turn(seen.inputs, seen.lengths),
        reverse=False,
    )


def _computable_units(seen: Observation, plan: Plan) -> npt.NDArray[np.int64] | None:
    """Return the units that are enough to compute; None where all are needed."""
    assert seen.cell is not None and seen.weights is not None
    alone = seen.cell.unit_wise and seen.weights.projection is None
    return plan.units if alone else None


def _stretches(
    seen: Observation, steps: range, units: npt.NDArray[np.int64] | None
) -> Iterator[tuple[slice, Mapping[str, Array]]]:
    """Yield each block of steps, and every variable computed in it."""
    cell, w = seen.cell, seen.weights
    assert cell is not None and w is not None
    scanned = bool(cell.memory) and seen.previous is None
    first, stride = (0, 1) if scanned else (steps.start, steps.step)
    h_all = seen.observed["h"]
    own = w if units is None else cell.take_units(w, units)
    state = {name: _of_units(seen.initial[name], units) for name in cell.memory}
    rows = _block_steps(seen)
    for start in range(first, steps[-1] + 1, rows * stride):
        block = slice(start, min(start + rows * stride, steps[-1] + 1), stride)
        if seen.previous is not None:
            yield block, _stepped(seen, own, block, units)
            continue
        h = _before(h_all, seen.initial["h"], block)
        before = {**state, "h": _of_units(h, units)}
        if seen.shows_gates:
            gates = {name: _of_units(seen.observed[name][block], units) for name in cell.gates}
            values = cell.from_gates(own, gates, before)
        else:
            assert seen.inputs is not None
            a_x = cell.from_input(own, seen.inputs[block])
            values = cell.evolve(own, a_x, cell.from_state(own, h), before)
        state = {name: values[name][-1] for name in cell.memory}
        yield block, values


def _before(h: Array, initial: Array, block: slice) -> Array:
    """Return the hidden state before each step of a block."""
    if block.start > 0:
        return h[block.start - 1 : block.stop - 1 : block.step]
    xp = array_namespace(h)
    later = h[block.step - 1 : block.stop - 1 : block.step]
    return xp.concat([xp.astype(initial, h.dtype)[None], later], axis=0)


def _stepped(
    seen: Observation, w: Weights, block: slice, units: npt.NDArray[np.int64] | None
) -> dict[str, Array]:
    """Evolve steps whose incoming states are all known: time is just more batch."""
    cell, batch = seen.cell, seen.batch
    assert cell is not None and seen.inputs is not None and seen.previous is not None
    previous = {name: a[block] for name, a in seen.previous.items()}
    a_x = cell.from_input(w, seen.inputs[block])
    n = a_x.shape[0]

    def flat(a: Array) -> Array:
        return a.reshape((n * batch, a.shape[-1]))

    h = flat(previous["h"])[None]
    before = {name: _of_units(flat(previous[name]), units) for name in cell.memory}
    before["h"] = _of_units(h, units)
    values = cell.evolve(w, flat(a_x)[None], cell.from_state(w, h), before)
    return {name: a.reshape((n, batch, a.shape[-1])) for name, a in values.items()}


def _block_steps(seen: Observation) -> int:
    assert seen.weights is not None
    width = int(seen.weights.W.shape[0]) * max(1, seen.batch)
    itemsize = 8 if seen.precision == "float64" else 4
    by_cache = BLOCK_BYTES // (width * itemsize)
    return max(1, by_cache, BLOCK_ROWS // max(1, seen.batch))


def _keep(
    kept: dict[str, npt.NDArray[np.generic]],
    name: str,
    values: Mapping[str, Array],
    block: slice,
    steps: range,
    plan: Plan,
    computed: object,
) -> None:
    """Copy the chosen steps and units of a block to where they are stored."""
    inside = range(block.start, block.stop, block.step)
    first = next((k for k, t in enumerate(inside) if t in steps), None)
    if first is None or name not in values:
        return
    stride = steps.step // block.step
    source = as_numpy(values[name])[first::stride]
    source = source if computed is not None else _of_units(source, plan.units)
    if name not in kept:
        shape = (len(steps), *source.shape[1:])
        kept[name] = np.empty(shape, plan.dtype or source.dtype)
    to = (inside[first] - steps.start) // steps.step
    kept[name][to : to + source.shape[0]] = source


def _of_units(a: Array, units: object) -> Array:
    return a if units is None else a[..., units]


def _slice(steps: range) -> slice:
    return slice(steps.start, steps.stop, steps.step)


def _blank_past_end(
    a: npt.NDArray[np.generic], steps: range, lengths: Lengths | None
) -> npt.NDArray[np.generic]:
    if lengths is not None:
        a[np.asarray(steps)[:, None] >= lengths] = np.nan
    return a
