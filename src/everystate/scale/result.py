"""`Recorded`: what a recording of many sequences did."""

from collections.abc import Callable
from dataclasses import dataclass, field

Progress = Callable[[int, int], None]
"""Called with the sequences done and the sequences in all."""


@dataclass(frozen=True)
class Recorded:
    """What `record_many` did.

    Parameters
    ----------
    store : str
        Where the trace is; `everystate.open_trace` opens it.
    sequences : int
        Sequences in all.
    shards : int
        Shards that this call recorded; the others were done before.
    failed : dict of str to str
        Sequences that could not be recorded, by name, and why. Their rows have no steps.
    """

    store: str
    sequences: int
    shards: int
    failed: dict[str, str] = field(default_factory=dict)
