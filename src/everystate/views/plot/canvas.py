"""What the static figures share: an ``ax`` to draw into, and time on its x axis."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt

from everystate.errors import MissingDependencyError, SelectionError

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis

    from everystate.views.time_axis import TimeAxis

MS_PER_DAY: Final = 86_400_000.0
"""matplotlib counts datetimes in days since 1970, `TimeAxis` in milliseconds."""


def axes_for(ax: Axes | None, size: tuple[float, float] = (7.0, 3.0)) -> Axes:
    """Return `ax`, or the axes of a new figure of this size in inches.

    Raises
    ------
    MissingDependencyError
        If matplotlib is not installed.
    """
    if ax is not None:
        return ax
    try:
        import matplotlib.pyplot as plt
    except ModuleNotFoundError as error:
        if error.name is None or error.name.split(".")[0] != "matplotlib":
            raise
        raise MissingDependencyError(
            "a static figure needs matplotlib, which is not installed: "
            "pip install 'everystate[plot]'"
        ) from error
    return plt.subplots(figsize=size, layout="constrained")[1]


def variable_of(layer: xr.Dataset, wanted: str | None, there: list[str], kind: str) -> str:
    """Return the variable that is wanted; without a wish the first that there is.

    Raises
    ------
    SelectionError
        If it was not recorded, or none was.
    """
    if wanted is None and there:
        return there[0]
    if wanted in there:
        return str(wanted)
    asked = kind if wanted is None else f"{kind} {wanted!r}"
    found = ", ".join(map(str, layer.data_vars)) or "nothing"
    raise SelectionError(
        f"the layer has no {asked}; it holds {found}. Record it: "
        "es.record(model, x, select=es.Select(variables=('states', 'gates')))."
    )


def title_of(values: xr.DataArray, name: str) -> str:
    """Return what a variable is called: its long name and its letter."""
    long = str(values.attrs.get("long_name", name))
    return text(long if long == name else f"{long} {name}")


def text(name: object) -> str:
    """Return a name that matplotlib does not take for TeX."""
    return str(name).replace("$", r"\$")


def places(axis: TimeAxis, positions: Any) -> npt.NDArray[np.float64]:
    """Return positions, counted in recorded steps, as matplotlib counts them."""
    return scaled(axis, axis.at(np.asarray(positions, dtype=np.float64)))


def scaled(axis: TimeAxis, at: Any) -> npt.NDArray[np.float64]:
    """Return places of a `TimeAxis` as matplotlib counts them."""
    return np.asarray(at) / MS_PER_DAY if axis.kind == "datetime" else np.asarray(at)


def show_time(ax: Axes, axis: TimeAxis) -> None:
    """Limit the x axis to the recorded steps and write their labels."""
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    def label(at: float, _: object) -> str:
        whole = round(at)
        return text(axis.text(whole)) if whole == at and 0 <= whole < axis.size else ""

    ax.set_xlim(*places(axis, [-0.5, axis.size - 0.5]))
    ax.set_xlabel(text(axis.title))
    if axis.kind == "datetime":
        show_dates(ax.xaxis)
    elif axis.kind == "label":
        ax.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        ax.xaxis.set_major_formatter(FuncFormatter(label))


def show_dates(side: Axis) -> None:
    """Write few dates, and what they share only once."""
    from matplotlib.dates import AutoDateLocator, ConciseDateFormatter

    locator = AutoDateLocator(minticks=3, maxticks=7)  # type: ignore[no-untyped-call]
    side.set_major_locator(locator)
    side.set_major_formatter(ConciseDateFormatter(locator))  # type: ignore[no-untyped-call]


def show_units(ax: Axes, values: xr.DataArray, dim: str) -> None:
    """Write the labels of units, or features, on the y axis."""
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    labels = values[dim].values

    def label(at: float, _: object) -> str:
        whole = round(at)
        return text(labels[whole]) if whole == at and 0 <= whole < labels.size else ""

    ax.set_ylabel(dim.replace("_", " "))
    ax.yaxis.set_major_locator(MaxNLocator(6, integer=True))
    ax.yaxis.set_major_formatter(FuncFormatter(label))
