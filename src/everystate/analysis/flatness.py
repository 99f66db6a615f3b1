"""How often a state lies where what reads it can no longer tell it from its neighbours."""

import numpy as np
import xarray as xr

from everystate import schema
from everystate.analysis.layer import Layer, dataset_of, finite, recorded, samples


def flatness(layer: Layer, edge: float = 0.01) -> xr.Dataset:
    r"""Return how often the tanh that squashes a unit's state is within `edge` of -1 or 1.

    .. math::
        \text{share}_u = \frac{1}{n} \left|\{|\tanh c_{btu}| > 1 - \text{edge}\}\right|

    An LSTM shows the rest of the model :math:`h = o \tanh(c)`: where :math:`|c|` is above 2.65,
    the slope :math:`1 - \tanh^2 c` is below 0.02, and neither a reader of `h` nor a gradient sees
    what `c` does. Of a simple RNN, :math:`h` itself is the tanh.

    Parameters
    ----------
    layer : xarray.DataTree or xarray.Dataset
        One layer of a trace.
    edge : float
        What counts as close, as a distance from the ends.

    Returns
    -------
    xarray.Dataset
        ``share`` (unit), of all rows and steps, and ``over_time`` (time), of all rows and units;
        NaN without a finite value. The attribute ``state`` names the state. Empty if the state
        was not recorded, or nothing squashes it by a tanh: other activations, a GRU (whose
        states are means of tanh), cells of one's own.

    References
    ----------
    Hochreiter 1991; Pascanu, Mikolov and Bengio 2013 (arXiv:1211.5063): gradients vanish where
    the squashing function is flat.

    Examples
    --------
    >>> c = xr.DataArray([[[0.5, 7.0], [3.0, -9.0]]], dims=("batch", "time", "unit"))
    >>> found = flatness(xr.Dataset({"c": c}, attrs={"cell": "LSTM"}))
    >>> found.share.values.tolist(), found.over_time.values.tolist()
    ([0.5, 1.0], [0.5, 1.0])
    """
    layer = dataset_of(layer)
    name = {"LSTM": schema.C, "SimpleRNN": schema.H}.get(str(layer.attrs.get("cell")))
    if name not in recorded(layer) or layer.attrs.get("activation", "tanh") != "tanh":
        return xr.Dataset()
    end = 1.0 - edge
    size = abs(finite(layer[name]))
    flat = size > (np.arctanh(end) if name == schema.C else end)
    return xr.Dataset(
        {
            "share": flat.where(size.notnull()).mean(samples(size)),
            "over_time": flat.where(size.notnull()).mean(
                [dim for dim in size.dims if dim != schema.TIME]
            ),
        },
        attrs={"state": name},
    )
