"""What a worker does: load the model once, record the rows of a shard, write them, say so.

Everything here is called by Dask in other processes. A sequence that cannot be read or recorded
is a message in the shard's mark; what is raised concerns the whole shard.
"""

from collections.abc import Mapping

import numpy as np
import xarray as xr

from everystate import schema
from everystate.errors import (
    EverystateError,
    InputError,
    ReplayMismatchError,
    UncuttableError,
    WeightsError,
)
from everystate.recording.selection import Select
from everystate.scale.batches import batches
from everystate.scale.inputs.source import Sizes, Source, Values
from everystate.scale.job import Job, Target
from everystate.scale.long import record_in_chunks
from everystate.scale.rows import Rows
from everystate.storage.shared.manifest import ShardMark


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
    if sequences:
        made = Rows(job, target, mark, rows, max(map(len, sequences.values())))
        if len(rows) == 1 and _is_long(job, target, sequences[0]):
            _record_long(made, sequences[0])
        else:
            _record_all(made, sequences)
            made.write()
    mark.save(target.root)
    return mark


def _is_long(job: Job, target: Target, sequence: Values) -> bool:
    return len(sequence) * sum(leaf.all_bytes for leaf in target.leaves) > job.batching.bytes


def _record_long(made: Rows, sequence: Values) -> None:
    row = made.rows.start
    try:
        record_in_chunks(made, sequence)
    except (UncuttableError, InputError, ReplayMismatchError) as error:
        made.mark.failed[row] = f"sequence {row}: {error}"


def _fault(found: Values | str, length: int, features: int) -> str | None:
    """Return what is wrong with a sequence that was read."""
    if isinstance(found, str):
        return None
    if found.shape[1] != features:
        return f"has {found.shape[1]} features, the others have {features}"
    if len(found) != length:
        return f"has {len(found)} steps, it had {length} when the recording began"
    return None


def _record_all(made: Rows, sequences: Mapping[int, Values]) -> None:
    """Record sequences, batch by batch; one that the model refuses is named in the mark."""
    job, start = made.job, made.rows.start
    step_bytes = sum(leaf.all_bytes for leaf in made.target.leaves)
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
                    row = start + part[0]
                    made.mark.failed[row] = f"sequence {row}: {_said(error)}"
                continue
            made.take(trace, {k: len(sequences[k]) for k in part})


def _said(error: Exception) -> str:
    return str(error) if isinstance(error, EverystateError) else f"{type(error).__name__}: {error}"
