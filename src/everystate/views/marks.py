"""Stretches of time with a name, which a report shades."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from everystate.errors import InputError
from everystate.views.time_axis import TimeAxis

Stretch = tuple[Any, Any]
Marks = Mapping[str, Stretch | Sequence[Stretch]]
"""A name, and one stretch (start, stop) or several, in the labels of the time axis."""

STYLES: Final = (
    ("#7a1f8f", "right_diagonal_line", "M0 6L6 0"),
    ("#00704f", "left_diagonal_line", "M0 0L6 6"),
    ("#5c4b00", "cross", "M3 0V6M0 3H6"),
    ("#b0005a", "vertical_line", "M3 0V6"),
    ("#1a1a1a", "horizontal_line", "M0 3H6"),
)
"""Colour of each name in turn, its hatching in a picture, and the same as a path of 6 by 6 for
the key: no colour that the data has, and told apart by the hatching without colour vision."""


@dataclass(frozen=True)
class Mark:
    """One name with its stretches.

    Parameters
    ----------
    name : str
        What it is called.
    stretches : tuple of (start, stop)
        In the labels of the time axis.
    color, hatch, path : str
        How it is drawn, as in `STYLES`.
    """

    name: str
    stretches: tuple[Stretch, ...]
    color: str
    hatch: str
    path: str

    def places(self, axis: TimeAxis) -> list[tuple[float, float]]:
        """Return the stretches as places on an axis.

        Raises
        ------
        InputError
            If a label is not on the axis, or a stretch ends before it starts.
        """
        found = [(axis.place_of(start), axis.place_of(stop)) for start, stop in self.stretches]
        for (start, stop), (left, right) in zip(self.stretches, found, strict=True):
            if right < left:
                raise InputError(
                    f"mark {self.name!r}: {stop!r} comes before {start!r}; expected (start, stop). "
                    "Swap them."
                )
        return found


def marks_of(given: Marks | None) -> list[Mark]:
    """Return the marks that a user gave, each with a style.

    Raises
    ------
    InputError
        If a mark is neither one stretch nor several.
    """
    found = []
    for k, (name, stretches) in enumerate((given or {}).items()):
        several: Any = [stretches] if _is_stretch(stretches) else stretches
        if not isinstance(several, Sequence) or not all(map(_is_stretch, several)):
            raise InputError(
                f"mark {name!r} is {stretches!r}; expected (start, stop), or several of them."
            )
        pairs = tuple((start, stop) for start, stop in several)
        found.append(Mark(str(name), pairs, *STYLES[k % len(STYLES)]))
    return found


def check_marks(marks: Sequence[Mark], axes: Sequence[TimeAxis]) -> None:
    """Refuse marks that no picture would show.

    Raises
    ------
    InputError
        If a stretch lies beyond all the axes, or its labels are not on one of them.
    """
    for mark in marks:
        seen = [False] * len(mark.stretches)
        for axis in axes:
            left, right = axis.ends
            places = mark.places(axis)
            seen = [
                old or (a <= right and b >= left) for old, (a, b) in zip(seen, places, strict=True)
            ]
        if not all(seen):
            start, stop = mark.stretches[seen.index(False)]
            first, last = axes[0].text(0), axes[0].text(axes[0].size - 1)
            raise InputError(
                f"mark {mark.name!r}: {start!r} to {stop!r} is beyond the time axis, which goes "
                f"from {first} to {last}. Give labels of steps on it."
            )


def _is_stretch(value: object) -> bool:
    if not isinstance(value, tuple | list) or len(value) != 2:
        return False
    return not any(isinstance(end, Sequence) and not isinstance(end, str) for end in value)
