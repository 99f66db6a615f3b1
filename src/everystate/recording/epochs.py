"""What the callbacks of training share: what they are given, and which epochs they record."""

import os
from pathlib import Path
from typing import Any

import xarray as xr

import everystate as es
from everystate.errors import SelectionError, TraceWriteError
from everystate.recording.selection import Select


class Epochs:
    """What a callback of training records, when, and where to; a base class beside its framework's.

    Attributes
    ----------
    inputs : tuple
        What the model is called with.
    select : Select or None
        What to record of it.
    """

    def __init__(
        self,
        x: Any,
        store: str | os.PathLike[str],
        every: int = 1,
        select: Select | None = None,
        overwrite: bool = False,
    ) -> None:
        """Say what to record, when, and where to.

        Parameters
        ----------
        x : array, or list or tuple of arrays
            The probe: what the model is called with, the same in every epoch. Arrays or tensors
            of the framework.
        store : path
            The Zarr store, by custom ``*.zarr``, for `everystate.open_trace`. It is complete after
            each epoch that is recorded, so a training that is stopped loses none of these.
        every : int, default 1
            Record the epochs 0, `every`, 2 * `every`, ...
        select : Select, optional
            Which layers, variables, units and steps. None: all states and gates.
        overwrite : bool, default False
            Replace an older store, once the first epoch is recorded.

        Raises
        ------
        SelectionError
            If `every` is no whole number, 1 or more.
        TraceWriteError
            If there is something at `store` already, and not `overwrite`; before the training
            starts.
        """
        super().__init__()
        if type(every) is not int or every < 1:
            raise SelectionError(f"every={every!r}: expected a whole number of epochs, 1 or more.")
        self._store, self._every, self._overwrite = Path(store), every, overwrite
        if not overwrite:
            _check_free(self._store)
        self.inputs = tuple(x) if isinstance(x, list | tuple) else (x,)
        self.select = select

    def wants(self, epoch: int) -> bool:
        """Whether an epoch, counted from 0, is to be recorded."""
        return epoch % self._every == 0

    def add(self, epoch: int, trace: xr.DataTree) -> None:
        """Write the trace of an epoch, the first one in the place of an older store; empty it."""
        es.save_epoch(trace, self._store, epoch, overwrite=self._overwrite)
        self._overwrite = False
        # Nodes of a tree refer to each other: else its arrays would stay until some later day on
        # which garbage is collected.
        for node in trace.subtree:
            node.dataset = xr.Dataset()


def _check_free(path: Path) -> None:
    """Raise `TraceWriteError` before a training that would find its place taken."""
    if path.exists() and not (path.is_dir() and not any(path.iterdir())):
        raise TraceWriteError(
            f"{path}: the path is taken. Choose another, or replace what is there: overwrite=True."
        )
