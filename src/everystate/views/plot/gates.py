"""The gates of one unit, or of all on average, over time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from everystate import schema
from everystate.analysis.layer import Layer, dataset_of
from everystate.analysis.layer import gates as gates_of
from everystate.errors import SelectionError
from everystate.views import palettes
from everystate.views.plot.canvas import axes_for, places, show_time, text, title_of, variable_of
from everystate.views.prepare import COLUMNS, column_positions, prepare, row_of
from everystate.views.time_axis import TimeAxis

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.axes import Axes

DASHES: Final = ("-", (0, (5, 1.5)), (0, (1, 1.2)), (0, (6, 1.5, 1, 1.5)))
"""Of each gate's line in turn: told apart without colour vision too."""


def gate_traces(
    layer: Layer, unit: object = None, *, row: object = None, ax: Axes | None = None
) -> Axes:
    """Draw the gates over time: a line for each, in a colour and dashes of its own.

    Parameters
    ----------
    layer : xarray.DataTree or xarray.Dataset
        One layer of a trace.
    unit : label, optional
        A value of the ``unit`` coordinate. None: the mean over all units.
    row : label, optional
        A value of the ``batch`` coordinate. None: the first row.
    ax : matplotlib.axes.Axes, optional
        Where to draw. None: a new figure.

    Returns
    -------
    matplotlib.axes.Axes

    Raises
    ------
    SelectionError
        If no gate was recorded, or there is no such unit or row.
    InputError
        If the layer has several epochs.
    MissingDependencyError
        If matplotlib is not installed (``pip install 'everystate[plot]'``).

    Examples
    --------
    >>> import matplotlib; matplotlib.use("agg")
    >>> import xarray as xr
    >>> f = xr.DataArray([[[0.5, 0.25], [0.5, 0.75]]], dims=("batch", "time", "unit"))
    >>> ax = gate_traces(xr.Dataset({"f": f}, attrs={"cell": "LSTM"}), unit=1)
    >>> ax.lines[0].get_ydata().tolist()
    [0.25, 0.75]
    """
    found = row_of(dataset_of(layer), row)
    names = gates_of(found)
    variable_of(found, None, names, "gate")
    chosen = found[names] if unit is None else _of_unit(found[names], unit)
    ready = prepare(chosen.assign_attrs(found.attrs), COLUMNS[1])
    axis = TimeAxis.of(found[schema.TIME])
    ax = axes_for(ax)
    for k, name in enumerate(names):
        if unit is None:
            each = ready.sizes["column"] // ready.sizes["bucket"]
            mean = ready["over_units"].sel(variable=name, part="mean")
            values = np.repeat(mean.values, each)
        else:
            values = ready[name].values[0]
        ax.plot(
            places(axis, column_positions(ready)),
            values,
            color=palettes.DISTINCT[k % len(palettes.DISTINCT)],
            linestyle=DASHES[k % len(DASHES)],
            linewidth=1.3,
            label=title_of(ready[name], name),
        )
    ax.set_ylabel("mean over the units" if unit is None else text(f"unit {unit}"))
    show_time(ax, axis)
    # Two columns: a layout makes room for the legend, and a wide one would narrow the axes.
    ax.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=2, frameon=False, fontsize="small")
    return ax


def _of_unit(layer: xr.Dataset, unit: object) -> xr.Dataset:
    labels = layer[schema.UNIT].values
    at = np.flatnonzero(labels == unit)
    if not at.size:
        some = ", ".join(map(repr, labels[:5].tolist()))
        raise SelectionError(f"unit={unit!r} was not recorded; there are {some} ({labels.size}).")
    return layer.isel({schema.UNIT: at[:1]})
