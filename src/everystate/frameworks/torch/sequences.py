"""From calls to sequences: which calls of a layer belong to one stretch of time.

A decoder calls its layer once per step and hands the state on; the steps are one sequence.
The rule: a call that starts from the state the call before it ended with goes on in time.
A one-step call may also start from a state edited in between (attention, dropout): it goes
on in time too, unless it starts afresh, from zeros or from where the sequence began.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

States = Mapping[str, Tensor]


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
    """

    first: tuple[States, ...] = ()
    last: tuple[States, ...] = ()
    stepwise: bool = True
    handed_over: bool = False
    steps: list[tuple[Step, ...]] = field(default_factory=list)

    def goes_on(self, before: tuple[States, ...] | None, one_step: bool) -> bool:
        """Whether a call that starts from the states `before` goes on with this stretch.

        Parameters
        ----------
        before : tuple of dict, optional
            What the caller handed in, per layer. None: no state, so it starts afresh.
        one_step : bool
            Whether the call is one step long.
        """
        if before is None or not self.last or not _comparable(before, self.last):
            return False
        if _equal(before, self.last):
            return True
        edited = one_step and self.stepwise
        return edited and not _equal(before, self.first) and not _zero(before)

    @property
    def edited(self) -> bool:
        """Whether some step not handed over did not start where the one before it ended."""
        pairs = zip(self.steps, self.steps[1:], strict=False)
        return not all(
            _equal(tuple(s.before for s in b), tuple(s.after for s in a)) for a, b in pairs
        )


def _comparable(a: tuple[States, ...], b: tuple[States, ...]) -> bool:
    shapes = [[{n: s.shape for n, s in states.items()} for states in side] for side in (a, b)]
    return shapes[0] == shapes[1]


def _equal(a: tuple[States, ...], b: tuple[States, ...]) -> bool:
    pairs = ((x[name], y[name]) for x, y in zip(a, b, strict=True) for name in x)
    return all(x is y or torch.equal(x, y) for x, y in pairs)


def _zero(a: tuple[States, ...]) -> bool:
    return not any(bool(s.any()) for states in a for s in states.values())
