"""Replay: what a fused kernel hides, computed from the states that it shows.

``h`` at every step is the kernel's own output, so the gates of all steps are matrix
products over ``(x_t, h_{t-1})`` and only ``c`` needs a scan. No recurrence is run again:
errors do not build up.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from everystate import schema
from everystate.cells.activations import Array
from everystate.recording.observation import Lengths, Observation, as_numpy, turn
from everystate.recording.selection import Plan
from everystate.recording.skipping import Arrays, blanked, spread
from everystate.recording.spans import Spans, can_be_spanned
from everystate.recording.stretches import in_processing_order, of_units, stretches
from everystate.recording.verify import Verification
from everystate.recording.workers import workers


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
    seen : Observation
        Cell and weights, for the leaf's attributes; it holds no sequence any more.
    dims : dict
        Name of the last dimension, per variable and state.
    units : ndarray of int, optional
        Index of each recorded unit, in variables of the dimension ``unit``. None: all.
    lengths : ndarray of int, shape (batch,), optional
        Valid steps of each row. None: all.
    attrs : dict
        Attributes of the leaf.
    room : dict
        Arrays for the whole sequence, where `variables` are the part recorded so far.
    """

    path: str
    variables: dict[str, npt.NDArray[np.generic]]
    origins: dict[str, schema.Origin]
    initial: dict[str, npt.NDArray[np.generic]]
    final: dict[str, npt.NDArray[np.generic]]
    steps: npt.NDArray[np.int64]
    length: int
    seen: Observation
    dims: dict[str, str]
    units: npt.NDArray[np.int64] | None = None
    lengths: Lengths | None = None
    attrs: dict[str, str | int | float] = field(default_factory=dict)
    room: dict[str, npt.NDArray[np.generic]] = field(default_factory=dict)


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
    if seen.cell is not None and seen.weights is not None:
        seen.cell.check(seen.weights, seen.path)
    hidden = tuple(v for v in plan.variables if v not in (*seen.observed, schema.INPUTS))
    variables: dict[str, npt.NDArray[np.generic]] = {}
    attrs: dict[str, float] = {}
    if hidden or (seen.shows_gates and seen.weights is not None):
        with np.errstate(over="ignore", invalid="ignore"):  # reported by the recorder
            variables, attrs = _replayed(seen, plan, hidden)
    origins: dict[str, schema.Origin] = dict.fromkeys(variables, schema.REPLAYED)
    for name in plan.variables:
        if name not in hidden:
            variables[name] = _shown(seen, plan, name)
            origins[name] = schema.OBSERVED
    for name, array in variables.items():
        array = blanked(array, name, seen, plan.steps)
        variables[name] = _blank_past_end(array, plan.steps, seen.lengths)
    return Recorded(
        path=seen.path,
        variables={name: variables[name] for name in plan.variables if name in variables},
        origins=origins,
        initial=_initial(seen, plan),
        final={name: _copied(seen, plan, name, a) for name, a in seen.final.items()},
        steps=np.asarray(plan.steps, dtype=np.int64),
        length=seen.steps,
        units=plan.units,
        dims={name: seen.dim(name) for name in (*plan.variables, *seen.initial)},
        lengths=seen.lengths,
        attrs={**seen.attrs, **_skipped(seen), **attrs},
        seen=replace(
            seen, observed={}, inputs=None, previous=None, initial={}, final={}, skipped=None
        ),
    )


def _initial(seen: Observation, plan: Plan) -> dict[str, npt.NDArray[np.generic]]:
    return {name: _copied(seen, plan, name, a) for name, a in seen.initial.items()}


def _skipped(seen: Observation) -> dict[str, int]:
    return {} if seen.skipped is None else {schema.SKIPPED_ATTR: int(seen.skipped.sum())}


def _shown(seen: Observation, plan: Plan, name: str) -> npt.NDArray[np.generic]:
    source = seen.inputs if name == schema.INPUTS else seen.observed[name]
    assert source is not None
    a = as_numpy(source)
    whole = len(plan.steps) == seen.steps and _units(seen, plan, name) is None
    complete = seen.lengths is None and seen.skipped is None  # nothing will be blanked
    if name in seen.unshared and whole and complete:
        return a.astype(plan.dtype or a.dtype, copy=False)
    return _copied(seen, plan, name, a[_slice(plan.steps)])


def _copied(seen: Observation, plan: Plan, name: str, a: Array) -> npt.NDArray[np.generic]:
    """Return the chosen units: a copy, because the framework may reuse its buffer."""
    return np.array(of_units(as_numpy(a), _units(seen, plan, name)), dtype=plan.dtype)


def _units(seen: Observation, plan: Plan, name: str) -> npt.NDArray[np.int64] | None:
    """Return which units of a variable were chosen; a projected state is kept whole."""
    return plan.units if seen.dim(name) == schema.UNIT else None


def _replayed(
    seen: Observation, plan: Plan, hidden: tuple[str, ...]
) -> tuple[dict[str, npt.NDArray[np.generic]], dict[str, float]]:
    ahead = in_processing_order(seen)
    ragged_backward = seen.reverse and seen.lengths is not None
    steps, whole = plan.steps, ragged_backward or seen.skipped is not None
    if whole:  # each row has places of its own: keep all, choose afterwards
        steps = range(seen.steps)
    elif seen.reverse and steps:
        steps = range(seen.steps - 1 - steps[-1], seen.steps - steps[0], steps.step)
    check = Verification(ahead, _computable_units(ahead, plan))
    kept = _room(seen, plan, hidden, len(steps))
    chosen = plan.units is not None and check.units is None
    for block, values in _evolved(check, steps, kept, chosen=chosen):
        to, among = _places(block, steps)
        for name in hidden:
            found = as_numpy(values[name])
            if not np.may_share_memory(kept[name], found):
                units = _units(seen, plan, name) if check.units is None else None
                kept[name][to] = of_units(found[among], units)
    if seen.skipped is not None:
        kept = spread(kept, _initial(seen, plan), ahead)
    if seen.reverse:
        kept = {name: turn(a, seen.lengths) for name, a in kept.items()}
    if whole:
        kept = {name: a[_slice(plan.steps)].copy() for name, a in kept.items()}
    return kept, check.attrs


def _evolved(
    check: Verification, steps: range, kept: Arrays, *, chosen: bool
) -> Iterator[tuple[slice, Mapping[str, Array]]]:
    """Evolve and compare; yield blocks of steps, and what was computed of them.

    That is in `kept` already where it can be: not if of all units some were `chosen`.
    """
    if not can_be_spanned(check.seen):
        for block, values in stretches(check.seen, steps, check.units):
            check.compare(values, block)
            yield block, values
        return

    def place(span: slice) -> Arrays:
        to, among = _places(span, steps)
        stay = not chosen and (among.start, among.step) == (0, 1)
        return {n: a[to] for n, a in kept.items() if stay and a.dtype == spans.dtype}

    with workers() as pool:
        spans = Spans(check, steps, tuple(kept), pool)
        yield from spans.into(place)


def _computable_units(seen: Observation, plan: Plan) -> npt.NDArray[np.int64] | None:
    """Return the units that are enough to compute; None where all are needed."""
    cell, weights = seen.equations
    alone = cell.unit_wise and weights.projection is None
    return plan.units if alone else None


def _room(seen: Observation, plan: Plan, names: tuple[str, ...], steps: int) -> Arrays:
    """Return room for the chosen steps and units of variables: one piece of memory.

    The C library gives small pieces back to the system each time and gets them anew, page by page.
    """
    if not names:
        return {}
    units = {name: _units(seen, plan, name) for name in names}
    widths = [seen.units(n) if chosen is None else chosen.size for n, chosen in units.items()]
    rows, dtype = steps * seen.batch, plan.dtype or as_numpy(seen.observed["h"]).dtype
    parts = np.split(np.empty(rows * sum(widths), dtype), rows * np.cumsum(widths)[:-1])
    shapes = [(steps, seen.batch, width) for width in widths]
    return {n: a.reshape(shape) for n, a, shape in zip(names, parts, shapes, strict=True)}


def _places(block: slice, steps: range) -> tuple[slice, slice]:
    """Return where the chosen steps of a block are stored, and where among the block they are."""
    stored, then = (len(range(steps.start, t, steps.step)) for t in (block.start, block.stop))
    first = (steps[stored] - block.start) // block.step
    return slice(stored, then), slice(first, None, steps.step // block.step)


def _slice(steps: range) -> slice:
    return slice(steps.start, steps.stop, steps.step)


def _blank_past_end(
    a: npt.NDArray[np.generic], steps: range, lengths: Lengths | None
) -> npt.NDArray[np.generic]:
    if lengths is not None:
        a[np.asarray(steps)[:, None] >= lengths] = np.nan
    return a
