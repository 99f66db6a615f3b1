"""What the demo finds: plain numbers, for the screen, the report and programs."""

from dataclasses import asdict, dataclass
from typing import Any, Final

import xarray as xr

from everystate.analysis.finding import Diagnosis
from everystate.demo.alarms import Alarms, Range
from everystate.demo.series import Series

MARKED: Final = {
    "c of the one pass": "c out of its normal range",
    "h of the one pass": "h out of its normal range",
    "reconstruction error": "reconstruction error out of its normal range",
}
"""Scores whose alarms are marked in the report, and what the marks are called."""


@dataclass(frozen=True)
class Stretch:
    """What happens to the memory in a stretch of the one pass.

    Parameters
    ----------
    steps : tuple of int
        Half-open range of steps.
    largest_c : float
        Largest ``|c|`` of any unit.
    units_outside : int
        Units whose ``c`` goes beyond all it reaches in windows of normal data.
    carried_error : float
        Mean squared error of the last window, written down from the state of the one pass.
    restarted_error : float
        The same with an encoder that starts anew for each window, as it was trained.
    """

    steps: Range
    largest_c: float
    units_outside: int
    carried_error: float
    restarted_error: float


@dataclass(frozen=True)
class Counter:
    """The unit whose ``c`` is largest at the end, and what its forget gate does.

    Parameters
    ----------
    unit : int
        Which unit.
    last_forgot : int
        Last step with a forget gate below 0.9.
    least_forget : float
        Lowest value of the forget gate from step 1,200 on.
    growth : float
        What ``c`` gains a step, on average, from step 1,200 on.
    """

    unit: int
    last_forgot: int
    least_forget: float
    growth: float


@dataclass(frozen=True, eq=False)
class Findings:
    """What the demo found.

    Parameters
    ----------
    series : Series
        The data.
    window : int
        Steps of the windows the network was trained on.
    trace : xarray.DataTree
        Every state, gate and input of the encoder in one pass over the series.
    diagnosis : Diagnosis
        What `everystate.diagnose` says of it, told the length of the windows and nothing else.
    stretches : list of Stretch
        The memory along the pass.
    counter : Counter
        What drives it.
    methods : dict of str to Alarms
        The alarms of each score.
    """

    series: Series
    window: int
    trace: xr.DataTree
    diagnosis: Diagnosis
    stretches: list[Stretch]
    counter: Counter
    methods: dict[str, Alarms]

    @property
    def event(self) -> Range:
        """The labelled steps, and the window after them, whose memory still holds them."""
        assert self.series.labelled is not None
        start, stop = self.series.labelled
        return start, min(stop + self.window, self.series.values.size)

    def marks(self) -> dict[str, list[Range]]:
        """Return the places to mark in the report, from the first step to the last included."""
        assert self.series.labelled is not None
        stretches = {"labelled anomaly": [self.series.labelled]}
        for name, label in MARKED.items():
            if places := self.methods[name].ranges(self.window):
                stretches[label] = places
        return {
            name: [(start, stop - 1) for start, stop in ranges]
            for name, ranges in stretches.items()
        }

    def document(self) -> dict[str, Any]:
        """Return everything but the arrays, for ``--json``."""
        return {
            "diagnosis": self.diagnosis.to_dict(),
            "labelled": self.series.labelled,
            "event": self.event,
            "stretches": [asdict(stretch) for stretch in self.stretches],
            "counter": asdict(self.counter),
            "scores": {
                name: {
                    "threshold": alarms.threshold,
                    "highest": float(alarms.score[alarms.peak]),
                    "highest_at": alarms.peak,
                    "alarm_at_the_label": alarms.within(self.event),
                    "share_elsewhere": alarms.share(outside=self.event),
                    "in_alarm": alarms.ranges(self.window),
                }
                for name, alarms in self.methods.items()
            },
        }
