"""How open gates are, step by step."""

from collections.abc import Mapping

import xarray as xr

from everystate import schema
from everystate.analysis.layer import Layer, by_variable, dataset_of, finite, gates
from everystate.analysis.saturation import gate_range


def openness(layer: Layer, edge: float = 0.1) -> xr.Dataset:
    r"""Return the mean of each gate at each step, and the share of it that is shut or open.

    Over all :math:`n_t` finite values :math:`g_{but}` of the rows and units at step :math:`t`:

    .. math::
        \text{mean}_t = \frac{1}{n_t} \sum_{b,u} g_{but}, \qquad
        \text{left}_t = \frac{1}{n_t} \left|\{g_{but} < l + \text{edge}\}\right|, \qquad
        \text{right}_t = \frac{1}{n_t} \left|\{g_{but} > r - \text{edge}\}\right|

    with the ends :math:`l, r` of the gate's range. `saturation` has the same shares for each
    unit, over time.

    Parameters
    ----------
    layer : xarray.DataTree or xarray.Dataset
        One layer of a trace.
    edge : float
        What counts as close to an end, as in `everystate.analysis.saturation`.

    Returns
    -------
    xarray.Dataset
        ``mean``, ``left`` and ``right`` (variable, time), NaN where a step has no finite value;
        the shares also where the gate's activation has no ends. Empty if no gate was recorded.

    Notes
    -----
    Where rows end at different steps, late steps are of fewer rows: a step in the curve may be
    a row that ended.

    References
    ----------
    The shares are those of Karpathy, Johnson and Fei-Fei 2015, section 4.2 (arXiv:1506.02078),
    taken at each step.

    Examples
    --------
    >>> o = xr.DataArray([[[0.5, 0.7], [0.05, 0.95], [0.0, 0.02]]], dims=("batch", "time", "unit"))
    >>> found = openness(xr.Dataset({"o": o}, attrs={"cell": "LSTM"})).sel(variable="o")
    >>> found["mean"].values.tolist(), found.left.values.tolist()
    ([0.6, 0.5, 0.01], [0.0, 0.5, 1.0])
    """
    layer = dataset_of(layer)
    return by_variable({name: _of(layer, name, edge) for name in gates(layer)})


def _of(layer: xr.Dataset, name: str, edge: float) -> xr.Dataset:
    values, ends = finite(layer[name]), gate_range(layer, name)
    over = [dim for dim in values.dims if dim != schema.TIME]
    count = values.notnull().sum(over)
    count = count.where(count > 0)
    shares: Mapping[str, xr.DataArray]
    if ends is None:
        shares = {"left": count * float("nan"), "right": count * float("nan")}
    else:
        close = {"left": values < ends[0] + edge, "right": values > ends[1] - edge}
        shares = {end: at_end.sum(over) / count for end, at_end in close.items()}
    return xr.Dataset({"mean": values.mean(over), **shares})
