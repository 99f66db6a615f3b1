"""`TraceSink`: where recorded steps go, a trace on disk that grows."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import xarray as xr

from everystate.errors import InputError
from everystate.recording.replay import Recorded
from everystate.recording.trace import Labels, build_leaf, leaf_path, root_attrs
from everystate.storage import open_trace
from everystate.storage.append import TraceAppender
from everystate.storage.carried import Carried
from everystate.storage.lossy import ERROR, Stored, encoded
from everystate.storage.place import Place
from everystate.storage.reductions import save_reductions
from everystate.streaming.recorder import Sink


@dataclass(frozen=True, eq=False)
class Outline:
    """What is known of a trace before its first step.

    Parameters
    ----------
    model, framework : str
        As in the trace's attributes.
    layers : sequence of str
        Leaf paths of all layers.
    labels : tuple of two array-like, optional
        Labels of all steps, and of all rows.
    total : callable
        Takes a layer's path; returns its steps to record in all, None if nobody knows.
    block : int, optional
        Steps that are written together at most.
    stored_as : {"float16", "bfloat16", "int8"}, optional
        How numbers are kept. None: as they are.
    full : bool
        Whether the steps themselves are stored. False: what is made of them alone.
    """

    model: str
    framework: str
    layers: Sequence[str]
    labels: tuple[Labels, Labels] = (None, None)
    total: Callable[[str], int | None] = lambda path: None
    block: int | None = None
    stored_as: Stored | None = None
    full: bool = True


class TraceSink:
    """Writes the steps to a trace on disk.

    Parameters
    ----------
    place : Place
        Where the trace shall be.
    outline : Outline
        What is known of the trace.
    commits_itself : bool
        Whether complete blocks count at once, because nobody says when a chunk is complete.
    reductions : Sink, optional
        What is made of the steps; its result is stored too, in the end.
    """

    def __init__(
        self,
        place: Place,
        outline: Outline,
        commits_itself: bool = False,
        reductions: Sink | None = None,
    ) -> None:
        check_labels(outline.labels[0])
        self.place, self.outline, self.reductions = place, outline, reductions
        self.appender = TraceAppender(place, root_attrs(outline.model, [outline.framework]))
        self.commits_itself = commits_itself
        self.last: Carried | None = None
        """What is needed to go on from the end, should the recording be stopped there yet."""
        self._begun = place.resumed is not None

    def take(self, recorded: Recorded) -> None:
        """Take further steps of one layer; blocks that they complete are written."""
        self._begun = True
        if not self.outline.full:
            return
        group = f"/{leaf_path(recorded.path, self.outline.layers)}"
        leaf = self._kept(group, build_leaf(recorded, *self.outline.labels, indexed=False))
        total = self.outline.total(recorded.path)
        completed = self.appender.append(group, leaf, total, self.outline.block)
        if completed and self.commits_itself:
            self.appender.commit(begun=False)

    def _kept(self, group: str, leaf: xr.Dataset) -> xr.Dataset:
        """Return a leaf with the numbers to store, and the largest error that this has cost."""
        if self.outline.stored_as is None:
            return leaf
        kept = encoded(leaf, self.outline.stored_as)
        before = self.appender.mark.attrs.get(group, {})
        errors = {name: e for name, e in kept.attrs.items() if name.startswith(ERROR)}
        return kept.assign_attrs({name: max(e, before.get(name, 0)) for name, e in errors.items()})

    def flush(self) -> None:
        """Make everything taken so far readable."""
        self.appender.commit()

    def commit(self, carried: Carried) -> None:
        """Make everything taken so far count, with what is needed to go on from there."""
        if self._begun:
            self.appender.commit(carried)

    def finish(self) -> None:
        """Complete the trace."""
        if self.reductions is not None:
            save_reductions(self.reductions.result(), self.place.folder)
        self.appender.finish(self.last)

    def result(self) -> xr.DataTree:
        """Return the trace as far as it has come, from the disk."""
        self.flush()
        return open_trace(self.appender.folder, incomplete="trim")


def check_labels(labels: Labels) -> None:
    """Raise `InputError` if labels of the steps cannot be written step by step."""
    if labels is not None and np.asarray(labels).dtype.kind not in "biufM":
        raise InputError(
            "time= holds texts or objects, which cannot be written step by step. Label the steps "
            "of a stream by numbers or NumPy datetimes."
        )
