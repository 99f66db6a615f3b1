"""`TimeAxis`: where a step lies on a time axis, whatever its labels are."""

import math
from dataclasses import dataclass
from datetime import date
from numbers import Real
from typing import Any, Final, Literal, TypeVar

import numpy as np
import numpy.typing as npt
import pandas as pd
import xarray as xr

from everystate.errors import InputError

Floats = npt.NDArray[np.float64]
T = TypeVar("T", float, npt.NDArray[np.floating])
Kind = Literal["number", "datetime", "label"]

EVEN: Final = 1e-3
"""How much two steps may differ in length, relative to the first, to be drawn as even."""


@dataclass(frozen=True, eq=False)
class TimeAxis:
    """The time axis of one layer.

    An image needs even steps. So evenly spaced numbers and datetimes are drawn where they are
    (datetimes in milliseconds since 1970, which is what bokeh counts in); all other labels,
    strings and uneven times, are drawn one step apart and written at the ticks.

    Parameters
    ----------
    kind : {"number", "datetime", "label"}
        How places on the axis are written.
    start, step : float
        Place of the first step on the axis, and distance to the next.
    labels : ndarray, shape (steps,)
        The label of each step.
    title : str
        What the axis is called.
    """

    kind: Kind
    start: float
    step: float
    labels: npt.NDArray[np.generic]
    title: str

    @classmethod
    def of(cls, time: xr.DataArray) -> "TimeAxis":
        """Return the axis of a ``time`` coordinate."""
        labels = np.asarray(time.values)
        whole = np.issubdtype(labels.dtype, np.integer)
        title = str(time.attrs.get("long_name", "time step" if whole else "time"))
        if "units" in time.attrs:
            title = f"{title} ({time.attrs['units']})"
        places = _numbers(labels)
        if places is None or not _are_even(places):
            return cls("label", 0.0, 1.0, labels, title)
        kind: Kind = "datetime" if np.issubdtype(labels.dtype, np.datetime64) else "number"
        step = float(places[1] - places[0]) if places.size > 1 else 1.0
        return cls(kind, float(places[0]), step, labels, title)

    @property
    def size(self) -> int:
        """Number of steps."""
        return int(self.labels.size)

    @property
    def ends(self) -> tuple[float, float]:
        """Both ends of the axis, half a step beyond the first and the last step."""
        return self.at(-0.5), self.at(self.size - 0.5)

    def at(self, position: T) -> T:
        """Return the place on the axis of a position, or several, counted in recorded steps."""
        return self.start + self.step * position

    def fits(self, other: "TimeAxis") -> bool:
        """Whether two axes show the same stretch of time, so that they can be linked."""
        if self.kind != other.kind:
            return False
        if self.kind == "label":
            return np.array_equal(self.labels, other.labels)
        slack = max(self.step, other.step)
        return all(abs(a - b) <= slack for a, b in zip(self.ends, other.ends, strict=True))

    def place_of(self, label: object) -> float:
        """Return the place on the axis of a label that a user gave.

        Raises
        ------
        InputError
            If the label is of another kind than the axis, or not among its strings.
        """
        try:
            number = _as_number(label, self.labels.dtype)
        except (TypeError, ValueError):
            number = math.nan
        if math.isfinite(number):
            return self._place_among(number) if self.kind == "label" else number
        found = np.flatnonzero(self.labels == label)
        if self.kind == "label" and found.size:
            return float(found[0])
        raise InputError(
            f"{label!r} is not on the time axis, which goes from {self.text(0)} to "
            f"{self.text(self.size - 1)} ({self.labels.dtype}). Give a label of the same kind."
        )

    def _place_among(self, number: float) -> float:
        """Return the place of a number among uneven labels; beyond them, by their usual spacing."""
        numbers, places = self._known_places()
        spacing = float(np.median(np.diff(numbers))) if numbers.size > 1 else 0.0
        beyond = min(number - numbers[0], 0.0) + max(number - numbers[-1], 0.0)
        onward = 1.0 if places[-1] >= places[0] else -1.0
        return float(np.interp(number, numbers, places) + onward * beyond / (spacing or 1.0))

    def _known_places(self) -> tuple[Floats, Floats]:
        """Return the numbers of uneven labels, in rising order, and their positions."""
        numbers = _numbers(self.labels)
        assert numbers is not None
        order = np.argsort(numbers)[: int(np.isfinite(numbers).sum())]  # NaN is sorted last
        return numbers[order], order.astype(np.float64)

    def text(self, position: int) -> str:
        """Return the label of a step as people write it."""
        label = self.labels[position]
        if np.issubdtype(self.labels.dtype, np.datetime64):
            return str(pd.Timestamp(label))
        if np.issubdtype(self.labels.dtype, np.floating):
            return f"{label:.10g}"
        return str(label)


def _numbers(labels: npt.NDArray[np.generic]) -> Floats | None:
    """Return numbers as they are and datetimes in milliseconds; None for all else."""
    if np.issubdtype(labels.dtype, np.datetime64):
        since = labels.astype("datetime64[ns]").astype(np.int64) / 1e6
        return np.where(np.isnat(labels), np.nan, since)
    if np.issubdtype(labels.dtype, np.integer) or np.issubdtype(labels.dtype, np.floating):
        return labels.astype(np.float64)
    return None


def _as_number(label: Any, dtype: np.dtype[np.generic]) -> float:
    """Return a label in the numbers of an axis whose labels have this dtype."""
    if np.issubdtype(dtype, np.datetime64) and isinstance(label, str | date | np.datetime64):
        return float(pd.to_datetime(label, utc=True).timestamp() * 1000)
    number = isinstance(label, Real | np.number) and not isinstance(label, bool)
    if np.issubdtype(dtype, np.number) and number:
        return float(label)
    return math.nan


def _are_even(places: Floats) -> bool:
    if not np.isfinite(places).all():
        return False
    steps = np.diff(places)
    even = np.allclose(steps, steps[:1], rtol=EVEN, atol=0.0)
    return even and bool((steps[:1] > 0).all())
