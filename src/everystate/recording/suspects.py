"""Why a replay does not match: the usual suspects, tried one by one.

Each suspect is another reading of the same weights. The first under which the replay does
match is the probable cause, and the message says it.
"""

from collections.abc import Iterator
from dataclasses import replace
from itertools import permutations
from typing import Final

import numpy as np
from array_api_compat import array_namespace

from everystate.cells import GRU, LSTM, Cell, SimpleRNN, Weights
from everystate.cells.activations import ACTIVATIONS, Array
from everystate.recording.observation import Observation

STEPS: Final = 64
"""Steps that a suspect is tried on: a wrong reading shows at once."""

Suspect = tuple[str, Cell, Weights]


def probable_cause(seen: Observation, tolerance: float) -> str:
    """Return a sentence on why the replay of an observation mismatches.

    Parameters
    ----------
    seen : Observation
        In the order of processing, with cell and weights.
    tolerance : float
        Scaled error up to which a suspect is taken to match.

    Returns
    -------
    str
        The suspect that matches, else the framework's hints, else that none was found.
    """
    for reading, cell, weights in _suspects(*seen.equations):
        if _error(seen, cell, weights) <= tolerance:
            return f"Probable cause: it does match with {reading}."
    if seen.hints:
        return f"Probable cause: {'; '.join(seen.hints)}."
    return (
        "None of the usual suspects (gate order, hard sigmoid, bias, forget bias, reset "
        "before/after, update convention) makes it match; was the layer's forward changed?"
    )


def _suspects(cell: Cell, w: Weights) -> Iterator[Suspect]:
    yield from _other_variants(cell, w)
    if w.b is not None:
        yield "the input bias left out", cell, replace(w, b=None)
    if w.b_R is not None:
        yield "the recurrent bias left out", cell, replace(w, b_R=None)
    if w.peephole is not None:
        yield "no peepholes", cell, replace(w, peephole=None)
    for order in list(permutations(range(cell.blocks)))[1:]:
        names = " ".join(cell.gates[k] for k in order)
        yield f"the gates' rows taken as {names}", cell, _permuted(cell, w, order)


def _other_variants(cell: Cell, w: Weights) -> Iterator[Suspect]:
    for name in ACTIVATIONS:
        if isinstance(cell, LSTM | GRU):
            yield f"recurrent_activation={name!r}", replace(cell, recurrent_activation=name), w
        if isinstance(cell, LSTM | GRU | SimpleRNN):
            yield f"activation={name!r}", replace(cell, activation=name), w
    if isinstance(cell, LSTM):
        for bias in (0.0, 1.0, -1.0):
            yield f"forget_bias={bias}", replace(cell, forget_bias=bias), w
        yield "no cell clip", replace(cell, cell_clip=None), w
        yield "cell_clip=3.0", replace(cell, cell_clip=3.0), w
    if isinstance(cell, GRU):
        reset = "before" if cell.reset == "after" else "after"
        yield f"reset={reset!r}", replace(cell, reset=reset), w
        update = "writes" if cell.update == "keeps" else "keeps"
        yield f"update={update!r}", replace(cell, update=update), w


def _permuted(cell: Cell, w: Weights, order: tuple[int, ...]) -> Weights:
    def rows(a: Array | None) -> Array | None:
        if a is None:
            return None
        blocks = a.reshape((cell.blocks, -1, *a.shape[1:]))
        return array_namespace(a).concat([blocks[k] for k in order], axis=0)

    return replace(w, W=rows(w.W), R=rows(w.R), b=rows(w.b), b_R=rows(w.b_R))


def _error(seen: Observation, cell: Cell, w: Weights) -> float:
    """Return the largest scaled error of h over the first steps, under another reading."""
    h, x = seen.observed["h"][:STEPS], seen.inputs
    assert x is not None
    xp = array_namespace(h)
    if seen.previous is not None:
        before = {name: a[:1] if name == "h" else a[0] for name, a in seen.previous.items()}
        h = h[:1]
    else:
        h0 = xp.astype(seen.initial["h"], h.dtype)
        before = {**seen.initial, "h": xp.concat([h0[None], h[:-1]], axis=0)}
    a_x, a_h = cell.from_input(w, x[: h.shape[0]]), cell.from_state(w, before["h"])
    with np.errstate(all="ignore"):
        ours = cell.evolve(w, a_x, a_h, before)["h"]
        error = xp.abs(ours - h) / (1.0 + xp.abs(h))
    if seen.lengths is not None:
        valid = (np.arange(h.shape[0])[:, None] < seen.lengths)[:, :, None]
        error = xp.where(xp.asarray(valid, device=error.device), error, xp.zeros_like(error))
    worst = float(xp.max(error))
    return worst if np.isfinite(worst) else float("inf")
