"""From calls to sequences: which calls of a layer belong to one stretch of time.

A decoder calls its layer once per step and hands the state on; the steps are one sequence.
The rule: a call that starts from the state the call before it ended with goes on in time.
A one-step call may also start from a state edited in between (attention, dropout): it goes
on in time too, unless it starts afresh, from zeros or from where the sequence began.
Sequences whose steps take turns (two texts read side by side by one cell) are told apart by
the state that each step starts from.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

States = Mapping[str, Tensor]
Version = list[tuple[Tensor, int]]
"""A module's weights, and how often each was changed in place."""


@dataclass(eq=False)
class Step:
    """One step of one layer: input and states before and after, each (batch, units)."""

    x: Tensor | None
    before: dict[str, Tensor]
    after: dict[str, Tensor]


@dataclass(eq=False)
class Line:
    """What a module has done so far in one stretch of time.

    Parameters
    ----------
    steps : list
        Steps not handed over yet: for each step, one `Step` per layer.
    first, last : tuple of dict
        The state the stretch began with, and the one it has come to, per layer.
    stepwise : bool
        Whether all its calls were of one step.
    handed_over : bool
        Whether a part of it has been recorded already.
    edited_steps : int
        How many steps not handed over did not start where the one before them ended.
    version, equations
        The module's weights when the steps not handed over ran, and what was read of them.
    """

    first: tuple[States, ...] = ()
    last: tuple[States, ...] = ()
    stepwise: bool = True
    handed_over: bool = False
    steps: list[tuple[Step, ...]] = field(default_factory=list)
    edited_steps: int = 0
    version: Version = field(default_factory=list)
    equations: list[dict[str, Any]] = field(default_factory=list)

    def ends_with(self, before: tuple[States, ...] | None) -> bool:
        """Whether the states `before` are just those that this stretch has come to."""
        if before is None or not self.last or not _comparable(before, self.last):
            return False
        return _equal(before, self.last)

    def goes_on(self, before: tuple[States, ...] | None, one_step: bool) -> bool:
        """Whether a call that starts from the states `before` goes on with this stretch.

        Parameters
        ----------
        before : tuple of dict, optional
            What the caller handed in, per layer. None: no state, so it starts afresh.
        one_step : bool
            Whether the call is one step long.
        """
        if self.ends_with(before):
            return True
        if before is None or not (one_step and self.stepwise and self.last):
            return False
        like = _comparable(before, self.last)
        return like and not _equal(before, self.first) and not _zero(before)

    def add(self, step: tuple[Step, ...]) -> None:
        """Add one step, one `Step` per layer."""
        before = tuple(s.before for s in step)
        if self.ends_with(before):
            for s, last in zip(step, self.last, strict=True):
                s.before = dict(last)  # the same numbers: no need to keep them twice
        else:
            self.edited_steps += bool(self.last)
        self.first = self.first or before
        self.last = tuple(s.after for s in step)
        self.steps.append(step)


def _comparable(a: tuple[States, ...], b: tuple[States, ...]) -> bool:
    shapes = [[{n: s.shape for n, s in states.items()} for states in side] for side in (a, b)]
    return shapes[0] == shapes[1]


def _equal(a: tuple[States, ...], b: tuple[States, ...]) -> bool:
    pairs = ((x[name], y[name]) for x, y in zip(a, b, strict=True) for name in x)
    return all(x is y or torch.equal(x, y) or _equal_but_nan(x, y) for x, y in pairs)


def _equal_but_nan(x: Tensor, y: Tensor) -> bool:
    both = x.isnan() & y.isnan()
    return bool(both.any()) and bool(((x == y) | both).all())


def _zero(a: tuple[States, ...]) -> bool:
    return not any(bool(s.any()) for states in a for s in states.values())
