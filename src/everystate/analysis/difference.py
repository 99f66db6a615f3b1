"""How far two recordings of a layer are apart, step by step and unit by unit."""

import xarray as xr

from everystate import schema
from everystate.analysis.compare import alike
from everystate.analysis.layer import Layer, by_variable, dataset_of, finite, recorded
from everystate.errors import SelectionError


def difference(a: Layer, b: Layer) -> xr.Dataset:
    r"""Return how the difference of two recordings of a layer goes on over time, and its units.

    For `a` a recording after a change, such as a quantisation, a port or a further epoch, and
    `b` the one before it, of the same input. With the root of the mean square over rows and
    units, and that over rows and steps:

    .. math::
        \text{rms}_t = \sqrt{\operatorname{mean}_{b,u} (a - b)^2}, \qquad
        \text{over\_time}_t = \text{rms}_t \Big/ \sqrt{\operatorname{mean}_{b,u} b^2}, \qquad
        \text{over\_units}_u =
        \sqrt{\operatorname{mean}_{b,t} (a - b)^2 \big/ \operatorname{mean}_{b,t} b^2}

    An error that stays level is one of the numbers; one that grows is carried on by the state.
    `everystate.compare` finds the first place where they part.

    Parameters
    ----------
    a, b : xarray.DataTree or xarray.Dataset
        The same layer of two traces. Values are paired by their place; the labels are those of
        `a`.

    Returns
    -------
    xarray.Dataset
        ``rms`` and ``over_time`` (variable, time), ``over_units`` (variable, unit): the noise-
        to-signal ratio, of which :math:`-20 \log_{10}` is the signal-to-noise ratio in dB. Of the
        variables that both have; infinite or NaN where `b` is 0 throughout. Empty if they share
        none.

    Raises
    ------
    SelectionError
        If a variable of both has other sizes, such as another number of steps.

    Notes
    -----
    Two networks trained apart have no unit in common: the difference of their states says
    nothing. Places where either is not finite are left out.

    References
    ----------
    Gholami et al. 2021, A survey of quantization methods (arXiv:2103.13630): that errors are
    judged against the signal.

    Examples
    --------
    >>> b = xr.DataArray([[[3.0, 1.0], [4.0, 2.0]]], dims=("batch", "time", "unit"))
    >>> found = difference(xr.Dataset({"h": 1.1 * b}), xr.Dataset({"h": b})).sel(variable="h")
    >>> found.over_time.round(3).values.tolist(), found.over_units.round(3).values.tolist()
    ([0.1, 0.1], [0.1, 0.1])
    """
    a, b = dataset_of(a), dataset_of(b)
    names = [name for name in recorded(a) if name in recorded(b)]
    return by_variable({name: _of(*alike(a, b, name)) for name in names})


def _of(a: xr.DataArray, b: xr.DataArray) -> xr.Dataset:
    if a.dims != b.dims or a.shape != b.shape:
        raise SelectionError(
            f"{a.name} is {dict(a.sizes)} in one recording and {dict(b.sizes)} in the other; "
            "expected equal sizes. Choose what both have: a.isel(time=slice(0, 100))."
        )
    b = xr.DataArray(b.variable, a.coords)
    both = finite(a).notnull() & finite(b).notnull()
    error = ((a - b).where(both).astype("float64")) ** 2
    signal = b.where(both).astype("float64") ** 2
    units = [dim for dim in a.dims if dim != schema.TIME]
    steps = [dim for dim in a.dims if dim in (schema.TIME, schema.BATCH)]
    over_time, of_units = error.mean(units), error.mean(steps)
    return xr.Dataset(
        {
            "rms": over_time**0.5,
            "over_time": (over_time / signal.mean(units)) ** 0.5,
            "over_units": (of_units / signal.mean(steps)) ** 0.5,
        }
    )
