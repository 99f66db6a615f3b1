"""The contract of a framework module's `stream`, which is optional, as tests to subclass."""

from contextlib import suppress
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import xarray as xr

import everystate as es
from everystate.recording.stream import Stream


class StreamContract:
    """Tests that every framework module must pass that can cut long sequences.

    Give `framework`, `model` and `sequence`: a model that can be cut, with two layers, one above
    the other, and states that do not begin with zeros, where the framework has such; and an input
    of 100 steps or more. What is recorded of it whole is taken for right: that is for
    `FrameworkContract` to say.

    Examples
    --------
    >>> class TestMyStream(StreamContract):  # doctest: +SKIP
    ...     framework = everystate.frameworks.myframework
    ...     def model(self): return seeded_model()
    ...     def sequence(self): return seeded_input()
    """

    framework: ModuleType
    """The module under test."""
    tolerance: float = 1e-5
    """Largest ``|cut - whole| / (1 + |whole|)``."""
    chunk: int = 37
    """Steps of a chunk; it divides neither the sequence nor the pieces of the trial."""

    def model(self) -> Any:
        """Return a new model, each time with the same weights."""
        raise NotImplementedError

    def sequence(self) -> Any:
        """Return what to call the model with, each time the same."""
        raise NotImplementedError

    def test_cutting_changes_no_value(self, tmp_path: Path) -> None:
        """Every variable of every layer, at every step, along the axis that `stream` finds."""
        whole, cut = self._whole(), self._cut(tmp_path / "run.zarr")
        x, stream = self.sequence(), self.framework.stream(self.model())
        assert isinstance(stream, Stream)
        assert cut.groups == whole.groups
        for leaf in whole.leaves:
            stored = cut[leaf.path].to_dataset()
            assert stored.sizes["time"] == x.shape[stream.time_axis(x)], leaf.path
            assert "state_resets" not in stored.attrs, f"{leaf.path}: the state is not carried on"
            for name, wanted in leaf.data_vars.items():
                error = np.abs(stored[name].values - wanted.values) / (1.0 + np.abs(wanted.values))
                assert error.max() <= self.tolerance, (
                    f"{leaf.path}: {name} off by {error.max():.2g}"
                )

    def test_goes_on_where_it_was_stopped(self, tmp_path: Path) -> None:
        """Bit for bit as if it had not been: the state can be stored, and is all that is needed."""
        whole = self._cut(tmp_path / "whole.zarr")

        def stop(done: int, _of: int) -> None:
            if done >= 2 * self.chunk:
                raise KeyboardInterrupt

        with suppress(KeyboardInterrupt):
            self._cut(tmp_path / "stopped.zarr", progress=stop)
        ran: list[int] = []
        cut = self._cut(
            tmp_path / "stopped.zarr",
            resume=True,
            progress=lambda done, _of: ran.append(done),
        )
        assert ran[0] > self.chunk, "it began anew"
        for leaf in whole.leaves:
            xr.testing.assert_identical(cut[leaf.path].to_dataset(), leaf.to_dataset())

    def _whole(self) -> xr.DataTree:
        return es.record(self.model(), self.sequence())

    def _cut(self, store: Path, **options: Any) -> xr.DataTree:
        """Record in chunks, with so little memory that nobody runs the model whole instead."""
        options |= {"store": store, "chunk": self.chunk, "memory": 1000}
        return es.record(self.model(), self.sequence(), **options)
