"""Layers made by hand, with different sizes everywhere, for the tests of every analysis."""

import numpy as np
import pytest
import xarray as xr

GATES = {"LSTM": "ifgo", "GRU": "rzn", "SimpleRNN": ""}
STATES = {"LSTM": "hc", "GRU": "h", "SimpleRNN": "h"}


@pytest.fixture
def make_layer():
    """Return a layer of seeded values: 3 rows of which two may be shorter, 41 steps, 5 units."""

    def make(cell="LSTM", lengths=(41, 17, 30), seed=7, **attrs):
        rng = np.random.default_rng(seed)
        shape = (3, 41, 5)
        variables = {name: rng.normal(scale=1.5, size=shape) for name in STATES[cell]}
        for name in GATES[cell]:
            low, high = (-1, 1) if name in "gn" else (0, 1)
            variables[name] = rng.beta(0.3, 0.6, size=shape) * (high - low) + low
        if lengths is not None:
            for values in variables.values():
                for row, length in enumerate(lengths):
                    values[row, length:] = np.nan
        coords = {"time": np.arange(41), "batch": np.arange(3), "unit": np.arange(5)}
        if lengths is not None:
            coords["length"] = ("batch", np.array(lengths))
        data = {name: (("batch", "time", "unit"), values) for name, values in variables.items()}
        return xr.Dataset(data, coords, {"cell": cell, "direction": "forward", **attrs})

    return make


@pytest.fixture
def valid():
    """Return one unit's finite values of every row, as plain lists."""

    def of(values, unit):
        rows = values.values[..., unit]
        return [[float(v) for v in row if np.isfinite(v)] for row in rows]

    return of
