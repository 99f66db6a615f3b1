"""Why a replay does not match: the usual suspects, tried one by one.

Each suspect is another reading of the same weights. The first under which the replay does
match is the probable cause, and the message says it.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import fields, replace
from itertools import permutations
from operator import itemgetter
from typing import Final

import numpy as np

from everystate.cells import GRU, LSTM, Cell, Weights
from everystate.cells.activations import ACTIVATIONS
from everystate.recording.compare import largest, pairs
from everystate.recording.observation import Observation
from everystate.recording.stretches import stretches

MOST_GATES: Final = 4
"""Cells with more gates are not tried in every order of these: there are too many."""

Suspect = tuple[str, Cell, Weights]


def probable_cause(seen: Observation, tolerance: float, steps: range) -> str:
    """Return a sentence on why the replay of an observation mismatches.

    Parameters
    ----------
    seen : Observation
        In the order of processing, with cell and weights.
    tolerance : float
        Scaled error up to which a suspect is taken to match.
    steps : range
        From the first step to the one that mismatches.

    Returns
    -------
    str
        The suspect that matches best, else the framework's hints, else that none was found.
    """
    return cause_where(seen, lambda other: _error(other, tolerance, steps))


def cause_where(seen: Observation, match: Callable[[Observation], float | None]) -> str:
    """Return a sentence as `probable_cause` does.

    Parameters
    ----------
    seen : Observation
        As for `probable_cause`.
    match : callable
        Takes the observation under another reading; returns its error, None if that is no match.
    """
    found = [
        (error, reading)
        for reading, cell, weights in _suspects(*seen.equations)
        if (error := match(replace(seen, cell=cell, weights=weights))) is not None
    ]
    if found:
        return f"Probable cause: it does match with {min(found)[1]}."
    if seen.hints:
        return f"Probable cause: {'; '.join(seen.hints)}."
    return (
        "None of the usual suspects (gate order, hard sigmoid, bias, forget bias, clip, reset "
        "before/after, update convention) makes it match; was the layer's forward changed?"
    )


def _suspects(cell: Cell, w: Weights) -> Iterator[Suspect]:
    for reading, other in _variants(cell):
        if other != cell:  # the reading at hand is known not to match
            yield reading, other, w
    if w.b is not None:
        yield "the input bias left out", cell, replace(w, b=None)
    if w.b_R is not None:
        yield "the recurrent bias left out", cell, replace(w, b_R=None)
    if w.b is not None and w.b_R is not None:
        yield "both biases on the input side", cell, replace(w, b=w.b + w.b_R, b_R=None)
    if w.peephole is not None:
        yield "no peepholes", cell, replace(w, peephole=None)
        for stored, order in _orders("ifo"):
            peephole = w.peephole[np.array(order)]
            yield f"the peepholes stored in the order {stored}", cell, replace(w, peephole=peephole)
    if cell.blocks <= MOST_GATES:
        for stored, order in _orders(cell.gates):
            reordered = cell.by_block(w, itemgetter(np.array(order)))
            yield f"the gates stored in the order {stored}", cell, reordered


def _variants(cell: Cell) -> Iterator[tuple[str, Cell]]:
    names = [f.name for f in fields(cell) if f.name.endswith("activation")]
    for value in ACTIVATIONS:
        for name in names:
            yield f"{name}={value!r}", cell.with_(**{name: value})
    if isinstance(cell, LSTM):
        for value in ACTIVATIONS:
            changes = {"activation": value, "output_activation": value}
            yield f"activation=output_activation={value!r}", cell.with_(**changes)
        for bias in (0.0, 1.0, -1.0):
            yield f"forget_bias={bias}", cell.with_(forget_bias=bias)
        for bound in (None, 3.0):
            yield f"cell_clip={bound}", cell.with_(cell_clip=bound)
        yield "projection_clip=None", cell.with_(projection_clip=None)
    if isinstance(cell, GRU):
        for reset in ("before", "after"):
            yield f"reset={reset!r}", cell.with_(reset=reset)
        for update in ("writes", "keeps"):
            yield f"update={update!r}", cell.with_(update=update)


def _orders(gates: Sequence[str]) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Yield each order that gates may be stored in, and where in it each gate is found."""
    for stored in permutations(gates):
        if stored != tuple(gates):
            yield " ".join(stored), tuple(stored.index(gate) for gate in gates)


def _error(seen: Observation, tolerance: float, steps: range) -> float | None:
    """Return the largest scaled error under another reading; None once it is beyond tolerance."""
    worst = 0.0
    with np.errstate(all="ignore"):
        for block, values in stretches(seen, steps):
            for pair in pairs(seen, values, block):
                error = largest(pair.error())
                if not error <= tolerance:  # NaN is no match
                    return None
                worst = max(worst, error)
    return worst
