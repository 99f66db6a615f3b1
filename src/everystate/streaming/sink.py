"""Where recorded steps go: a trace on disk that grows, or reductions that do not."""

import copy
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr

from everystate.errors import InputError, SelectionError
from everystate.recording.replay import Recorded
from everystate.recording.trace import Labels, build_leaf, leaf_path, root_attrs
from everystate.storage import open_trace
from everystate.storage.append import TraceAppender
from everystate.storage.carried import Carried
from everystate.storage.lossy import ERROR, Stored, encoded
from everystate.storage.place import Place


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
    """

    model: str
    framework: str
    layers: Sequence[str]
    labels: tuple[Labels, Labels] = (None, None)
    total: Callable[[str], int | None] = lambda path: None
    block: int | None = None
    stored_as: Stored | None = None


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
    """

    def __init__(self, place: Place, outline: Outline, commits_itself: bool = False) -> None:
        check_labels(outline.labels[0])
        self.place, self.outline = place, outline
        self.appender = TraceAppender(place, root_attrs(outline.model, [outline.framework]))
        self.commits_itself = commits_itself

    def take(self, recorded: Recorded) -> None:
        """Take further steps of one layer; blocks that they complete are written."""
        group = f"/{leaf_path(recorded.path, self.outline.layers)}"
        leaf = self._kept(group, build_leaf(recorded, *self.outline.labels))
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

    def commit(self, step: int, arrays: list[Any], facts: Mapping[str, Any]) -> None:
        """Make everything taken so far count, with what is needed to go on from there."""
        self.appender.commit(Carried(step, self.appender.rows(), arrays, facts))

    def finish(self) -> None:
        """Complete the trace."""
        self.appender.finish()

    def result(self) -> xr.DataTree:
        """Return the trace as far as it has come, from the disk."""
        self.flush()
        return open_trace(self.appender.folder, incomplete="trim")


class Reductions:
    """Makes something small of the steps: one reducer for each variable of each layer.

    Parameters
    ----------
    reduce : reducer, or several, or a mapping by name
        Each with ``update(block, first_step)``, the block of shape (time, batch, unit), and
        ``result() -> xarray.Dataset``; or a callable that returns one.
    outline : Outline
        What is known of the recording.
    every : int
        How many steps each recorded one is apart from the next; a reducer whose ``update`` has
        no argument of that name can be fed every step only.
    """

    def __init__(self, reduce: Any, outline: Outline, every: int = 1) -> None:
        self.outline = outline
        self.makers = {name: _maker(name, given) for name, given in _named(reduce).items()}
        self.reducers: dict[tuple[str, str, str], Any] = {}
        self._apart = {"every": every} if every > 1 else {}

    def take(self, recorded: Recorded) -> None:
        """Update the reducers of one layer."""
        if not recorded.steps.size:
            return
        for variable, block in recorded.variables.items():
            for name, make in self.makers.items():
                key = leaf_path(recorded.path, self.outline.layers), variable, name
                if key not in self.reducers:
                    self.reducers[key] = make()
                self.reducers[key].update(block, int(recorded.steps[0]), **self._apart)

    def flush(self) -> None:
        """Do nothing: the results are always those of all steps."""

    def finish(self) -> None:
        """Do nothing: the results are always those of all steps."""

    def result(self) -> xr.DataTree:
        """Return every reducer's result, at ``layer/variable/name``."""
        nodes = {"/".join(key): reducer.result() for key, reducer in self.reducers.items()}
        root = xr.Dataset(attrs={"model": self.outline.model})
        return xr.DataTree.from_dict({"/": root, **nodes})


def _named(reduce: Any) -> Mapping[str, Any]:
    if isinstance(reduce, Mapping):
        return reduce
    several = list(reduce) if isinstance(reduce, Iterable) else [reduce]
    named = {}
    for given in several:
        kind = given if isinstance(given, type) else type(given)
        named[getattr(given, "__name__", kind.__name__).lower()] = given
    if len(named) < len(several):
        raise SelectionError("reduce= has several of one kind. Name them: reduce={'name': ...}.")
    return named


def _maker(name: str, given: Any) -> Callable[[], Any]:
    """Return what makes a new reducer of a kind, from a class, a function or an example."""
    if hasattr(given, "update") and not isinstance(given, type):
        return lambda: copy.deepcopy(given)
    if callable(given):
        made: Callable[[], Any] = given
        return made
    raise SelectionError(
        f"reduce={name!r} is a {type(given).__name__}: expected a reducer, which has "
        "update(block, first_step) and result(), or what makes one."
    )


def check_labels(labels: Labels) -> None:
    """Raise `InputError` if labels of the steps cannot be written step by step."""
    if labels is not None and np.asarray(labels).dtype.kind not in "biufM":
        raise InputError(
            "time= holds texts or objects, which cannot be written step by step. Label the steps "
            "of a stream by numbers or NumPy datetimes."
        )
