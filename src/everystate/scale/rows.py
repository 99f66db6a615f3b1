"""`Rows`: what is recorded of a shard, and made of it, until it is written."""

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import xarray as xr

from everystate import schema
from everystate.errors import SelectionError, WeightsError
from everystate.recording.join import worst
from everystate.scale.job import Job, Target
from everystate.storage.shared.manifest import ShardMark
from everystate.storage.shared.reductions import Node, place, write_reductions
from everystate.storage.shared.writing import Leaf, write_rows

Room = dict[str, dict[str, npt.NDArray[Any]]]
"""What is to be written, by group and variable; the first axis is the row."""

ENOUGH: Final = 1 << 10
"""Steps after which a reducer's result is as large as it will be."""


class Rows:
    """The rows of a shard.

    Parameters
    ----------
    job, target
        What is recorded, and where it goes.
    mark : ShardMark
        What is said of the shard; here come the attributes of its layers.
    rows : range
        Its rows.
    longest : int
        Steps of the longest sequence.
    """

    def __init__(
        self, job: Job, target: Target, mark: ShardMark, rows: range, longest: int
    ) -> None:
        self.job, self.target, self.mark, self.rows = job, target, mark, rows
        self._steps = {leaf.path: _room(leaf, len(rows), longest) for leaf in target.leaves}
        self._reduced: Room = {node.path: node.room(len(rows)) for node in target.nodes}

    def take(self, trace: xr.DataTree, lengths: Mapping[int, int]) -> None:
        """Copy what was recorded to its rows, without what is past each one's end.

        Parameters
        ----------
        trace : xarray.DataTree
            Of one call of the model.
        lengths : mapping of int to int
            Which rows of the shard these are, in their order, and the steps of each.
        """
        self.take_attrs(trace)
        made = [self.job.reductions() for _ in lengths]
        for leaf in self.target.leaves:
            found = trace[leaf.path].to_dataset()
            for name in leaf.sample.data_vars:
                values = found[name].transpose(*leaf.sample[name].dims).values
                for k, (row, length) in enumerate(lengths.items()):
                    steps = int(np.searchsorted(leaf.steps, length))
                    part = values[k, :steps] if values.ndim == 3 else values[k]
                    if leaf.full:
                        room = self._steps[leaf.path][str(name)][row]
                        room[: len(part)] = part
                    if values.ndim == 3 and steps:
                        of, first = (leaf.path, str(name)), int(leaf.steps[0])
                        made[k].update(of, part[:, None], first, leaf.sample.attrs)
        for row, each in zip(lengths, made, strict=True):
            self.place(row, each.figures())

    def place(self, row: int, results: Mapping[str, xr.Dataset]) -> None:
        """Keep what was made of a row.

        Raises
        ------
        SelectionError
            If a result is larger than that of `ENOUGH` steps.
        """
        for path, result in results.items():
            for name, room in self._reduced[path].items():
                found, most = result.variables[name].shape, room.shape[1:]
                if any(a > b for a, b in zip(found, most, strict=True)):
                    raise SelectionError(
                        f"{path}: {name} of row {self.rows[row]} has shape {found}, and there is "
                        f"room for {most}, what the reducer made of {ENOUGH:,} steps. Of many "
                        "sequences, let it return arrays that grow no more, NaN at their end."
                    )
            place(result, self._reduced[path], row)

    def take_attrs(self, trace: xr.DataTree) -> None:
        """Note in the mark what a layer's attributes say; they must be of the same weights."""
        for leaf in self.target.leaves:
            attrs = {str(name): value for name, value in trace[leaf.path].attrs.items()}
            if attrs.get("weights_sha256", "") != self.target.weights[leaf.path]:
                raise WeightsError(
                    f"{leaf.path}: load_model() gives other weights each time. Let it load them "
                    "from a file, or set the seed of what is random in it."
                )
            self.mark.attrs[leaf.path] = worst([self.mark.attrs.get(leaf.path, {}), attrs])

    def write(self) -> None:
        """Write all rows."""
        for path, values in self._steps.items():
            write_rows(self.target.root, path, values, self.rows.start)
        self.write_reductions()

    def write_reductions(self) -> None:
        """Write what was made of all rows."""
        for path, values in self._reduced.items():
            write_reductions(self.target.root, path, values, self.rows.start)


def nodes(job: Job, trace: xr.DataTree) -> list[Node]:
    """Return what is made of a sequence: of a recorded one, repeated until it is long enough."""
    made = job.reductions()
    for leaf in trace.leaves:
        for name, array in leaf.data_vars.items():
            if schema.TIME in array.dims:
                few = array.transpose(schema.BATCH, schema.TIME, ...).values[0][:, None]
                many = np.resize(few, (ENOUGH, *few.shape[1:]))
                made.update((leaf.path.strip("/"), str(name)), many, 0, leaf.attrs)
    made.finish()
    return [Node(path, result) for path, result in made.results().items()]


def _room(leaf: Leaf, rows: int, longest: int) -> dict[str, npt.NDArray[Any]]:
    """Return arrays of NaN for the rows of a shard."""
    found = {}
    steps = int(np.searchsorted(leaf.steps, longest))
    for name, variable in leaf.stored.items():
        sizes = {**variable.sizes, schema.BATCH: rows, schema.TIME: steps}
        shape = tuple(sizes[dim] for dim in variable.dims)
        empty = np.nan if variable.dtype.kind == "f" else 0
        found[name] = np.full(shape, empty, variable.dtype)
    return found
