"""A summary as people read it: figures written out, and those that belong together as one."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import pandas as pd

from everystate import schema

Text = Callable[..., str]
Row = tuple[str, tuple[str, ...], Text, str]
"""Title, columns of the summary, way of writing them, and what they mean."""


@dataclass(frozen=True)
class Line:
    """One figure of every layer, for people.

    Parameters
    ----------
    title : str
        What the figure is.
    note : str
        What it means, in a sentence.
    cells : list of str
        The figure of each layer, empty where a layer has none.
    """

    title: str
    note: str
    cells: list[str]


def lines_of(frame: pd.DataFrame) -> list[Line]:
    """Return a summary for people, a line for each figure.

    Parameters
    ----------
    frame : pandas.DataFrame
        What `everystate.summary` returned, or some of its rows and columns.

    Returns
    -------
    list of Line
        Without those that no layer has.
    """
    lines = []
    for title, names, text, note in (*_FACTS, *_of_variables(frame), *_VERDICTS):
        if set(names) <= set(frame.columns):
            cells = [_cell(values, text) for values in frame[list(names)].values]
            lines.append(Line(title, note, cells))
    return [line for line in lines if any(line.cells)]


def _of_variables(frame: pd.DataFrame) -> list[Row]:
    """Return the rows of each state's range, then of each gate's saturation."""
    names = [str(name) for name in frame.columns]
    states = [name.removesuffix("_min") for name in names if name.endswith("_min")]
    gates = [name.removesuffix("_left") for name in names if name.endswith("_left")]
    note = "share of values near either end of the range: left (shut) / right (open)"
    return [
        *((f"range of {_state(s)}", (f"{s}_min", f"{s}_max"), _range, "") for s in states),
        *((f"{_name(g)} saturated", (f"{g}_left", f"{g}_right"), _shares, note) for g in gates),
    ]


def _state(variable: str) -> str:
    """Name a state; a cell of somebody's own may call one as a known cell calls a gate."""
    return variable if variable in schema.GATES else _name(variable)


def _name(variable: str) -> str:
    long = schema.LONG_NAMES.get(variable)
    return variable if long is None else f"{long} {variable}"


def _cell(values: Any, text: Text) -> str:
    return "" if any(pd.isna(value) for value in values) else text(*values)


def _whole(value: float) -> str:
    return f"{int(value):,}"


def _range(low: float, high: float) -> str:
    return f"{low:.4g} to {high:.4g}"


def _shares(left: float, right: float) -> str:
    return f"{left:.1%} / {right:.1%}"


def _of(count: float, units: float) -> str:
    return f"{int(count):,} of {int(units):,}"


def _steps(value: float) -> str:
    if math.isinf(value):
        return "endless"
    return f"{value:,.1f} steps" if value < 100 else f"{value:,.0f} steps"


def _small(value: float) -> str:
    return f"{value:.1e}" if value else "0"


def _per_thousand(share_per_step: float) -> str:
    return f"{share_per_step * 1000 * 100:+.3g}%"


_FACTS: Final[tuple[Row, ...]] = (
    ("cell", ("cell",), str, ""),
    ("direction", ("direction",), str, ""),
    ("units", ("units",), _whole, ""),
    ("steps", ("steps",), _whole, "recorded steps"),
    ("rows", ("rows",), _whole, "sequences in the batch"),
)
_VERDICTS: Final[tuple[Row, ...]] = (
    (
        "units that never move",
        ("still_units", "units"),
        _of,
        "their state travels less than 0.001 over time",
    ),
    (
        "half-life, median unit",
        ("half_life_median",),
        _steps,
        "until half of what a unit holds is gone, by the median of its forget or update gate",
    ),
    ("half-life, longest", ("half_life_max",), _steps, "endless: that gate is 1 to rounding"),
    (
        "drift per 1,000 steps",
        ("drift_relative",),
        _per_thousand,
        "slope of the mean size of the state over its level; of rows of 100 steps or more",
    ),
    (
        "last tenth / first tenth",
        ("drift_ratio",),
        "{:.3g}".format,
        "of that size; a start from zero makes it larger than 1",
    ),
    (
        "replay error",
        ("max_error",),
        _small,
        "largest scaled difference from the framework's own states",
    ),
    ("origin", ("origin",), str, "observed in the framework, or replayed and verified"),
    ("not finite", ("not_finite",), _whole, "NaN or infinite values, which all figures leave out"),
)
