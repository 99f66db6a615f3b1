"""`Source`: what a kind of data set offers, so that its sequences can be shared out.

* A source is small and can be pickled: it goes to other processes, and reads there.
* `part` gives some of its sequences, as a source again: what a worker is sent.
* A sequence that cannot be read is a message among the others' values, never an exception.
"""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

Values = npt.NDArray[Any]


@dataclass(frozen=True, eq=False)
class Sizes:
    """Sizes of sequences: arrays, as there may be ten million.

    Parameters
    ----------
    steps, features : ndarray of int, shape (sequence,)
        0 where a sequence cannot be read.
    faults : dict of int to str
        Why not, by its place.
    """

    steps: npt.NDArray[np.int64]
    features: npt.NDArray[np.int64]
    faults: dict[int, str] = field(default_factory=dict)


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

    def sizes(self) -> Sizes:
        """Return the size of each sequence."""

    def read(self) -> list[Values | str]:
        """Return each sequence, (steps, features), or why it cannot be read."""


def digest(source: Source) -> str:
    """Return the SHA-256 of what tells a data set from others: names, and sizes known at once."""
    found = hashlib.sha256(f"{source.count}\n".encode())
    for name in source.names() or []:
        found.update(f"{name}\n".encode())
    if source.cheap:
        found.update(source.sizes().steps.astype("<i8").tobytes())
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


def sizes_of(sequences: Iterable[Values | str]) -> Sizes:
    """Return the sizes of sequences, taken one after the other."""
    found = [(0, 0, a) if isinstance(a, str) else (*a.shape, None) for a in sequences]
    return Sizes(
        np.array([steps for steps, _, _ in found], dtype=np.int64),
        np.array([features for _, features, _ in found], dtype=np.int64),
        {k: fault for k, (_, _, fault) in enumerate(found) if fault is not None},
    )
