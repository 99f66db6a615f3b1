"""Whether a model's states are the same, recorded in chunks of time and whole.

A test imports it as ``import streamed``.
"""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import everystate as es


def check(model: Any, x: np.ndarray, folder: Path, **options: Any) -> None:
    """Check that cutting changes no value beyond rounding, and that a lost state would show."""
    whole = es.record(model, x)
    got = es.record(model, x, store=folder / "run.zarr", chunk=37, **options)
    assert got.groups == whole.groups
    assert compare(got, whole) < 1e-5
    for leaf in got.leaves:
        assert leaf.attrs.get("max_error_h", 0) < 1e-5
        assert "state_resets" not in leaf.attrs
    with pytest.raises(AssertionError):
        assert compare(got.map_over_datasets(from_nothing), whole) < 1e-5


def compare(got: Any, whole: Any) -> float:
    """Return the largest difference of any number of any layer."""
    pairs = [(leaf[name], got[leaf.path][name]) for leaf in whole.leaves for name in leaf.data_vars]
    return max(float(abs(a.values - b.values).max()) for a, b in pairs)


def from_nothing(layer: Any) -> Any:
    """Return a layer whose steps are all one late: what a chunk too short by one would give."""
    return layer.map(lambda a: a.shift(time=1, fill_value=0) if "time" in a.dims else a)
