"""A sequence whose states do not fit the memory: recorded in chunks of time, and so written."""

import os
from tempfile import TemporaryDirectory
from typing import Any

import xarray as xr

from everystate import schema
from everystate.scale.batches import stacked
from everystate.scale.inputs.source import Values
from everystate.scale.job import Target
from everystate.scale.rows import Rows
from everystate.storage import open_trace
from everystate.storage.shared.writing import Leaf, RowWriter
from everystate.streaming.verbs import record


def record_in_chunks(made: Rows, sequence: Values) -> None:
    """Record one sequence by way of a trace on the worker's own disk, and write its row.

    Parameters
    ----------
    made : Rows
        The one row, which is a shard of its own.
    sequence : ndarray, shape (steps, features)
        The sequence.

    Raises
    ------
    UncuttableError
        If the model cannot be cut in time.
    """
    job, target = made.job, made.target
    x = stacked([sequence], time_first=job.batching.time_first)
    options: dict[str, Any] = {"select": job.select, "memory": job.batching.bytes}
    options |= {"reduce": job.reduce} if target.nodes else {}
    with TemporaryDirectory(prefix="everystate-") as folder:
        if job.full:
            options["store"] = os.path.join(folder, "run.zarr")
        found = record(job.model, x, **options)
        made.take_attrs(found)
        if job.full:
            trace = open_trace(options["store"])
            for leaf in target.leaves:
                for name in leaf.sample.data_vars:
                    _copy(trace[leaf.path].to_dataset()[name], leaf, target, made.rows.start)
    if target.nodes:
        made.place(0, {node.path: found[node.path].to_dataset() for node in target.nodes})
        made.write_reductions()


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
