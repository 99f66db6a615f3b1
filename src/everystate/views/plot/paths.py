"""The path that a state takes: its steps in the plane in which they vary most."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import xarray as xr

from everystate import schema
from everystate.analysis import geometry
from everystate.analysis.layer import Layer, dataset_of, states
from everystate.errors import SelectionError
from everystate.views import palettes
from everystate.views.plot.canvas import axes_for, places, show_dates, text, title_of, variable_of
from everystate.views.prepare import row_of
from everystate.views.time_axis import TimeAxis

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def prepare_trajectory(
    layer: Layer, variable: str | None = None, *, row: object = None
) -> xr.Dataset:
    """Return the first two principal components of a state, over time.

    They are those of `everystate.analysis.geometry.trajectory`, of one row.

    Parameters
    ----------
    layer : xarray.DataTree or xarray.Dataset
        One layer of a trace, of two units or more.
    variable : str, optional
        A recorded state. None: the first, ``h`` as a rule.
    row : label, optional
        A value of the ``batch`` coordinate. None: the first row.

    Returns
    -------
    xarray.Dataset
        ``position`` (component, time), in the units of the state, of the steps whose values are
        all finite; ``share`` (component), of the whole variance.

    Raises
    ------
    SelectionError
        If the state or row was not recorded, or one unit only.
    AnalysisError
        If fewer than two steps have finite values, or no unit moves.

    Examples
    --------
    >>> h = xr.DataArray([[[0.0, 0.0], [3.0, 0.0], [6.0, 0.0]]], dims=("batch", "time", "unit"))
    >>> prepare_trajectory(xr.Dataset({"h": h})).position.values.tolist()
    [[-3.0, 0.0, 3.0], [0.0, 0.0, 0.0]]
    """
    found = row_of(dataset_of(layer), row)
    name = variable_of(found, variable, states(found), "state")
    values = found[name]
    if values.sizes[schema.UNIT] < 2:
        raise SelectionError(f"a trajectory of {name} needs two units, got 1. Record more of them.")
    path = geometry.trajectory(found, name, components=2)
    return xr.Dataset(
        {
            "position": path.trajectory.dropna(schema.TIME).transpose("component", ...),
            "share": path.explained,
        },
        {"component": [1, 2]},
        {"long_name": title_of(values, name)},
    )


def trajectory(
    layer: Layer, variable: str | None = None, *, row: object = None, ax: Axes | None = None
) -> Axes:
    """Draw the path of a state over time, in the plane of its first two principal components.

    Colours tell the time, from dark to light; a circle is the first step, a square the last.

    Parameters
    ----------
    layer : xarray.DataTree or xarray.Dataset
        One layer of a trace, of two units or more.
    variable : str, optional
        A recorded state. None: the first, ``h`` as a rule.
    row : label, optional
        A value of the ``batch`` coordinate. None: the first row.
    ax : matplotlib.axes.Axes, optional
        Where to draw; a colour bar takes some of its room. None: a new figure.

    Returns
    -------
    matplotlib.axes.Axes

    Raises
    ------
    SelectionError
        If the state or row was not recorded, or one unit only.
    AnalysisError
        If fewer than two steps have finite values, or no unit moves.
    InputError
        If the layer has several epochs.
    MissingDependencyError
        If matplotlib is not installed (``pip install 'everystate[plot]'``).

    Examples
    --------
    >>> import matplotlib; matplotlib.use("agg")
    >>> h = xr.DataArray([[[0.0, 0.0], [3.0, 0.0], [6.0, 0.0]]], dims=("batch", "time", "unit"))
    >>> trajectory(xr.Dataset({"h": h})).get_xlabel()
    'component 1 (100 % of the variance)'
    """
    ready = prepare_trajectory(layer, variable, row=row)
    ax = axes_for(ax, size=(5.0, 4.0))
    axis = TimeAxis.of(ready[schema.TIME])
    x, y = ready["position"].values
    ax.plot(x, y, color=palettes.RULE, linewidth=0.6, zorder=1)
    at = places(axis, np.arange(axis.size))
    points = ax.scatter(x, y, c=at, cmap="cividis", s=5, zorder=2, linewidths=0, rasterized=True)
    for place, marker, said in ((0, "o", "first step"), (-1, "s", "last step")):
        ax.plot(
            x[place],
            y[place],
            marker,
            markerfacecolor="white",
            markeredgecolor=palettes.INK,
            label=said,
            linestyle="none",
            zorder=3,
        )
    bar = ax.figure.colorbar(points, ax=ax, label=text(axis.title))
    if axis.kind == "datetime":
        show_dates(bar.ax.yaxis)
    ax.set_title(text(ready.attrs["long_name"]))
    for k, name in enumerate(("set_xlabel", "set_ylabel")):
        share = 100 * ready.share.values[k]
        getattr(ax, name)(f"component {k + 1} ({share:.0f} % of the variance)")
    ax.legend(frameon=False, fontsize="small")
    return ax
