"""How often gates sit at the ends of their range."""

from collections.abc import Mapping
from typing import Final

import xarray as xr

from everystate.analysis.layer import Layer, by_variable, dataset_of, finite, gates, samples

CANDIDATES: Final = ("g", "n")
"""What is written rather than a share: it has the cell's `activation`, not the gates'."""

RANGES: Final[Mapping[str, tuple[float, float]]] = {
    "tanh": (-1.0, 1.0),
    "sigmoid": (0.0, 1.0),
    "hard_sigmoid": (0.0, 1.0),
    "hard_sigmoid_keras2": (0.0, 1.0),
}
"""Ends of the range of each bounded activation; the others have none to saturate at."""


def saturation(layer: Layer, edge: float = 0.1) -> xr.Dataset:
    """Return the share of steps at which each gate is close to an end of its range.

    A gate that is always left-saturated is shut, one that is always right-saturated is open;
    a forget gate that is right-saturated most of the time carries its cell far. A large share
    is neither good nor bad in itself.

    Parameters
    ----------
    layer : xarray.DataTree or xarray.Dataset
        One layer of a trace.
    edge : float
        What counts as close, as a distance from the end: gates of range 0 to 1 are
        left-saturated below 0.1 and right-saturated above 0.9, candidates of range -1 to 1
        below -0.9 and above 0.9.

    Returns
    -------
    xarray.Dataset
        ``left`` and ``right`` (variable, unit): shares between 0 and 1 of the finite values of
        all rows and steps, NaN for a unit without any. Gates whose activation has no ends
        (``relu``, ``linear``) are left out. Empty if no gate was recorded.

    References
    ----------
    Karpathy, Johnson and Fei-Fei 2015, Visualizing and understanding recurrent networks,
    section 4.2 (arXiv:1506.02078), whose ends 0.1 and 0.9 these are. They look at the gates
    only; the candidates are treated alike here.

    Examples
    --------
    >>> f = xr.DataArray([[[0.05], [0.95], [0.99], [0.5]]], dims=("batch", "time", "unit"))
    >>> found = saturation(xr.Dataset({"f": f}, attrs={"cell": "LSTM"})).sel(variable="f")
    >>> found.left.item(), found.right.item()
    (0.25, 0.5)
    """
    layer = dataset_of(layer)
    found = {}
    for name in gates(layer):
        ends = gate_range(layer, name)
        if ends is not None:
            values = finite(layer[name])
            over = samples(values)
            count = values.notnull().sum(over)
            close = {"left": values < ends[0] + edge, "right": values > ends[1] - edge}
            found[name] = xr.Dataset(
                {end: at_end.sum(over) / count.where(count > 0) for end, at_end in close.items()}
            )
    return by_variable(found)


def gate_range(layer: xr.Dataset, gate: str) -> tuple[float, float] | None:
    """Return the ends of a gate's range, by its activation; None if it has none."""
    return range_of(gate, layer.attrs)


def range_of(gate: str, attrs: Mapping[str, object]) -> tuple[float, float] | None:
    """Return the ends of a gate's range, by the attributes of its layer; None if it has none."""
    if gate in CANDIDATES:
        return RANGES.get(str(attrs.get("activation", "tanh")))
    return RANGES.get(str(attrs.get("recurrent_activation", "sigmoid")))
