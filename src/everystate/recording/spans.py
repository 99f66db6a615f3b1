"""Spans: a cell evolved over NumPy arrays by several threads, into memory that is there.

A span is a few blocks of steps. What needs no step before it is computed block by block, each by
whichever thread is free; then the caller's thread scans, while no other asks for the interpreter;
then every block is compared with what the framework showed. Fresh memory costs a page fault for
each 4 KiB of it, which takes longer than what is computed there: results are put where they
stay, and all else where the last block's was.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from itertools import islice
from math import prod
from threading import local
from typing import Any, Final, TypeVar

import numpy as np
import numpy.typing as npt
from array_api_compat import is_numpy_array

from everystate.recording.observation import Observation
from everystate.recording.stretches import (
    before,
    blocks,
    evolved,
    first_memory,
    own_equations,
    scans,
    shown_gates,
)
from everystate.recording.verify import Verification
from everystate.recording.workers import Workers

BLOCKS: Final = 2
"""Blocks of one span for each thread: enough to keep it busy, and a bound of the memory."""

Tensor = npt.NDArray[np.generic]
Values = dict[str, Tensor]
Parts = list[tuple[slice, Values]]
"""Blocks of steps, each with its part of the memory."""
Result = TypeVar("Result")


def can_be_spanned(seen: Observation) -> bool:
    """Whether it is one of NumPy arrays, and the cell needs nothing of other blocks but a scan.

    The gates of an LSTM with peepholes need the scan themselves.
    """
    if not is_numpy_array(seen.observed["h"]):
        return False
    if not scans(seen) or seen.shows_gates:
        return True
    cell, w = seen.equations
    return cell.gates_at(w, np.empty((0, seen.batch, w.W.shape[0]))) is not None


class Scratch(local):
    """Memory of each thread, used again and again."""

    def __init__(self) -> None:
        self.held: dict[str, npt.NDArray[np.uint8]] = {}

    def __call__(self, name: str, shape: tuple[int, ...], dtype: "np.dtype[Any]") -> Tensor:
        """Return an array whose memory is that of the last of this name."""
        size = prod(shape) * dtype.itemsize
        if name not in self.held or self.held[name].size < size:
            self.held[name] = np.empty(size, np.uint8)
        return self.held[name][:size].view(dtype).reshape(shape)


@dataclass(eq=False)
class Spans:
    """A cell that is evolved over an observation and compared with it, span by span.

    Parameters
    ----------
    check : Verification
        Its observation, and which of its units are computed.
    steps : range
        Which steps are wanted.
    wanted : tuple of str
        Which variables.
    workers : Workers, optional
        Who computes. None: the caller's thread.
    """

    check: Verification
    steps: range
    wanted: tuple[str, ...]
    workers: Workers | None = None
    scratch: Scratch = field(default_factory=Scratch)

    def __post_init__(self) -> None:
        self.seen, self.units = self.check.seen, self.check.units
        self.cell, self.w = own_equations(self.seen, self.units)
        given = (self.w.W, self.seen.inputs, self.seen.observed["h"])
        self.dtype = np.result_type(*(a for a in given if a is not None))

    @cached_property
    def joint(self) -> Tensor:
        """The weights side by side: W, R and the sum of the biases."""
        w = self.w
        b = [a[:, None] for a in (w.b, w.b_R) if a is not None]
        return np.concatenate([w.W, w.R, sum(b, np.zeros((len(w.W), 1), self.dtype))], axis=1)

    def into(self, place: Callable[[slice], Values]) -> Iterator[tuple[slice, Values]]:
        """Evolve and compare one span after another.

        Parameters
        ----------
        place : callable
            Takes the steps of a span, those between the wanted ones included; returns memory for
            them, of the variables that can stay where they are computed.

        Yields
        ------
        slice
            Which steps the span holds.
        dict
            The variables computed in it, each of shape (span, batch, units), until the next one.
        """
        scanned, memory = scans(self.seen), first_memory(self.seen, self.units)
        threads = self.workers.count if self.workers else 1
        left = iter(blocks(self.seen, self.steps, threads))
        while some := list(islice(left, BLOCKS * threads)):
            span = slice(some[0].start, some[-1].stop, some[0].step)
            values = self._room(span, place(span))
            parts = [(block, _part(values, block, span)) for block in some]
            if scanned:
                self._scan(span, values, parts, memory)
                memory = {name: values[name][-1].copy() for name in memory}
            else:
                self._evolve(parts)
            yield span, values

    def _room(self, span: slice, placed: Values) -> Values:
        """Return memory for the variables of a span."""
        gates = () if self.seen.shows_gates else self.cell.gates
        names = (*self.cell.memory, *gates) if scans(self.seen) else self.wanted
        count = len(range(*span.indices(self.seen.steps)))
        shape = (count, self.seen.batch, self.cell.units(self.w))
        return {n: placed[n] if n in placed else self._scratch(f"all {n}", shape) for n in names}

    def _scratch(self, name: str, shape: tuple[int, ...]) -> Tensor:
        return self.scratch(name, shape, self.dtype)

    def _evolve(self, parts: Parts) -> None:
        """Evolve and compare blocks, none of which needs the one before."""

        def evolve(block: slice, room: Values) -> Values:
            found = evolved(self.seen, self.w, block, self.units, {})
            for name, a in room.items():
                np.copyto(a, found[name])
            return found

        self._compare(parts, evolve)

    def _scan(self, span: slice, values: Values, parts: Parts, memory: Values) -> None:
        """Evolve and compare the blocks of a span: the gates, the scan, the output."""

        def gates(steps: slice, room: Values) -> Values:
            shown = self.seen.shows_gates
            return shown_gates(self.seen, steps, self.units) if shown else room

        def expose(block: slice, room: Values) -> Values:
            states = {name: room[name] for name in self.cell.memory}
            out = self._scratch("h", room[self.cell.memory[0]].shape)
            return {"h": self.cell.expose(self.w, gates(block, room), states, out), **states}

        if not self.seen.shows_gates:
            self._each(self._gates, parts)
        self.cell.remember(self.w, gates(span, values), memory, values)
        self._compare(parts, expose)

    def _compare(self, parts: Parts, compute: Callable[[slice, Values], Values]) -> None:
        """Compare what is computed of each block; what is off, once more and one after another."""

        def errors_of(block: slice, room: Values) -> dict[str, float]:
            return self.check.errors_of(compute(block, room), block)

        for part, errors in zip(parts, self._each(errors_of, parts), strict=True):
            if not self.check.note(errors):
                self.check.compare(compute(*part), part[0])

    def _gates(self, block: slice, room: Values) -> None:
        """Compute the gates of a block: ``W x + R h + b`` as one product, [x h 1] by [W R b]."""
        h = before(self.seen.observed["h"], self.seen.initial["h"], block)
        assert self.seen.inputs is not None
        steps, batch, h_units = h.shape
        gates, size = self.joint.shape
        xh1 = self._scratch("xh1", (steps, batch, size))
        xh1[:, :, : -1 - h_units] = self.seen.inputs[block]
        xh1[:, :, -1 - h_units : -1] = h
        xh1[:, :, -1] = 1.0
        a = self._scratch("a", (steps, batch, gates))
        np.matmul(xh1.reshape(-1, size), self.joint.T, out=a.reshape(-1, gates))
        self.cell.gates_at(self.w, a, room)

    def _each(self, compute: Callable[[slice, Values], Result], parts: Parts) -> list[Result]:
        if self.workers is None:
            return [compute(*part) for part in parts]
        return self.workers.each(lambda part: compute(*part), parts)


def _part(values: Values, block: slice, span: slice) -> Values:
    """Return the variables of one block of a span."""
    start, stop = (
        (t - span.start) // block.step for t in (block.start, block.stop + block.step - 1)
    )
    return {name: a[start:stop] for name, a in values.items()}
