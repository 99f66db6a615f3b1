"""`Run`: one call of `record_many`, step by step: measure, prepare, record, complete."""

from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import numpy as np
import xarray as xr

from everystate import schema
from everystate.errors import (
    EverystateError,
    InputError,
    SelectionError,
    TraceWriteError,
)
from everystate.recording.join import worst
from everystate.recording.selection import Select
from everystate.recording.warning import warn
from everystate.scale.cluster import Call, Failure, spread
from everystate.scale.inputs.source import Sizes, Source, digest
from everystate.scale.job import Job, Target
from everystate.scale.options import Batching
from everystate.scale.recognise import Recognised, sampled, some, told_apart
from everystate.scale.result import Progress, Recorded
from everystate.scale.rows import nodes
from everystate.scale.worker import measure, record_shard
from everystate.storage.shared.grid import shard_rows
from everystate.storage.shared.manifest import Plan, ShardMark, load_marks
from everystate.storage.shared.reductions import lay_out_reductions, root_of
from everystate.storage.shared.root import Root
from everystate.storage.shared.writing import (
    Leaf,
    complete,
    coordinate,
    grow,
    lay_out,
    set_coordinate,
)

MEASURED_AT_ONCE = 64
"""Files that a worker opens in one call, to see their sizes."""

SHOWN = 5
"""Sequences that failed are named in a message up to this number."""


class Run:
    """One call of `record_many`.

    Parameters
    ----------
    client : distributed.Client
        The cluster.
    source : Source
        The sequences.
    root : Root
        The trace's place, which is taken.
    plan : Plan, optional
        What was begun there.
    """

    def __init__(self, client: Any, source: Source, root: Root, plan: Plan | None) -> None:
        self.client, self.source, self.root = client, source, root
        self.id = uuid4().hex[:8]
        self.names = source.names()
        self.old = plan if plan is not None and plan.laid_out else None
        self.marks = load_marks(root) if self.old is not None else {}
        self.inputs = ""
        self.unreadable: dict[int, str] = {}
        self.steps = np.zeros(source.count, dtype=np.int64)
        self.features = 0

    def name(self, row: int) -> str:
        """Return what a sequence is called."""
        return f"sequence {row}" if self.names is None else self.names[row]

    def measure(self) -> None:
        """Find out steps and features of all sequences that are not done.

        Raises
        ------
        InputError
            If not one can be read.
        TraceWriteError
            If what was begun at the place is of other inputs.
        """
        self.inputs = digest(self.source)
        if self.old is not None:
            self._check_inputs(self.old)
            self._remember(self.old)
        sizes = self._sizes()
        known = sizes.features[sizes.features > 0]
        if not known.size and not self.steps.any():
            reason = next(iter(sizes.faults.values()))
            raise InputError(f"none of {self.source.count} sequences can be read. {reason}.")
        self.features = self.features or int(np.bincount(known).argmax())
        good = sizes.features == self.features
        self.steps = np.where(good, sizes.steps, self.steps)
        odd = np.flatnonzero(~good & (sizes.features > 0)).tolist()
        self.unreadable = sizes.faults | {
            row: f"{self.name(row)}: has {sizes.features[row]} features, the others have "
            f"{self.features}"
            for row in odd
        }

    def _check_inputs(self, plan: Plan) -> None:
        if plan.inputs != self.inputs:
            raise TraceWriteError(
                f"{self.root}: {plan.rows} sequences were begun to be recorded here, and the "
                f"{self.source.count} given now are others, by name, number or size. Give the same "
                "ones to go on, or choose another place."
            )

    def _remember(self, plan: Plan) -> None:
        """Take the steps of what is done from the trace: it need not be opened again."""
        self.features = plan.features
        known = coordinate(self.root, next(iter(plan.variables)), schema.LENGTH)
        for shard, mark in self.marks.items():
            rows = [row for row in plan.rows_of(shard) if row not in mark.failed]
            self.steps[rows] = known[rows]

    def _sizes(self) -> Sizes:
        """Return the sizes of the sequences that are not known, 0 for the others."""
        if self.source.cheap:
            return self.source.sizes()
        count = self.source.count
        found = Sizes(np.zeros(count, dtype=np.int64), np.zeros(count, dtype=np.int64))

        def take(measured: tuple[int, Sizes]) -> None:
            start, sizes = measured
            stop = start + len(sizes.steps)
            found.steps[start:stop], found.features[start:stop] = sizes.steps, sizes.features
            found.faults.update({start + k: fault for k, fault in sizes.faults.items()})

        for failure in spread(self.client, self._measuring(), take):
            raise failure.error
        return found

    def _measuring(self) -> Iterator[Call]:
        unknown = np.flatnonzero(self.steps == 0)
        runs = np.split(unknown, np.flatnonzero(np.diff(unknown) > 1) + 1)
        for run in runs:
            for k in range(0, len(run), MEASURED_AT_ONCE):
                start, stop = int(run[k]), int(run[k : k + MEASURED_AT_ONCE][-1]) + 1
                name, key = f"reading {self.name(start)} and others", f"measure-{self.id}-{start}"
                yield Call(name, key, measure, (start, self.source.part(start, stop)))

    def prepare(self, job: Job) -> None:
        """Plan the shards and lay out the trace, or see that what was begun is the same.

        Raises
        ------
        TraceWriteError
            If what was begun at the place has other options, weights or values.
        """
        select, batching, options = job.select, job.batching, job.described
        if self.old is not None and self.old.options != options:
            raise TraceWriteError(
                f"{self.root}: was begun with {self.old.options}; now there is {options}. Give the "
                "same options to go on, or choose another place."
            )
        self.job = self._shared(job, "job")
        self.plan = self.old or Plan(self.source.count, 1, self.inputs, options, self.features)
        self.leaves: list[Leaf] = []
        if self.old is not None and self.old.answer:
            told = told_apart(self.client, self.old.answer, self.job, self.source, self.id)
            if told is not None:
                raise TraceWriteError(
                    f"{self.root}: {told} Record with the same to go on, or choose another place."
                )
        if self.old is not None and not self.pending():
            return
        if select.counts_from_end and len(set(self.steps[self.steps > 0])) > 1:
            raise SelectionError(
                f"window={select.window!r} counts from the end, which is not the same step in "
                f"sequences of {self.steps[self.steps > 0].min()} to {self.longest} steps."
            )
        trace = self._sample(select)
        self.leaves = [
            Leaf(
                node.path.strip("/"),
                node.to_dataset(),
                np.asarray(select.steps(node.path.strip("/"), self.longest)),
                job.full,
            )
            for node in trace.leaves
        ]
        self.nodes = nodes(job, trace)
        weights = {leaf.path: leaf.sample.attrs.get("weights_sha256", "") for leaf in self.leaves}
        if self.old is None:
            self._lay_out(trace, weights, batching)
        elif self.old.weights != weights:
            raise TraceWriteError(
                f"{self.root}: was begun with other weights of the model. Record with the same "
                "model to go on, or choose another place."
            )
        elif self.longest > self._room():
            for leaf in self.leaves:
                grow(self.root, leaf)
        self.target = self._shared(Target(self.root, self.leaves, weights, self.nodes), "target")

    @property
    def longest(self) -> int:
        """Steps of the longest sequence."""
        return int(self.steps.max())

    def _room(self) -> int:
        """Return for how many steps the trace was laid out."""
        known = coordinate(self.root, next(iter(self.plan.variables)), schema.TIME)
        return int(known[-1]) + 1 if len(known) else 0

    def _shared(self, value: Any, name: str) -> Any:
        """Return a future of a value: made again where a worker that held it died."""
        key = f"{name}-{self.id}"
        return self.client.submit(_same, value, key=key, pure=False)

    def _sample(self, select: Select) -> xr.DataTree:
        """Record the shortest sequence that has two steps, one of them selected."""
        selected = select.steps("", self.longest)
        enough = self.steps > max(selected.start, 1)
        steps = np.where(enough, self.steps, np.iinfo(np.int64).max)
        row = int(steps.argmin()) if enough.any() else int(self.steps.argmax())
        part = self.source.part(row, row + 1)
        found: list[tuple[xr.DataTree, Recognised]] = []
        call = Call(self.name(row), f"sample-{self.id}", sampled, (self.job, part, row))
        spread(self.client, [call], found.append)
        trace, now = found[0]
        if not self.plan.answer:
            now.others = some(self.client, self.source, self.id)
            self.plan.answer = now.fields
        return trace

    def _lay_out(self, trace: xr.DataTree, weights: dict[str, str], batching: Batching) -> None:
        rows = self.source.count
        self.plan.shard_rows = batching.rows or self._shard_rows(batching)
        self.plan.weights = weights
        self.plan.variables = {leaf.path: [*leaf.stored] for leaf in self.leaves}
        self.plan.reductions = [node.path for node in self.nodes]
        for name in self.root.names(""):
            self.root.remove(name)
        self.plan.save(self.root)
        said = {"long_name": schema.LONG_NAMES[schema.LENGTH]}
        batch = {
            schema.BATCH: xr.Variable(schema.BATCH, np.arange(rows)),
            schema.LENGTH: xr.Variable(schema.BATCH, self.steps, said),
        }
        if self.names is not None:
            names = np.array(self.names, dtype=object)
            batch["source"] = xr.Variable(schema.BATCH, names, {"long_name": "name of the input"})
        attrs = {str(name): value for name, value in trace.attrs.items()}
        lay_out(self.root, attrs, self.leaves, batch, self.plan.shard_rows)
        if self.nodes:
            lay_out_reductions(self.root, attrs, self.nodes, batch, self.plan.shard_rows)
        self.plan.laid_out = True
        self.plan.save(self.root)

    def _shard_rows(self, batching: Batching) -> int:
        """Return how many rows a worker records before it writes them."""
        widest = max(leaf.step_bytes for leaf in self.leaves)
        row_bytes = sum(leaf.all_bytes for leaf in self.leaves) * self.longest
        fit = max(1, batching.bytes // row_bytes)
        return min(shard_rows(widest, self.longest, self.source.count), fit)

    def pending(self) -> list[int]:
        """Return the shards without a mark, and those of which more can be read than before."""
        return [
            shard
            for shard in range(self.plan.shards)
            if shard not in self.marks or any(self.steps[row] for row in self.marks[shard].failed)
        ]

    def record(self, progress: Progress) -> Recorded:
        """Record what is missing, and complete the trace."""
        pending = self.pending()
        rows_left = sum(len(self.plan.rows_of(shard)) for shard in pending)
        self._told = self.source.count - rows_left
        progress(self._told, self.source.count)

        def done(mark: ShardMark) -> None:
            self.marks[mark.shard] = mark
            self._told += len(self.plan.rows_of(mark.shard))
            progress(self._told, self.source.count)

        failures = spread(self.client, self._calls(pending), done)
        left = [shard for shard in range(self.plan.shards) if shard not in self.marks]
        if failures or left:
            raise self._stopped(failures[0], len(left))
        if pending:
            self._complete()
        return self._recorded(len(pending))

    def _calls(self, shards: list[int]) -> Iterator[Call]:
        for shard in shards:
            rows = self.plan.rows_of(shard)
            lengths = self.steps[rows.start : rows.stop].tolist()
            part = self.source.part(rows.start, rows.stop)
            yield Call(
                f"sequences {rows.start} to {rows.stop - 1}",
                f"record-{self.id}-{shard}",
                record_shard,
                (self.job, self.target, shard, rows, lengths, part),
            )

    def _stopped(self, failure: Failure, left: int) -> Exception:
        kind = type(failure.error)
        kind = kind if issubclass(kind, EverystateError) else TraceWriteError
        done = f"{self.plan.shards - left} of {self.plan.shards} shards are done"
        return kind(
            f"{failure.name}: {_bare(failure.error)}. {done}; call record_many once more, with the "
            "same arguments, for the rest."
        )

    def _complete(self) -> None:
        failed = [row for mark in self.marks.values() for row in mark.failed]
        lengths = self.steps.copy()
        lengths[failed] = 0
        attrs: dict[str, dict[str, Any]] = {}
        for mark in self.marks.values():
            for path, said in mark.attrs.items():
                attrs[path] = worst([attrs.get(path, {}), said])
        for path in self.plan.variables:
            set_coordinate(self.root, path, schema.LENGTH, lengths)
        if self.plan.reductions:
            set_coordinate(root_of(self.root), "", schema.LENGTH, lengths)
        complete(self.root, attrs | {"/": {"failed_sequences": len(failed)}})

    def _recorded(self, shards: int) -> Recorded:
        reasons = {row: why for mark in self.marks.values() for row, why in mark.failed.items()}
        reasons |= {row: why for row, why in self.unreadable.items() if row in reasons}
        failed = {self.name(row): reasons[row] for row in sorted(reasons)}
        if failed:
            more = f" and {len(failed) - SHOWN} more" if len(failed) > SHOWN else ""
            said = "; ".join(map(_bare, [*failed.values()][:SHOWN]))
            warn(
                f"{len(failed)} of {self.source.count} sequences could not be recorded: "
                f"{said}{more}. All others are in {self.root}."
            )
        return Recorded(str(self.root), self.source.count, shards, failed)


def _bare(said: object) -> str:
    """Return a message without its full stop."""
    return str(said).rstrip(".")


def _same(value: Any) -> Any:
    return value
