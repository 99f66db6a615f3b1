"""Which units' gates never do anything."""

import xarray as xr

from everystate.analysis.layer import Layer, by_variable, dataset_of, finite, gates, samples
from everystate.analysis.saturation import saturation


def stuck(
    layer: Layer, share: float = 0.99, edge: float = 0.1, still_below: float = 1e-3
) -> xr.Dataset:
    r"""Return the units of which a gate is always shut, always open, or always the same.

    With the shares ``left`` and ``right`` of `everystate.analysis.saturation`, over all rows and
    steps of a unit:

    .. math::
        \text{shut} = (\text{left} \ge \text{share}), \quad
        \text{open} = (\text{right} \ge \text{share}), \quad
        \text{constant} = (\max g - \min g < \text{still\_below})

    A gate that is stuck is a number, not a gate: what it should decide is decided for all inputs.
    A unit whose input or output gate is shut takes no part in what the layer does.
    `everystate.analysis.movement` tells the units whose state never moves.

    Parameters
    ----------
    layer : xarray.DataTree or xarray.Dataset
        One layer of a trace.
    share : float
        The least share of steps at one end for a gate to be stuck there.
    edge : float
        What counts as close to an end, as in `everystate.analysis.saturation`.
    still_below : float
        A gate is constant if its largest and least value, over all rows and steps, differ by
        less: of the range of 0 to 1, 0.001 is 0.1 %.

    Returns
    -------
    xarray.Dataset
        ``shut``, ``open`` and ``constant`` (variable, unit), of bool. Of a candidate, ``shut``
        means at -1 and ``open`` at 1. None of them holds for a unit without finite values, the
        first two not where the activation has no ends, the last not of a single value.
        Empty if no gate was recorded.

    References
    ----------
    Karpathy, Johnson and Fei-Fei 2015, section 4.2 (arXiv:1506.02078): units that are always
    right- or left-saturated are points at the ends of the axes of their figure 2.

    Examples
    --------
    >>> i = xr.DataArray([[[0.01, 0.5], [0.02, 0.4], [0.0, 0.6]]], dims=("batch", "time", "unit"))
    >>> found = stuck(xr.Dataset({"i": i}, attrs={"cell": "LSTM"})).sel(variable="i")
    >>> found.shut.values.tolist(), found.open.values.tolist(), found.constant.values.tolist()
    ([True, False], [False, False], [False, False])
    """
    layer = dataset_of(layer)
    names = gates(layer)
    if not names:
        return xr.Dataset()
    constant = by_variable({name: _constant(layer[name], still_below) for name in names})
    shares = saturation(layer, edge)
    if not shares:
        never = xr.zeros_like(constant.constant)
        return constant.assign(shut=never, open=never)
    ends = xr.Dataset({"shut": shares.left >= share, "open": shares.right >= share})
    return constant.assign(ends.reindex(variable=names, fill_value=False).data_vars)


def _constant(gate: xr.DataArray, still_below: float) -> xr.Dataset:
    values, over = finite(gate), samples(gate)
    same = values.max(over) - values.min(over) < still_below
    return xr.Dataset({"constant": same & (values.notnull().sum(over) > 1)})
