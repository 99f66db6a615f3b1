"""What a worker does: load the model once, record the rows of a shard, write them, say so.

Everything here is called by Dask in other processes. A sequence that cannot be read or recorded
is a message in the shard's mark; what is raised concerns the whole shard.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import xarray as xr

from everystate import schema
from everystate.errors import (
    EverystateError,
    InputError,
    ReplayMismatchError,
    UncuttableError,
    WeightsError,
)
from everystate.recording.join import worst
from everystate.recording.selection import Select
from everystate.scale.batches import batches
from everystate.scale.inputs.source import Sizes, Source, Values
from everystate.scale.job import Job, Target
from everystate.scale.long import record_in_chunks
from everystate.storage.shared.manifest import ShardMark
from everystate.storage.shared.writing import Leaf, write_rows

Blocks = dict[str, dict[str, npt.NDArray[Any]]]
"""What is to be written, by layer and variable, each (row, step, unit) or (row, unit)."""


def measure(start: int, source: Source) -> tuple[int, Sizes]:
    """Return the sizes of sequences, behind the place of the first of them."""
    return start, source.sizes()


def sample(job: Job, source: Source) -> xr.DataTree:
    """Record one sequence, to see what the layers are like.

    Raises
    ------
    InputError
        If it cannot be read, or the layers' batch or time are not those of the sequence, or
        padding changes states.
    """
    (sequence,) = source.read()
    if isinstance(sequence, str):
        raise InputError(sequence)
    trace = job.record([sequence])
    for leaf in trace.leaves:
        rows, steps = leaf.sizes.get(schema.BATCH), _steps_read(leaf, len(sequence), job.select)
        if rows != 1 or steps is not None:
            raise InputError(
                f"{leaf.path}: one sequence of {len(sequence)} steps was recorded as batch {rows}, "
                f"time {leaf.sizes.get(schema.TIME)}. Does the model take (time, batch, features)? "
                "Then give Batching(time_first=True). Layers with a time axis of their own cannot "
                "be recorded by record_many: leave them out by select=es.Select(layers=...)."
            )
    if job.batching.pad:
        _check_padding(job, sequence, trace)
    return trace


def _steps_read(leaf: xr.DataTree, steps: int, select: Select) -> int | None:
    """Return how many steps a layer has, if these are not those of the sequence."""
    expected = select.steps(leaf.path.strip("/"), steps)
    found = leaf.sizes.get(schema.TIME)
    return found if found != len(expected) else None


def _check_padding(job: Job, sequence: Values, alone: xr.DataTree) -> None:
    longer = np.concatenate([sequence, sequence[::-1]])
    padded = job.record([sequence, longer])
    for leaf in alone.leaves:
        both_rows = padded[leaf.path].to_dataset()
        for name, values in leaf.data_vars.items():
            both = both_rows[name].values[0]
            both = both[: values.sizes[schema.TIME]] if schema.TIME in values.dims else both
            bound = float(leaf.attrs.get("tolerance", 1e-5))
            if not np.allclose(both, values.values[0], rtol=bound, atol=bound, equal_nan=True):
                raise InputError(
                    f"{leaf.path}: {name} of a sequence changes when it is padded: a step depends "
                    "on later ones or on other rows. Leave out Batching(pad=True); sequences of "
                    "the same length are recorded together all the same."
                )


def record_shard(
    job: Job, target: Target, shard: int, rows: range, lengths: list[int], source: Source
) -> ShardMark:
    """Record the rows of a shard, write them and their mark.

    Parameters
    ----------
    job, target
        What is the same for all.
    shard : int
        Its number.
    rows : range
        Its rows.
    lengths : list of int
        Steps that each was found to have; 0 if it could not be read.
    source : Source
        Their sequences.

    Returns
    -------
    ShardMark
        What was written.
    """
    mark = ShardMark(shard)
    sequences: dict[int, Values] = {}
    names = source.names() or [f"sequence {row}" for row in rows]
    for k, (found, length) in enumerate(zip(source.read(), lengths, strict=True)):
        fault = _fault(found, length, job.features)
        if isinstance(found, str) or fault is not None:
            mark.failed[rows[k]] = f"{names[k]}: {fault}" if fault else str(found)
        elif np.searchsorted(target.leaves[0].steps, length):  # else none of it is selected
            sequences[k] = found
    if len(rows) == 1 and sequences and _is_long(job, target, sequences[0]):
        _record_long(job, target, sequences[0], mark, rows.start)
    elif sequences:
        blocks = _room(target.leaves, len(rows), max(map(len, sequences.values())))
        _record_all(job, target, sequences, blocks, mark, rows.start)
        for path, values in blocks.items():
            write_rows(target.root, path, values, rows.start)
    mark.save(target.root)
    return mark


def _is_long(job: Job, target: Target, sequence: Values) -> bool:
    return len(sequence) * sum(leaf.all_bytes for leaf in target.leaves) > job.batching.bytes


def _record_long(job: Job, target: Target, sequence: Values, mark: ShardMark, row: int) -> None:
    try:
        trace = record_in_chunks(job, target, sequence, row)
    except (UncuttableError, InputError, ReplayMismatchError) as error:
        mark.failed[row] = f"sequence {row}: {error}"
        return
    for leaf in target.leaves:
        _take_attrs(trace, leaf, target, mark)


def _fault(found: Values | str, length: int, features: int) -> str | None:
    """Return what is wrong with a sequence that was read."""
    if isinstance(found, str):
        return None
    if found.shape[1] != features:
        return f"has {found.shape[1]} features, the others have {features}"
    if len(found) != length:
        return f"has {len(found)} steps, it had {length} when the recording began"
    return None


def _room(leaves: list[Leaf], rows: int, longest: int) -> Blocks:
    """Return arrays of NaN for the rows of a shard."""
    found: Blocks = {}
    for leaf in leaves:
        steps = int(np.searchsorted(leaf.steps, longest))
        found[leaf.path] = {}
        for name, variable in leaf.sample.data_vars.items():
            sizes = {**variable.sizes, schema.BATCH: rows, schema.TIME: steps}
            shape = tuple(sizes[dim] for dim in variable.dims)
            empty = np.nan if variable.dtype.kind == "f" else 0
            found[leaf.path][str(name)] = np.full(shape, empty, variable.dtype)
    return found


def _record_all(
    job: Job,
    target: Target,
    sequences: Mapping[int, Values],
    blocks: Blocks,
    mark: ShardMark,
    start: int,
) -> None:
    """Record sequences, batch by batch; one that the model refuses is named in the mark."""
    step_bytes = sum(leaf.all_bytes for leaf in target.leaves)
    most = max(1, job.batching.bytes // step_bytes)
    for batch in batches({k: len(a) for k, a in sequences.items()}, job.batching, most):
        parts = [batch]
        while parts:
            part = parts.pop()
            try:
                trace = job.record([sequences[k] for k in part])
            except (WeightsError, MemoryError, OSError):  # no fault of the sequence
                raise
            except Exception as error:
                if len(part) > 1:  # find out which one it is
                    parts += [[k] for k in part]
                else:
                    mark.failed[start + part[0]] = f"sequence {start + part[0]}: {_said(error)}"
                continue
            _place(trace, target, {k: len(sequences[k]) for k in part}, blocks, mark)


def _said(error: Exception) -> str:
    return str(error) if isinstance(error, EverystateError) else f"{type(error).__name__}: {error}"


def _place(
    trace: xr.DataTree,
    target: Target,
    lengths: dict[int, int],
    blocks: Blocks,
    mark: ShardMark,
) -> None:
    """Copy what was recorded to its rows, without what is past each one's end."""
    for leaf in target.leaves:
        _take_attrs(trace, leaf, target, mark)
        found = trace[leaf.path].to_dataset()
        for name, room in blocks[leaf.path].items():
            values = found[name].transpose(*leaf.sample[name].dims).values
            for k, (row, length) in enumerate(lengths.items()):
                if room.ndim == 3:
                    steps = int(np.searchsorted(leaf.steps, length))
                    room[row, :steps] = values[k, :steps]
                else:
                    room[row] = values[k]


def _take_attrs(trace: xr.DataTree, leaf: Leaf, target: Target, mark: ShardMark) -> None:
    """Note in the mark what a layer's attributes say; they must be of the same weights."""
    attrs = {str(name): value for name, value in trace[leaf.path].attrs.items()}
    if attrs.get("weights_sha256", "") != target.weights[leaf.path]:
        raise WeightsError(
            f"{leaf.path}: load_model() gives other weights each time. Let it load them from "
            "a file, or set the seed of what is random in it."
        )
    mark.attrs[leaf.path] = worst([mark.attrs.get(leaf.path, {}), attrs])
