"""`Thresholds`: from where on a diagnosis speaks."""

from dataclasses import dataclass, fields
from typing import Final

from everystate.errors import SelectionError

SHARES: Final = (
    "edge",
    "saturated",
    "stuck",
    "units",
    "alike",
    "spare",
    "flat",
    "outside",
    "trend",
)
"""Thresholds between 0 and 1; the others are 0 or more."""


@dataclass(frozen=True)
class Thresholds:
    """From where on `everystate.diagnose` speaks; those of a share are between 0 and 1.

    Parameters
    ----------
    edge : float, default 0.05
        What counts as the end of a gate's range, as a distance from it.
    saturated : float, default 0.3
        Share of a gate's values at a harmful end (`i` and `o` shut, a GRU that writes nothing);
        of a candidate, 0.2 more, at both ends together.
    stuck : float, default 0.99
        Share of a unit's steps at one end for its gate to be stuck there.
    units : float, default 0.1
        Share of a layer's units with a fault for it to be a warning.
    still : float, default 0.001
        Least travel of a state, or a gate, that moves at all, in its own units.
    alike : float, default 0.95
        Correlation of the states of two units that say the same, without its sign.
    spare : float, default 0.3
        Share of units that others stand for, for it to be said; a warning beside a baseline only.
    flat : float, default 0.5
        Share of states in the flat part of the tanh that squashes them.
    memory : float, default 10
        Half-life of a unit over the length of the training windows.
    trend : float, default 0.7
        Kendall's tau of the state's size over eight stretches: by chance in less than 1 of 100.
    growth : float, default 1.5
        Size of the state in the last of the eight stretches over that in the first.
    excess : float, default 2
        Size of the state over the largest one within the training windows.
    shift : float, default 1
        Change of a unit's level, in standard deviations.
    outside : float, default 0.05
        Share of values beyond the range of the baseline and a tenth of it.
    above_baseline : float, default 0.1
        With a baseline, how much a share may be larger than there; it takes the place of the
        fixed thresholds of shares.
    times_baseline : float, default 2
        With a baseline, how many times as large as there a growth or a half-life may be.

    Raises
    ------
    SelectionError
        If one is negative or NaN, or one of a share above 1.

    Examples
    --------
    >>> Thresholds(saturated=0.5).saturated
    0.5
    """

    edge: float = 0.05
    saturated: float = 0.3
    stuck: float = 0.99
    units: float = 0.1
    still: float = 1e-3
    alike: float = 0.95
    spare: float = 0.3
    flat: float = 0.5
    memory: float = 10.0
    trend: float = 0.7
    growth: float = 1.5
    excess: float = 2.0
    shift: float = 1.0
    outside: float = 0.05
    above_baseline: float = 0.1
    times_baseline: float = 2.0

    def __post_init__(self) -> None:
        """Check the values."""
        for name in (f.name for f in fields(self)):
            value = getattr(self, name)
            most = 1.0 if name in SHARES else float("inf")
            if not 0 <= value <= most:
                end = "between 0 and 1" if name in SHARES else "0 or more"
                raise SelectionError(f"threshold {name}={value!r}, expected {end}.")
