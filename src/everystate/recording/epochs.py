"""The same probe through training: one trace an epoch, all of them in one, along ``epoch``."""

import os
from pathlib import Path
from typing import Any

import xarray as xr

from everystate import schema
from everystate.errors import SelectionError, TraceWriteError
from everystate.recording.join import worst
from everystate.recording.selection import Select


class Epochs:
    """What a callback of training records, when, and where to; gathers the traces.

    All of them are held, and the store is written whole after each epoch: what is appended to a
    trace grows along ``time`` alone, and a probe is small.

    Parameters
    ----------
    x : array, or list or tuple of arrays
        The probe: what the model is called with.
    store : path
        Where the trace goes.
    every : int
        Record each `every`-th epoch, from the first on.
    select : Select, optional
        Which layers, variables, units and steps. None: all states and gates.
    overwrite : bool
        Whether an older store may be replaced.

    Raises
    ------
    SelectionError
        If `every` is no whole number of epochs, 1 or more.
    TraceWriteError
        If there is something at `store` already, and not `overwrite`.
    """

    def __init__(
        self,
        x: Any,
        store: str | os.PathLike[str],
        every: int = 1,
        select: Select | None = None,
        overwrite: bool = False,
    ) -> None:
        if type(every) is not int or every < 1:
            raise SelectionError(f"every={every!r}: expected a whole number of epochs, 1 or more.")
        _check_free(store, overwrite=overwrite)
        self.inputs = tuple(x) if isinstance(x, (list, tuple)) else (x,)
        self.store, self.every, self.select = store, every, select
        self._traces: dict[int, xr.DataTree] = {}

    def wants(self, epoch: int) -> bool:
        """Whether an epoch, counted from 0, is to be recorded."""
        return epoch % self.every == 0

    def joined(self, epoch: int, trace: xr.DataTree) -> xr.DataTree:
        """Take the trace of one epoch and return all there are in one, along ``epoch``.

        Parameters
        ----------
        epoch : int
            Counted from 0.
        trace : xarray.DataTree
            What the probe gave; of the same layers, rows and steps in every epoch.

        Returns
        -------
        xarray.DataTree
            Each variable has ``epoch`` as its first dimension.
        """
        self._traces[epoch] = trace
        leaves = {leaf.path: self._leaf(leaf.path) for leaf in trace.leaves}
        return xr.DataTree.from_dict({"/": xr.Dataset(attrs=trace.attrs), **leaves})

    def _leaf(self, path: str) -> xr.Dataset:
        found = [trace[path].to_dataset() for trace in self._traces.values()]
        epochs = xr.Variable(schema.EPOCH, list(self._traces), {"long_name": "epoch, from 0"})
        joined = xr.concat(
            found,
            xr.DataArray(epochs, name=schema.EPOCH, coords={schema.EPOCH: epochs}),
            data_vars="all",
            coords="minimal",
            compat="equals",
            join="exact",
        )
        attrs: dict[str, Any] = worst([part.attrs for part in found])
        attrs.pop("weights_sha256", None)  # each epoch has its own
        joined.attrs = attrs
        return joined


def _check_free(store: str | os.PathLike[str], *, overwrite: bool) -> None:
    """Raise `TraceWriteError` before a training whose store would replace what is there."""
    path = Path(store)
    if overwrite or not path.exists() or (path.is_dir() and not any(path.iterdir())):
        return
    raise TraceWriteError(
        f"{path}: the path is taken. Choose another, or replace what is there with overwrite=True."
    )
