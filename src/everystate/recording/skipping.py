"""Steps that a framework skips, anywhere in a row: a mask, as Keras has it.

A skipped step carries every state over; no gate works. Rows are packed for the replay, the steps
that count first, so that a gap is nothing but a shorter row; the results are spread again.
"""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from everystate.recording.observation import Observation, pick

Arrays = dict[str, npt.NDArray[np.generic]]
Skipped = npt.NDArray[np.bool_]


def packed(seen: Observation) -> Observation:
    """Return an observation whose rows hold the steps that count first, each with its length.

    Parameters
    ----------
    seen : Observation
        In the order of processing. Its `skipped` stays in this order: it says where each was.
    """
    if seen.skipped is None:
        return seen
    worked = _worked(seen)
    order = np.argsort(~worked, axis=0, kind="stable")
    return replace(
        seen,
        observed={name: pick(a, order) for name, a in seen.observed.items()},
        inputs=None if seen.inputs is None else pick(seen.inputs, order),
        previous=seen.previous and {n: pick(a, order) for n, a in seen.previous.items()},
        lengths=worked.sum(axis=0),
        skipped=~worked,
    )


def spread(
    kept: Arrays, initial: Mapping[str, npt.NDArray[np.generic]], seen: Observation
) -> Arrays:
    """Return what was replayed of packed rows at the steps it belongs to.

    Parameters
    ----------
    kept : dict
        Every step of each variable, (time, batch, units), packed.
    initial : mapping
        Each state before the first step, of the same units.
    seen : Observation
        In the order of processing, as it was before it was packed.

    Returns
    -------
    dict
        States carried over at skipped steps; whatever at the gates' (see `blanked`).
    """
    if seen.skipped is None:
        return kept
    last = np.cumsum(_worked(seen), axis=0) - 1  # which packed step each step shows
    found = {}
    for name, a in kept.items():
        found[name] = pick(a, np.maximum(last, 0))
        if name in initial:
            found[name] = np.where((last < 0)[..., None], initial[name], found[name])
    return found


def blanked(
    a: npt.NDArray[np.generic], name: str, seen: Observation, steps: range
) -> npt.NDArray[np.generic]:
    """Return a variable at some steps, in order of time, with no gate where a step was skipped."""
    if seen.skipped is not None and name in seen.known_gates:
        a[seen.skipped[np.asarray(steps, dtype=np.int64)]] = np.nan
    return a


def step_of(seen: Observation, step: int, row: int) -> int:
    """Return which step of a row, in order of processing, is its `step`-th in a packed `seen`."""
    if seen.skipped is None:
        return step
    return int(np.flatnonzero(~seen.skipped[:, row])[step])


def _worked(seen: Observation) -> Skipped:
    assert seen.skipped is not None
    valid = ~seen.skipped
    return (
        valid if seen.lengths is None else valid & (np.arange(seen.steps)[:, None] < seen.lengths)
    )
