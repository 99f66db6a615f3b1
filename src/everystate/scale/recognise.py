"""By what a trace of many sequences is recognised: the answer to one, the values of some."""

import zlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Final

import numpy as np
import xarray as xr

from everystate.scale.cluster import Call, spread
from everystate.scale.inputs.source import Source
from everystate.scale.job import Job
from everystate.scale.worker import sample
from everystate.streaming.answer import Answer, answer_in, difference
from everystate.streaming.cutting import STEPS

OTHERS: Final = 8
"""Sequences of which the first steps are compared."""


@dataclass
class Recognised:
    """What is kept of one sequence.

    Parameters
    ----------
    row : int
        Which it is.
    values : int
        CRC-32 of its first steps.
    layers : mapping
        What the model answers to them (see `everystate.streaming.answer`).
    others : dict of str to int
        CRC-32 of the first steps of some other sequences, by their number.
    """

    row: int
    values: int
    layers: Answer
    others: dict[str, int] = field(default_factory=dict)

    @property
    def fields(self) -> dict[str, Any]:
        """All of it, as JSON can hold it."""
        return asdict(self)

    def told_from(self, now: "Recognised", name: str) -> str | None:
        """Say what is other than when the recording began; None if nothing is."""
        if self.values != now.values:
            return f"was begun with other values of {name}."
        told = difference(self.layers, now.layers)
        return None if told is None else f"was begun with another model or other weights: {told}"


def sampled(job: Job, source: Source, row: int) -> tuple[xr.DataTree, Recognised]:
    """Record a sequence (see `sample`); return what it is recognised by, too."""
    trace = sample(job, source)
    return trace, Recognised(row, beginnings(source, row)[str(row)], answer_in(trace))


def beginnings(source: Source, first: int) -> dict[str, int]:
    """Return the CRC-32 of the first steps of sequences, by their number, counted from `first`."""
    read = {str(first + k): sequence for k, sequence in enumerate(source.read())}
    return {
        row: zlib.crc32(np.ascontiguousarray(sequence[:STEPS]).tobytes())
        for row, sequence in read.items()
        if not isinstance(sequence, str)
    }


def some(client: Any, source: Source, run: str) -> dict[str, int]:
    """Have workers read some sequences, spread over all; return their `beginnings`."""
    found: dict[str, int] = {}
    rows = np.unique(np.linspace(0, source.count - 1, OTHERS).astype(int)).tolist()
    calls = (
        Call(f"sequence {row}", f"begins-{run}-{row}", beginnings, (source.part(row, row + 1), row))
        for row in rows
    )
    spread(client, calls, found.update)
    return found


def recognised(job: Job, source: Source, row: int) -> Recognised | None:
    """Return what a sequence is recognised by; None if it cannot be read any more."""
    (sequence,) = source.read()
    return None if isinstance(sequence, str) else sampled(job, source, row)[1]


def told_apart(
    client: Any, answer: Mapping[str, Any], job: Any, source: Source, run: str
) -> str | None:
    """Have a worker record a sequence again; say what is other than when the recording began.

    Parameters
    ----------
    client : distributed.Client
        The cluster.
    answer : mapping
        By what the recording is recognised.
    job : Future of Job
        The job at hand.
    source : Source
        All sequences.
    run : str
        Tells this call from others on the same cluster.
    """
    then, names = Recognised(**answer), source.names()
    now = some(client, source, run) if then.others else {}
    for row, values in then.others.items():
        if now.get(row, values) != values:
            return f"was begun with other values of {_called(names, int(row))}."
    name, part = _called(names, then.row), source.part(then.row, then.row + 1)
    found: list[Recognised | None] = []
    spread(client, [Call(name, f"again-{run}", recognised, (job, part, then.row))], found.append)
    return None if found[0] is None else then.told_from(found[0], name)


def _called(names: list[str] | None, row: int) -> str:
    return f"sequence {row}" if names is None else names[row]
