"""A sequence whose states do not fit the memory: recorded in chunks of time, and so written."""

import os
from tempfile import TemporaryDirectory
from typing import Any

import xarray as xr

from everystate import schema
from everystate.scale.batches import stacked
from everystate.scale.inputs.source import Values
from everystate.scale.job import Job, Target
from everystate.storage.shared.writing import Leaf, RowWriter
from everystate.streaming.verbs import record


def record_in_chunks(job: Job, target: Target, sequence: Values, row: int) -> xr.DataTree:
    """Record one sequence by way of a trace on the worker's own disk, and write its row.

    Parameters
    ----------
    job, target
        What is recorded, and where it goes.
    sequence : ndarray, shape (steps, features)
        The sequence.
    row : int
        Its row, which is a shard of its own.

    Returns
    -------
    xarray.DataTree
        The attributes of its layers; no values.

    Raises
    ------
    UncuttableError
        If the model cannot be cut in time.
    """
    x = stacked([sequence], time_first=job.batching.time_first)
    with TemporaryDirectory(prefix="everystate-") as folder:
        place = os.path.join(folder, "run.zarr")
        options: dict[str, Any] = {"store": place, "memory": job.batching.bytes}
        trace = record(job.model, x, select=job.select, **options)
        for leaf in target.leaves:
            for name in leaf.sample.data_vars:
                _copy(trace[leaf.path].to_dataset()[name], leaf, target, row)
        return trace.isel({schema.TIME: slice(0, 0)}).load()


def _copy(values: xr.DataArray, leaf: Leaf, target: Target, row: int) -> None:
    """Write a variable of one row, a file's steps at a time."""
    values = values.transpose(*leaf.sample[values.name].dims)
    with RowWriter(target.root, leaf.path, str(values.name), row) as writer:
        if schema.TIME not in values.dims:
            writer.write(values.values)
            return
        for start in range(0, values.sizes[schema.TIME], writer.file_steps):
            stretch = slice(start, start + writer.file_steps)
            writer.write(values.isel({schema.TIME: stretch}).values)
