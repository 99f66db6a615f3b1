"""How far a recording leaves the range of another."""

import xarray as xr

from everystate import schema
from everystate.analysis.layer import Layer, by_variable, dataset_of, finite, recorded, samples


def outside(layer: Layer, baseline: Layer, margin: float = 0.1) -> xr.Dataset:
    r"""Return the share of values beyond what each unit reaches in a baseline.

    With a unit's least and largest value in the baseline, :math:`l_u` and :math:`r_u`, over its
    rows and steps:

    .. math::
        \text{share}_u = \frac{1}{n} \left|\{x_{btu} < l_u - m_u\} \cup \{x_{btu} > r_u + m_u\}
        \right|, \qquad m_u = \text{margin} \cdot (r_u - l_u)

    Parameters
    ----------
    layer : xarray.DataTree or xarray.Dataset
        One layer of a trace.
    baseline : xarray.DataTree or xarray.Dataset
        The same layer of a trace of normal operation; its rows and steps may be other ones.
    margin : float
        How far beyond the range still counts as within, as a share of the range.

    Returns
    -------
    xarray.Dataset
        ``share`` (variable, unit), ``over_time`` (variable, time), the same of all rows and units
        of a step. Of the variables that both have with equal units; empty without any.

    Notes
    -----
    The longer the baseline, the wider its range: one of a few steps makes everything new.

    Examples
    --------
    >>> c = xr.DataArray([[[0.0], [1.0], [5.0], [1.05]]], dims=("batch", "time", "unit"))
    >>> found = outside(xr.Dataset({"c": c}), xr.Dataset({"c": c[:, :2]})).sel(variable="c")
    >>> found.share.values.tolist(), found.over_time.values.tolist()
    ([0.25], [0.0, 0.0, 1.0, 0.0])
    """
    layer, baseline = dataset_of(layer), dataset_of(baseline)
    found = {}
    for name in recorded(layer):
        if name in recorded(baseline) and _units(layer[name]) == _units(baseline[name]):
            found[name] = _of(finite(layer[name]), finite(baseline[name]), margin)
    return by_variable(found)


def _units(values: xr.DataArray) -> dict[str, int]:
    dims = [str(dim) for dim in values.dims if dim not in samples(values)]
    return {dim: values.sizes[dim] for dim in dims}


def _of(values: xr.DataArray, baseline: xr.DataArray, margin: float) -> xr.Dataset:
    over = samples(baseline)
    low, high = (
        getattr(baseline, end)(over).drop_vars(_units(baseline), errors="ignore")
        for end in ("min", "max")
    )
    room = margin * (high - low)
    out = ((values < low - room) | (values > high + room)).where(values.notnull())
    steps = [dim for dim in values.dims if dim != schema.TIME]
    return xr.Dataset({"share": out.mean(samples(values)), "over_time": out.mean(steps)})
