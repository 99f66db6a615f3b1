"""`Source`: what a kind of data set offers, so that its sequences can be shared out.

* A source is small and can be pickled: it goes to other processes, and reads there.
* `part` gives some of its sequences, as a source again: what a worker is sent.
* A sequence that cannot be read is a message among the others' values, never an exception.
"""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

Values = npt.NDArray[Any]


@dataclass(frozen=True)
class Size:
    """Size of a sequence: steps, and features of each."""

    steps: int
    features: int


class Source(Protocol):
    """A data set of sequences."""

    @property
    def count(self) -> int:
        """Number of sequences."""

    @property
    def cheap(self) -> bool:
        """Whether `sizes` is quick, as it reads no sequence."""

    def names(self) -> list[str] | None:
        """Return what the sequences are called; None for their numbers."""

    def part(self, start: int, stop: int) -> "Source":
        """Return some of the sequences."""

    def sizes(self) -> list[Size | str]:
        """Return the size of each sequence, or why it cannot be read."""

    def read(self) -> list[Values | str]:
        """Return each sequence, (steps, features), or why it cannot be read."""


def digest(parts: Iterable[object]) -> str:
    """Return the SHA-256 of some texts or numbers, in their order."""
    found = hashlib.sha256()
    for part in parts:
        found.update(f"{part}\n".encode())
    return found.hexdigest()


def as_sequence(name: str, values: Any) -> Values | str:
    """Return values as (steps, features), or what is wrong with them."""
    array = np.asarray(values)
    if array.ndim == 1 and array.dtype.kind in "fiub":
        array = array[:, None]
    if array.ndim != 2 or array.dtype.kind not in "fiub":
        return (
            f"{name}: got {array.dtype} of shape {array.shape}, expected numbers of shape "
            "(steps, features)"
        )
    return array if array.size else f"{name}: has no steps or no features"


def size_of(sequence: Values | str) -> Size | str:
    """Return the size of a sequence, or the message in its place."""
    return sequence if isinstance(sequence, str) else Size(*sequence.shape)
