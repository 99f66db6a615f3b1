"""`Span`: which rows and steps a reducer has seen, and the values at their two ends.

What was seen is a row of *groups*. Within a group the same rows go on in time; the next group
is of other rows. Two such spans are put one behind the other in one of two ways: with a *seam*,
where the first group of the second goes on with the rows of the last group of the first, or
without one. Both ways are associative, and so is everything that is built on them.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Self

import numpy as np
import numpy.typing as npt

from everystate.errors import JoinError

Values = npt.NDArray[np.float64]
State = dict[str, npt.NDArray[np.generic]]


@dataclass(frozen=True)
class Span:
    """Which rows and steps were seen.

    Parameters
    ----------
    units : int
        Units of every row.
    groups : int
        Groups of rows, 1 or more.
    rows : int
        Rows of all groups together.
    first_rows, last_rows : int
        Rows of the first and of the last group.
    start : int
        First step of the first group.
    stop : int
        Number of the step that would come next in the last group.
    every : int
        How far apart the steps are.
    """

    units: int
    groups: int
    rows: int
    first_rows: int
    last_rows: int
    start: int
    stop: int
    every: int = 1

    @classmethod
    def of(cls, block: Values, first_step: int, every: int) -> Self:
        """Return the span of one block, (time, batch, unit)."""
        steps, rows, units = block.shape
        stop = first_step + steps * every
        return cls(units, 1, rows, rows, rows, first_step, stop, every)

    @classmethod
    def from_array(cls, array: npt.NDArray[np.generic]) -> Self:
        """Return what `to_array` was called on."""
        return cls(*(int(number) for number in array))

    def to_array(self) -> npt.NDArray[np.int64]:
        """Return the span as numbers that a file can hold."""
        return np.array(list(asdict(self).values()), dtype=np.int64)

    @property
    def rows_before_last(self) -> int:
        """Rows of all groups but the last."""
        return self.rows - self.last_rows

    def then(self, other: "Span", *, seam: bool) -> "Span":
        """Return the span of both, `other` behind this one.

        Raises
        ------
        JoinError
            If the units differ, or with a seam, the rows differ or steps are missing.
        """
        if other.units != self.units:
            raise JoinError(f"got {other.units} units, but {self.units} so far: another layer?")
        if other.every != self.every:
            raise JoinError(
                f"got each {other.every}-th step, but each {self.every}-th so far. Figures of "
                "steps that are differently far apart are not those of one series."
            )
        if seam and other.start != self.stop:
            raise JoinError(
                f"steps up to {self.stop} were seen, the next begin at {other.start}: nothing may "
                "be missing or come twice along time. Other rows are merged along='batch'."
            )
        if seam and other.first_rows != self.last_rows:
            raise JoinError(
                f"got {other.first_rows} rows that go on from {self.last_rows}: a stream keeps its "
                "rows. Other rows are merged along='batch'."
            )
        shared = self.last_rows if seam else 0
        return Span(
            units=self.units,
            groups=self.groups + other.groups - seam,
            rows=self.rows + other.rows - shared,
            first_rows=self.first_rows,
            last_rows=other.last_rows,
            start=self.start,
            stop=other.stop,
            every=self.every,
        )


@dataclass(frozen=True, eq=False)
class Part:
    """What a reducer knows of a span.

    Parameters
    ----------
    span : Span
        Which rows and steps.
    state : mapping of str to ndarray
        What is known of them.
    """

    span: Span
    state: Mapping[str, npt.NDArray[np.generic]]

    def __getitem__(self, name: str) -> Values:
        return self.state[name]  # type: ignore[return-value]


def ends(block: Values, width: int) -> State:
    """Return the first and the last `width` steps of a block, to be carried."""
    return {"head": block[:width].copy(), "tail": block[max(len(block) - width, 0) :].copy()}


def joined_ends(a: Part, b: Part, seam: bool, width: int) -> State:
    """Return the ends of two parts, one behind the other."""
    head, tail = a["head"], b["tail"]
    if seam and a.span.groups == 1 and len(head) < width:
        head = np.concatenate([head, b["head"]])[:width]
    if seam and b.span.groups == 1 and len(tail) < width:
        tail = np.concatenate([a["tail"], tail])
        tail = tail[max(len(tail) - width, 0) :]
    return {"head": head, "tail": tail}
