"""Which layers of a baseline those of a trace can be judged by."""

from collections.abc import Mapping

import numpy as np
import xarray as xr

from everystate.analysis.layer import recorded, samples
from everystate.errors import InputError

Layers = Mapping[str, xr.Dataset]


def fitting(ours: Layers, normal: Layers) -> tuple[dict[str, xr.Dataset], list[str]]:
    """Return the layers of a baseline that fit those of a trace by name and units.

    Parameters
    ----------
    ours, normal : mapping of str to xarray.Dataset
        The layers of the trace and of the baseline, by their paths.

    Returns
    -------
    tuple of dict and list of str
        What fits, and a sentence for each layer of the trace that nothing fits.

    Raises
    ------
    InputError
        If nothing fits at all.

    Examples
    --------
    >>> h = xr.Dataset({"h": (("time", "unit"), [[0.1, 0.2]])})
    >>> fits, left_out = fitting({"a": h, "b": h}, {"b": h})
    >>> list(fits), left_out
    (['b'], ['layer a is not in the baseline: fixed thresholds hold for it.'])
    """
    misfits = {path: _misfit(layer, normal.get(path)) for path, layer in ours.items()}
    if all(misfits.values()):
        raise InputError(
            f"the baseline fits no layer of the trace: the trace has {_told(ours)}; the baseline "
            f"has {_told(normal)}. Record both with the same network and the same es.Select."
        )
    left_out = [
        f"layer {path} {why}: fixed thresholds hold for it." for path, why in misfits.items() if why
    ]
    return {path: normal[path] for path, why in misfits.items() if not why}, left_out


def _misfit(layer: xr.Dataset, normal: xr.Dataset | None) -> str:
    """Return why a layer cannot be judged by the baseline's; nothing if it can."""
    if normal is None:
        return "is not in the baseline"
    shared = [name for name in recorded(layer) if name in recorded(normal)]
    if not shared:
        return "has no variable in common with the baseline"
    if not all(_same_units(layer[name], normal[name]) for name in shared):
        return f"has {_units(layer)}, in the baseline {_units(normal)}"
    return ""


def _same_units(values: xr.DataArray, normal: xr.DataArray) -> bool:
    dims, others = (set(v.dims) - set(samples(v)) for v in (values, normal))
    if dims != others or any(values.sizes[dim] != normal.sizes[dim] for dim in dims):
        return False
    # Numbers are places in the layer; names are the user's own, in one trace perhaps.
    numbered = [
        dim
        for dim in dims
        if all(np.issubdtype(v[dim].dtype, np.integer) for v in (values, normal))
    ]
    return all(np.array_equal(values[dim], normal[dim]) for dim in numbered)


def _units(layer: xr.Dataset) -> str:
    """Return how many units a layer has, and which if they are not the first ones."""
    values = layer[recorded(layer)[0]]
    dims = [str(dim) for dim in values.dims if dim not in samples(values)]
    sizes = " x ".join(f"{values.sizes[dim]:,}" for dim in dims) or "1"
    ends = [
        f" ({values[d].values[0]} to {values[d].values[-1]})" for d in dims if d in values.coords
    ]
    return f"{sizes} units{ends[0] if len(ends) == 1 else ''}"


def _told(layers: Layers) -> str:
    return ", ".join(f"{path} of {_units(layer)}" for path, layer in layers.items())
