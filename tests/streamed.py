"""Whether a model's states are the same, recorded in chunks of time and whole.

A test imports it as ``import streamed``.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from typer.testing import CliRunner

import everystate as es
from everystate.cli.main import app
from everystate.errors import EverystateWarning


def check(model: Any, x: np.ndarray, folder: Path, **options: Any) -> None:
    """Check that cutting changes no value beyond rounding, and that a lost state would show."""
    whole = es.record(model, x)
    got = es.record(model, x, store=folder / "run.zarr", chunk=37, **options)
    assert sorted(got.groups) == sorted(whole.groups)
    assert compare(got, whole) < 1e-5
    for leaf in got.leaves:
        assert leaf.attrs.get("max_error_h", 0) < 1e-5
        assert "state_resets" not in leaf.attrs
    with pytest.raises(AssertionError):
        assert compare(got.map_over_datasets(from_nothing), whole) < 1e-5


class StopError(Exception):
    """Stands for whatever stops a recording."""


def check_resumed(model: Any, x: np.ndarray, folder: Path, **options: Any) -> None:
    """Check that a recording that is stopped and gone on with is the one that was not."""
    options = {**options, "chunk": 37}
    whole = es.record(model, x, store=folder / "whole.zarr", **options)

    def stop(done: int, _of: int) -> None:
        if done > 90:
            raise StopError

    place = folder / "stopped.zarr"
    with pytest.raises(StopError):
        es.record(model, x, store=place, progress=stop, **options)
    assert es.open_trace(place, incomplete="trim").attrs["complete"] == 0
    ran = []
    got = es.record(
        model, x, store=place, resume=True, progress=lambda done, _: ran.append(done), **options
    )
    assert ran[0] > 90
    for leaf in whole.leaves:
        xr.testing.assert_identical(got[leaf.path].to_dataset(), leaf.to_dataset())


def compare(got: Any, whole: Any) -> float:
    """Return the largest difference of any number of any layer."""
    pairs = [(leaf[name], got[leaf.path][name]) for leaf in whole.leaves for name in leaf.data_vars]
    return max(float(abs(a.values - b.values).max()) for a, b in pairs)


def from_nothing(layer: Any) -> Any:
    """Return a layer whose steps are all one late: what a chunk too short by one would give."""
    return layer.map(lambda a: a.shift(time=1, fill_value=0) if "time" in a.dims else a)


def check_sources(model: Any, x: np.ndarray, axis: int, folder: Path) -> None:
    """Check a file, an iterator, and a recording that was interrupted and gone on with."""
    whole, path = es.record(model, x), folder / "x.npy"
    np.save(path, x)
    steps = x.shape[axis]

    def pieces() -> Iterator[np.ndarray]:
        for start in range(0, steps, 23):
            yield x[(slice(None),) * axis + (slice(start, start + 23),)]

    def stop(done: int, _total: int) -> None:
        if done > steps // 2:
            raise KeyboardInterrupt

    def recorded(name: str, given: Any, **options: Any) -> Any:
        return es.record(model, given, store=folder / name, chunk=29, **options)

    assert compare(recorded("file.zarr", path), whole) < 1e-5
    assert compare(recorded("iterator.zarr", pieces()), whole) < 1e-5
    with pytest.raises(KeyboardInterrupt):
        recorded("resumed.zarr", pieces(), progress=stop)
    there = es.open_trace(folder / "resumed.zarr", incomplete="trim")
    assert all(0 < leaf.sizes["time"] < steps for leaf in there.leaves)
    got = recorded("resumed.zarr", pieces(), resume=True)
    assert compare(got, es.open_trace(folder / "iterator.zarr")) == 0


def check_command(model: Path, x: np.ndarray, folder: Path) -> None:
    """Check the command line, with so little memory that there are many chunks."""
    np.save(folder / "x.npy", x)
    command = ["record", str(model), str(folder / "x.npy"), "-o", str(folder / "cli.zarr")]
    done = CliRunner().invoke(app, [*command, "--memory", "20kB"])
    assert done.exit_code == 0, done.output
    got = es.open_trace(folder / "cli.zarr")
    assert compare(got, es.record(model, x)) < 1e-5
    assert next(iter(got.leaves)).h.encoding["chunks"][1] < x.size


def check_forgetful(model: Any, x: np.ndarray, call: Any, folder: Path) -> None:
    """Check that states which are not carried on would show."""

    def forgetful(chunk: Any, state: Any) -> Any:
        return call(model, (chunk,)), None

    with pytest.warns(EverystateWarning, match="do not start from the state"):
        got = es.record(model, x, store=folder / "forgetful.zarr", step=forgetful, chunk=37)
    assert compare(got, es.record(model, x)) > 1e-3
