r"""How long units remember.

What a unit holds decays on the direct path from one step to the next by the share that its
gate keeps: :math:`c_t = f_t c_{t-1} + i_t g_t` in an LSTM, :math:`h_t = z_t h_{t-1} +
(1 - z_t) n_t` in a GRU whose update gate keeps (one that writes keeps :math:`1 - z_t`).
"""

import math

import numpy as np
import xarray as xr

from everystate.analysis.layer import Layer, dataset_of, finite, recorded, sampled, samples


def half_life(layer: Layer) -> xr.Dataset:
    r"""Return after how many steps half of what a unit holds is gone, in a typical step.

    .. math:: \text{half-life} = \frac{\ln 2}{-\ln \operatorname{median}_t f_t}

    with the forget gate of an LSTM, or what the update gate of a GRU keeps, over the finite
    values of all rows and steps; and the same of an average step,

    .. math:: \text{average} = \frac{\ln 2}{-\operatorname{mean}_t \ln f_t}

    which counts every reset.

    Parameters
    ----------
    layer : xarray.DataTree or xarray.Dataset
        One layer of a trace.

    Returns
    -------
    xarray.Dataset
        ``half_life`` and ``average`` (unit), in steps of the model: infinite where the median
        gate is 1 to rounding (or above; of the average, where the mean logarithm is 0 or above),
        0 where it is 0 (of the average, where the gate ever was), NaN without a finite value.
        Empty if the gate was not recorded, or the cell has none.

    Notes
    -----
    *A typical step.* The median is the share that half of the steps exceed, so neither a start
    of some hundred steps nor single closed gates decide it: it tells what a unit does most of
    the time. In return it does not see the rest: a unit that is reset now and then forgets
    sooner than its half-life says. One number per unit cannot show both; look at the gate.

    *The bias of averaging.* What remains after :math:`n` steps is :math:`\prod f_t =
    \exp(n \operatorname{mean} \ln f)`: the average is exact for the recording as a whole, and
    one closed step decides it. It is never longer than the half-life of the arithmetic mean of
    the gate, since :math:`\operatorname{mean} \ln f \le \ln \operatorname{mean} f` (Jensen): a
    mean gate promises more memory than there was. The mean of half-lives, over steps or units,
    is worse still: the longest one decides it alone.

    *Many samples.* Of more than 16,384 values of a unit the median is that of a part, of rows
    and steps spread evenly (`everystate.analysis.layer.sampled`); the average is over all.

    *The direct path only.* What leaves a unit can come back through the recurrent weights, so
    the layer may remember longer than any of its units.

    *Recorded steps.* Each gate value is the share kept in one step of the model, whatever steps
    were recorded: with ``every=10`` the median is over a tenth of the steps, and the result
    still counts single steps.

    *Precision.* The largest number below 1 bounds what can be told from "for ever": 1,419 steps
    where the gate was stored as float16, 11.6 million as float32.

    References
    ----------
    Tallec and Ollivier 2018, Can recurrent neural networks warp time? (arXiv:1804.11188): a
    gate that stays at :math:`f` forgets with a characteristic time of about
    :math:`1 / (1 - f)`, which is the half-life over :math:`\ln 2` for :math:`f` close to 1.

    Examples
    --------
    >>> f = xr.DataArray([[[0.5, 0.1], [0.5, 0.9], [0.5, 0.9]]], dims=("batch", "time", "unit"))
    >>> half_life(xr.Dataset({"f": f}, attrs={"cell": "LSTM"})).half_life.round(2).values.tolist()
    [1.0, 6.58]
    """
    layer = dataset_of(layer)
    gate, writes = _keeping_gate(layer)
    if gate is None:
        return xr.Dataset()
    kept = finite(layer[gate]).astype(np.float64)
    # A gate with an unbounded activation may be negative: what decays is the magnitude.
    kept = abs(1.0 - kept if writes else kept)
    half = _steps(_log(sampled(kept).median(samples(kept))), "half-life of a typical step")
    average = _steps(_log(kept).mean(samples(kept)), "half-life of an average step")
    return xr.Dataset({"half_life": half, "average": average}, attrs={"gate": gate})


def _log(kept: xr.DataArray) -> xr.DataArray:
    """Return the logarithm, that of 0 without a warning."""
    logs: xr.DataArray = xr.apply_ufunc(np.log, kept.where(kept > 0), dask="allowed")
    return logs.where(kept != 0, -np.inf)


def _steps(log: xr.DataArray, long_name: str) -> xr.DataArray:
    """Return after how many steps half is left where one step leaves ``exp(log)``."""
    steps = (-math.log(2) / log.where(log < 0)).where(~(log >= 0), np.inf)
    return steps.assign_attrs(long_name=long_name, units="step")


def _keeping_gate(layer: xr.Dataset) -> tuple[str | None, bool]:
    """Return the gate that says how much is kept, and whether it says how much is written."""
    gate = {"LSTM": "f", "GRU": "z"}.get(str(layer.attrs.get("cell")))
    writes = gate == "z" and layer.attrs.get("update") == "writes"
    return (gate if gate in recorded(layer) else None), writes
