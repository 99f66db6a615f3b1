"""Watching a cell that a model calls in a loop of its own: each call is a step.

A decoder that reads what it wrote calls its cell once for each step and hands the state on. A call
that starts from where a sequence has come to goes on with it. So does one whose state was edited
in between, by attention say, unless it starts afresh: from zeros, or from where the sequence began.
"""

import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import wraps
from typing import Any

import numpy as np
import numpy.typing as npt
from keras import tree

from everystate.errors import EverystateError
from everystate.frameworks.keras.backend import (
    Tensor,
    computed_in,
    flat,
    is_compiled,
    is_described,
    native,
)
from everystate.frameworks.keras.kinds import (
    OUTPUT,
    equations,
    is_replayable,
    kind_of,
    state_names,
    weights_of,
)
from everystate.frameworks.keras.observations import without_repeated
from everystate.frameworks.keras.replacing import replaced
from everystate.recording.observation import Observation
from everystate.recording.recorder import Recorder

States = list[npt.NDArray[Any]]


@dataclass(eq=False)
class _Line:
    """What a cell has done so far in one sequence: of each step, its input, states and output."""

    inputs: list[Any] = field(default_factory=list)
    before: list[States] = field(default_factory=list)
    after: list[States] = field(default_factory=list)
    outputs: list[Any] = field(default_factory=list)
    dropped: bool = False
    """Whether dropout was active, which changes what the cell works with."""

    def ends_with(self, states: States) -> bool:
        return _equal(self.after[-1], states)

    def may_go_on(self, states: States) -> bool:
        """Whether states may be those that it has come to, edited."""
        like = [a.shape for a in states] == [a.shape for a in self.before[0]]
        return like and any(a.any() for a in states) and not _equal(self.before[0], states)


class CellWatcher:
    """Watches one cell for a recorder, outside of the loops of layers."""

    def __init__(self, path: str, cell: Any, recorder: Recorder, owned: bool) -> None:
        self.path, self.layer, self.recorder, self.owned = path, cell, recorder, owned
        self.own = cell.call
        self.called = owned
        """Whether it was called; one that a layer has too need not be."""
        self.compiled = False
        self._paused = False
        self._lines: list[_Line] = []

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Watch the cell as long as a block lasts."""
        self.recorder.pending.append(self.hand_over)
        try:
            with replaced(self.layer, "call", self._call):
                yield
        except BaseException:
            with suppress(EverystateError):  # keep what there is; the user's own error goes first
                self.hand_over()
            raise
        else:
            self.hand_over()
        finally:
            self.recorder.pending.remove(self.hand_over)

    def paused(self, call: Callable[..., Any]) -> Callable[..., Any]:
        """Return the `call` of a layer that loops over the cell itself, which is not seen."""

        @wraps(call)
        def run(*args: Any, **kwargs: Any) -> Any:
            outer, self._paused = self._paused, True
            try:
                return call(*args, **kwargs)
            finally:
                self._paused = outer

        return run

    def _call(self, *args: Any, **kwargs: Any) -> Any:
        result = self.own(*args, **kwargs)
        given = inspect.signature(self.own).bind(*args, **kwargs).arguments
        x, *rest = given.values()
        if self._paused or is_described(x):
            return result
        if is_compiled(x):
            self.compiled = True
            return result
        self.called = True
        if rest and isinstance(result, tuple | list) and len(result) == 2:  # else it is no cell
            output, after = result
            self._add(x, rest[0], output, after, bool(given.get("training")))
        return result

    def _add(self, x: Tensor, states: Any, output: Tensor, after: Any, training: bool) -> None:
        before = [_row(a) for a in tree.flatten(states)]
        line = self._line(before)
        line.inputs.append(_row(x))
        line.before.append(before)
        line.after.append([_row(a) for a in tree.flatten(after)])
        line.outputs.append(_row(output))
        cell = self.layer
        drops = getattr(cell, "dropout", 0) or getattr(cell, "recurrent_dropout", 0)
        line.dropped |= bool(training and drops)

    def _line(self, before: States) -> _Line:
        """Return the sequence that a call which starts from these states belongs to."""
        for line in self._lines:
            if line.ends_with(before):
                return line
        if len(self._lines) == 1 and self._lines[0].may_go_on(before):
            return self._lines[0]
        self._lines.append(_Line())
        return self._lines[-1]

    def hand_over(self) -> None:
        """Hand over the sequences so far: those of one call of the model."""
        lines, self._lines = self._lines, []
        for line in lines:
            self.recorder.observe(self._observation(line))

    def _observation(self, line: _Line) -> Observation:
        cell, kind = self.layer, kind_of(self.layer)
        names = state_names(cell, len(line.after[0]))
        shown = {name: np.stack([a[k] for a in line.after]) for k, name in enumerate(names)}
        if kind is None:
            shown = without_repeated({**shown, OUTPUT: np.stack(line.outputs)})
        pairs = zip(line.after, line.before[1:], strict=False)
        edited = sum(not _equal(a, b) for a, b in pairs)
        previous = {name: np.stack([a[k] for a in line.before]) for k, name in enumerate(names)}
        replayable = is_replayable(cell) and not line.dropped
        attrs = {
            "module": type(cell).__name__,
            "cell": type(cell).__name__.removesuffix("Cell"),
            "framework_gate_order": kind.order if kind else "",
        }
        return Observation(
            path=self.path,
            observed={name: native(a) for name, a in shown.items()},
            initial=dict(zip(names, map(native, line.before[0]), strict=True)),
            final=dict(zip(names, map(native, line.after[-1]), strict=True)),
            inputs=native(np.stack(line.inputs)),
            cell=equations(cell) if replayable else None,
            weights=weights_of(cell) if replayable else None,
            previous={name: native(a) for name, a in previous.items()} if edited else None,
            precision=computed_in(cell.compute_dtype),
            attrs={**attrs, "edited_steps": edited} if edited else attrs,
        )


def _row(a: Tensor) -> npt.NDArray[Any]:
    """Return a step's (batch, units), a copy: what it is of may be changed in place."""
    return np.array(flat(a))


def _equal(a: States, b: States) -> bool:
    return len(a) == len(b) and all(
        np.array_equal(x, y, equal_nan=True) for x, y in zip(a, b, strict=True)
    )
