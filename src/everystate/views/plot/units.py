"""How often each unit's gates sit at the ends of their range."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from everystate.analysis.layer import Layer, check_one_epoch, dataset_of
from everystate.analysis.saturation import saturation
from everystate.views import palettes
from everystate.views.plot.canvas import axes_for, title_of, variable_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MARKERS: Final = ("o", "^", "s", "D")
"""Of each gate in turn: told apart without colour vision too."""


def saturation_scatter(layer: Layer, edge: float = 0.1, *, ax: Axes | None = None) -> Axes:
    """Draw each unit's left- against its right-saturated share, a marker for each gate.

    A unit near the right corner has its gate open all the time, one near the upper corner has
    it shut; none can lie beyond the line from corner to corner. What is drawn is
    `everystate.analysis.saturation.saturation`, over all rows and steps.

    Parameters
    ----------
    layer : xarray.DataTree or xarray.Dataset
        One layer of a trace.
    edge : float
        What counts as close to an end.
    ax : matplotlib.axes.Axes, optional
        Where to draw. None: a new figure.

    Returns
    -------
    matplotlib.axes.Axes

    Raises
    ------
    SelectionError
        If no gate with ends to saturate at was recorded.
    InputError
        If the layer has several epochs.
    MissingDependencyError
        If matplotlib is not installed (``pip install 'everystate[plot]'``).

    References
    ----------
    Karpathy, Johnson and Fei-Fei 2015, Visualizing and understanding recurrent networks,
    figure 3 (arXiv:1506.02078).

    Examples
    --------
    >>> import matplotlib; matplotlib.use("agg")
    >>> import xarray as xr
    >>> f = xr.DataArray([[[0.05], [0.95], [0.99], [0.5]]], dims=("batch", "time", "unit"))
    >>> ax = saturation_scatter(xr.Dataset({"f": f}, attrs={"cell": "LSTM"}))
    >>> ax.collections[0].get_offsets().tolist()
    [[0.5, 0.25]]
    """
    found = dataset_of(layer)
    check_one_epoch(found)
    shares = saturation(found, edge)
    names = [str(name) for name in shares["variable"].values] if shares else []
    variable_of(found, None, names, "gate with ends to saturate at")
    ax = axes_for(ax, size=(4.0, 4.0))
    for k, name in enumerate(names):
        one = shares.sel(variable=name)
        ax.scatter(
            one.right.values,
            one.left.values,
            s=22,
            marker=MARKERS[k % len(MARKERS)],
            facecolors="none",
            edgecolors=palettes.DISTINCT[k % len(palettes.DISTINCT)],
            label=title_of(found[name], name),
            clip_on=False,
        )
    ax.plot([0, 1], [1, 0], color=palettes.RULE, linewidth=0.8, zorder=0)
    ax.set(xlim=(0, 1), ylim=(0, 1), aspect="equal")
    ax.set_xlabel("share of steps right-saturated (open)")
    ax.set_ylabel("share of steps left-saturated (shut)")
    ax.legend(frameon=False, fontsize="small")
    return ax
