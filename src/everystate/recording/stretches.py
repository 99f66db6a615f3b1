"""Stretches: a cell evolved over an observation, block after block of steps.

Time is cut into blocks that fit the processor's cache, which also bounds the working memory,
whatever the length of the sequence.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Final

import numpy as np
import numpy.typing as npt
from array_api_compat import array_namespace

from everystate.cells import Cell, Weights
from everystate.cells.activations import Array
from everystate.recording.observation import Observation, turn

BLOCK_BYTES: Final = 1 << 20
"""Gates of one block: small enough for the cache between the products and the scan."""
BLOCK_ROWS: Final = 512
"""Rows of one block at least: fewer make the matrix product itself slower."""


def in_processing_order(seen: Observation) -> Observation:
    """Return an observation with its sequences in the order in which the layer reads them.

    Its `reverse` still says how that was, so that a step can be named by its place in time.
    """
    if not seen.reverse:
        return seen
    return replace(
        seen,
        observed={name: turn(a, seen.lengths) for name, a in seen.observed.items()},
        inputs=None if seen.inputs is None else turn(seen.inputs, seen.lengths),
        previous=seen.previous and {n: turn(a, seen.lengths) for n, a in seen.previous.items()},
        skipped=None if seen.skipped is None else turn(seen.skipped, seen.lengths),
    )


def stretches(
    seen: Observation, steps: range, units: npt.NDArray[np.int64] | None = None
) -> Iterator[tuple[slice, Mapping[str, Array]]]:
    """Evolve the cell block by block.

    Parameters
    ----------
    seen : Observation
        In the order of processing.
    steps : range
        Which steps are wanted. Those between are computed only if the cell has to scan.
    units : ndarray of int, optional
        Which units are wanted, of a cell whose units can be evolved apart. None: all.

    Yields
    ------
    slice
        Which steps the block holds.
    dict
        Every variable computed in it, each of shape (block, batch, units).
    """
    cell, w = own_equations(seen, units)
    memory = first_memory(seen, units)
    for block in blocks(seen, steps):
        values = evolved(seen, w, block, units, memory)
        memory = {name: values[name][-1] for name in cell.memory}
        yield block, values


def own_equations(seen: Observation, units: npt.NDArray[np.int64] | None) -> tuple[Cell, Weights]:
    """Return the cell, and its weights of some units; of all if `units` is None."""
    cell, w = seen.equations
    return cell, w if units is None else cell.take_units(w, units)


def first_memory(seen: Observation, units: npt.NDArray[np.int64] | None) -> dict[str, Array]:
    """Return what the cell remembers before the first step, of some units."""
    return {name: of_units(seen.initial[name], units) for name in seen.equations[0].memory}


def scans(seen: Observation) -> bool:
    """Whether a step needs the one before it: the cell has a memory that nobody shows."""
    return bool(seen.equations[0].memory) and seen.previous is None


def blocks(seen: Observation, steps: range, sharers: int = 1) -> list[slice]:
    """Return the blocks of steps that have to be evolved for the steps that are wanted.

    If one is not enough, as many as can be shared out evenly.
    """
    if not steps:
        return []
    first, stride = (0, 1) if scans(seen) else (steps.start, steps.step)
    end = steps[-1] + 1
    needed = len(range(first, end, stride))
    count = math.ceil(needed / _block_steps(seen))
    if count > 1:
        count = math.ceil(count / sharers) * sharers
    size = math.ceil(needed / count) * stride
    return [slice(start, min(start + size, end), stride) for start in range(first, end, size)]


def evolved(
    seen: Observation,
    w: Weights,
    block: slice,
    units: npt.NDArray[np.int64] | None,
    memory: Mapping[str, Array],
) -> dict[str, Array]:
    """Return every variable of a block, given the memory before its first step."""
    if seen.previous is not None:
        return _stepped(seen, w, block, units)
    cell = seen.equations[0]
    h = before(seen.observed["h"], seen.initial["h"], block)
    known = {**memory, "h": of_units(h, units)}
    if seen.shows_gates:
        return cell.from_gates(w, shown_gates(seen, block, units), known)
    assert seen.inputs is not None
    a_x, a_h = cell.from_input(w, seen.inputs[block]), cell.from_state(w, h)
    return cell.evolve(w, a_x, a_h, known)


def shown_gates(
    seen: Observation, block: slice, units: npt.NDArray[np.int64] | None
) -> dict[str, Array]:
    """Return the gates of a block that the framework showed."""
    gates = seen.equations[0].gates
    return {name: of_units(seen.observed[name][block], units) for name in gates}


def before(h: Array, initial: Array, block: slice) -> Array:
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
    cell, batch = seen.equations[0], seen.batch
    assert seen.inputs is not None
    assert seen.previous is not None
    previous = {name: a[block] for name, a in seen.previous.items()}
    a_x = cell.from_input(w, seen.inputs[block])
    n = a_x.shape[0]

    def flat(a: Array) -> Array:
        return a.reshape((n * batch, a.shape[-1]))

    h = flat(previous["h"])[None]
    known = {name: of_units(flat(previous[name]), units) for name in cell.memory}
    known["h"] = of_units(h, units)
    values = cell.evolve(w, flat(a_x)[None], cell.from_state(w, h), known)
    return {name: a.reshape((n, batch, a.shape[-1])) for name, a in values.items()}


def _block_steps(seen: Observation) -> int:
    cell, w = seen.equations
    columns = cell.units(w) if seen.shows_gates else int(w.W.shape[0])
    itemsize = 8 if seen.precision == "float64" else 4
    by_cache = BLOCK_BYTES // (columns * seen.batch * itemsize)
    return max(1, by_cache, BLOCK_ROWS // seen.batch)


def of_units(a: Array, units: npt.NDArray[np.int64] | None) -> Array:
    """Return some units of an array; all if `units` is None."""
    return a if units is None else a[..., units]
