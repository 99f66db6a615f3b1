"""By what a trace of many sequences is recognised: what the model answers to one of them."""

import zlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import xarray as xr

from everystate.scale.cluster import Call, spread
from everystate.scale.inputs.source import Source
from everystate.scale.job import Job
from everystate.scale.worker import sample
from everystate.streaming.answer import Answer, answer_in, difference
from everystate.streaming.cutting import STEPS


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
    """

    row: int
    values: int
    layers: Answer

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
    (sequence,) = source.read()
    first = np.ascontiguousarray(sequence[:STEPS])
    return trace, Recognised(row, zlib.crc32(first.tobytes()), answer_in(trace))


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
    then = Recognised(**answer)
    part, found = source.part(then.row, then.row + 1), list[Recognised | None]()
    names = source.names()
    name = f"sequence {then.row}" if names is None else names[then.row]
    spread(client, [Call(name, f"again-{run}", recognised, (job, part, then.row))], found.append)
    return None if found[0] is None else then.told_from(found[0], name)
