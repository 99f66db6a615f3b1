"""`summary`: one row of figures for each layer."""

import math

import numpy as np
import pandas as pd
import xarray as xr

from everystate import schema
from everystate.analysis.case import in_chunks
from everystate.analysis.drift import drift
from everystate.analysis.layer import gates, not_finite, one_epoch, recorded
from everystate.analysis.memory import half_life
from everystate.analysis.movement import movement
from everystate.analysis.saturation import saturation
from everystate.analysis.spread import spread
from everystate.views.table import lines_of

Figures = dict[str, object]


class Summary(pd.DataFrame):  # type: ignore[misc]  # pandas is not typed
    """A `pandas.DataFrame` that prints as a table for people: layers across, figures down."""

    def __repr__(self) -> str:
        """Return the readable table as text."""
        return str(self._for_people().to_string())

    def _repr_html_(self) -> str:
        return str(self._for_people().to_html())

    def _for_people(self) -> pd.DataFrame:
        return pd.DataFrame({line.title: line.cells for line in lines_of(self)}, index=self.index).T


def summary(trace: xr.DataTree) -> Summary:
    """Summarise a trace: one row of figures for each layer.

    Parameters
    ----------
    trace : xarray.DataTree
        From ``es.record`` or ``es.open_trace``, or a part of it such as ``trace["encoder"]``.

    Returns
    -------
    pandas.DataFrame
        Indexed by layer path; it prints as a table, and ``to_dict("index")`` is for machines.
        What a layer does not have is NaN or None. The columns:

        ``cell``, ``direction``, ``units``, ``steps``, ``rows``
            What was recorded; ``steps`` are recorded ones, ``units`` those of the state.
        ``h_min``, ``h_max``, ``c_min``, ``c_max``
            Least and largest finite value of each state (`everystate.analysis.spread`).
        ``i_left``, ``i_right``, ...
            Share of values at either end of each gate's range: below 0.1 and above 0.9, for
            tanh candidates below -0.9 and above 0.9 (`everystate.analysis.saturation`).
        ``still_units``
            Units whose state travels less than 0.001 over time (`everystate.analysis.movement`).
        ``half_life_median``, ``half_life_max``
            Over the units, in steps, from the median of the forget or update gate over time;
            infinite if that is 1 to rounding (`everystate.analysis.memory`).
        ``drift_per_step``, ``drift_relative``, ``drift_ratio``
            Slope of the mean size of ``c`` (or ``h``) per step, that slope over the mean level,
            and the size in the last tenth of the steps over that in the first, each the mean
            over the rows; of 100 steps or more, since before that a state that starts at zero
            grows in any case (`everystate.analysis.drift`).
        ``max_error``, ``tolerance``, ``origin``
            Largest scaled difference between the replay and the framework's own states, what
            was allowed, and which variables were observed and which replayed.
        ``not_finite``
            Values that are NaN or infinite within the sequences; the figures leave them out.

    Raises
    ------
    TraceFormatError
        If `trace` is not a trace of everystate, or of a newer schema.
    InputError
        If it has a dimension ``epoch``: choose one, ``trace.isel(epoch=-1)``.

    Examples
    --------
    >>> import torch, everystate as es
    >>> trace = es.record(torch.nn.GRU(3, 4, batch_first=True), torch.randn(2, 50, 3))
    >>> figures = es.summary(trace).to_dict("index")["gru"]
    >>> figures["cell"], figures["units"], figures["steps"], figures["rows"]
    ('GRU', 4, 50, 2)
    """
    ours = one_epoch(trace)
    found = [_Measured(in_chunks(layer)) for layer in ours.values()]
    groups = (_facts, _ranges, _shares, _units, _trend, _provenance)
    frames = [pd.DataFrame(map(group, found), index=list(ours)) for group in groups]
    return Summary(pd.concat(frames, axis=1).rename_axis("layer"))


class _Measured:
    """A layer with its figures; those of a chunked one are computed in one passage."""

    def __init__(self, layer: xr.Dataset) -> None:
        self.layer = layer
        figures = {
            "spread": spread(layer.drop_vars(gates(layer))),
            "saturation": saturation(layer),
            "movement": movement(layer),
            "half_life": half_life(layer),
            "drift": drift(layer),
            "not_finite": not_finite(layer),
        }
        if layer.chunks:
            from dask.base import compute

            (figures,) = compute(figures)  # type: ignore[no-untyped-call]
        self.figures: dict[str, xr.Dataset] = figures


def _facts(of: _Measured) -> Figures:
    layer = of.layer
    first = layer[recorded(layer)[0]]
    state = schema.UNIT if schema.UNIT in layer.sizes else first.dims[-1]
    return {
        "cell": layer.attrs.get("cell"),
        "direction": layer.attrs.get("direction"),
        "units": layer.sizes[state],
        "steps": layer.sizes[schema.TIME],
        "rows": layer.sizes.get(schema.BATCH, 1),
    }


def _ranges(of: _Measured) -> Figures:
    found = of.figures["spread"]
    figures: Figures = {}
    for name in found["variable"].values if found else ():
        ends = found.sel(variable=name)
        figures |= {f"{name}_min": ends["min"].item(), f"{name}_max": ends["max"].item()}
    return figures


def _shares(of: _Measured) -> Figures:
    found = of.figures["saturation"]
    figures: Figures = {}
    for name in found["variable"].values if found else ():
        shares = found.sel(variable=name).mean()
        figures |= {f"{name}_{end}": shares[end].item() for end in ("left", "right")}
    return figures


def _units(of: _Measured) -> Figures:
    moved, memory = of.figures["movement"], of.figures["half_life"]
    figures: Figures = {"still_units": int(moved.still.sum())} if moved else {}
    if memory:
        steps = memory.half_life.values
        steps = steps[~np.isnan(steps)]
        figures["half_life_median"] = float(np.median(steps)) if steps.size else math.nan
        figures["half_life_max"] = float(steps.max()) if steps.size else math.nan
    return figures


def _trend(of: _Measured) -> Figures:
    found = of.figures["drift"]
    names = {"slope": "drift_per_step", "relative": "drift_relative", "ratio": "drift_ratio"}
    return {column: found[name].mean().item() for name, column in names.items() if found}


def _provenance(of: _Measured) -> Figures:
    layer = of.layer
    errors = [float(v) for k, v in layer.attrs.items() if str(k).startswith("max_error_")]
    origins: dict[str, list[str]] = {}
    for name in recorded(layer):
        origins.setdefault(str(layer[name].attrs.get("origin", "unknown")), []).append(name)
    return {
        "max_error": max(errors, default=math.nan),
        "tolerance": float(layer.attrs.get("tolerance", math.nan)),
        "origin": "; ".join(f"{origin}: {' '.join(names)}" for origin, names in origins.items()),
        "not_finite": int(of.figures["not_finite"].not_finite.sum()),
    }
