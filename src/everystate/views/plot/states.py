"""A heat map: time across, units up, values as colours."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from everystate import schema
from everystate.analysis.layer import Layer, dataset_of, gates, recorded
from everystate.analysis.saturation import gate_range
from everystate.views import palettes
from everystate.views.plot.canvas import (
    axes_for,
    places,
    show_time,
    show_units,
    title_of,
    variable_of,
)
from everystate.views.prepare import COLUMNS, prepare, row_of
from everystate.views.time_axis import TimeAxis

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.axes import Axes


def heatmap(
    layer: Layer, variable: str | None = None, *, row: object = None, ax: Axes | None = None
) -> Axes:
    """Draw every unit of a variable over time.

    States and candidates have a diverging scale, white at zero; gates of range 0 to 1 have
    Cividis. Where few values dwarf the rest, the colours end before them, and the title says so.
    Grey is no number. Of a long recording each pair of columns shows the lowest and
    the highest value of a stretch of steps (`everystate.views.prepare.prepare`).

    Parameters
    ----------
    layer : xarray.DataTree or xarray.Dataset
        One layer of a trace.
    variable : str, optional
        A recorded state, gate or ``inputs``. None: ``c`` where there is one, else the first.
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
        If the variable or the row was not recorded.
    InputError
        If the layer has several epochs.
    MissingDependencyError
        If matplotlib is not installed (``pip install 'everystate[plot]'``).

    Examples
    --------
    >>> import matplotlib; matplotlib.use("agg")
    >>> import numpy as np, xarray as xr
    >>> c = xr.DataArray(np.eye(5)[None], dims=("batch", "time", "unit"))
    >>> heatmap(xr.Dataset({"c": c})).get_ylabel()
    'unit'
    """
    found = row_of(dataset_of(layer), row)
    name = variable_of(found, variable, _drawable(found), "variable")
    ready = prepare(found[[name]], COLUMNS[1])
    axis = TimeAxis.of(found[schema.TIME])
    ax = axes_for(ax)
    values, colors = ready[name], _colors(found, ready[name], name)
    left, right = places(axis, [-0.5, axis.size - 0.5])
    # The last bucket may stand for fewer steps than it is wide.
    right = left + (right - left) * ready.attrs["bucket_size"] * ready.sizes["bucket"] / axis.size
    image = ax.imshow(
        values.values,
        extent=(left, right, -0.5, len(values) - 0.5),
        aspect="auto",
        origin="lower",
        interpolation="nearest",
        **colors,
    )
    said = palettes.said_of_bound(values.values, colors["vmax"])
    extend = "both" if said else "neither"
    ax.figure.colorbar(image, ax=ax, label=title_of(values, name), extend=extend)
    if said:
        ax.set_title(said, fontsize="small")
    show_time(ax, axis)
    show_units(ax, values, str(values.dims[0]))
    return ax


def _drawable(layer: xr.Dataset) -> list[str]:
    names = recorded(layer) + [schema.INPUTS] * (schema.INPUTS in layer)
    return sorted(names, key=lambda name: name != schema.C)


def _colors(layer: xr.Dataset, values: xr.DataArray, name: str) -> dict[str, Any]:
    from matplotlib import colormaps
    from matplotlib.colors import ListedColormap

    ends = gate_range(layer, name) if name in gates(layer) else None
    if ends is not None and ends[0] == 0.0:
        return {
            "cmap": colormaps["cividis"].with_extremes(bad=palettes.MISSING),
            "vmin": 0.0,
            "vmax": 1.0,
        }
    bound = ends[1] if ends is not None else palettes.bound_of(values.values)
    cmap = ListedColormap(palettes.DIVERGING).with_extremes(bad=palettes.MISSING)
    return {"cmap": cmap, "vmin": -bound, "vmax": bound}
