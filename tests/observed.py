"""Observations made by hand, from what an oracle computed: no framework needed.

A test imports it as ``import observed``.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from cases import Case
from everystate.cells import GRU, LSTM, SimpleRNN, Weights
from everystate.recording.observation import Observation

GARBAGE = 77.0
"""What stands in a framework's output past a row's end."""


def observed(
    case: Case,
    *,
    path: str = "encoder/rnn",
    lengths: list[int] | None = None,
    reverse: bool = False,
    asarray: Callable[[np.ndarray], Any] = np.array,
    precision: str = "float64",
    **changes: Any,
) -> Observation:
    """Return what a framework with a fused kernel shows of a case: h, and the last states."""
    expected = case.expected(lengths=lengths, reverse=reverse)
    h = np.where(np.isnan(expected.values["h"]), GARBAGE, expected.values["h"])
    given: dict[str, Any] = {
        "path": path,
        "observed": {"h": asarray(h)},
        "initial": {name: asarray(a) for name, a in case.initial.items()},
        "final": {name: asarray(a) for name, a in expected.final.items()},
        "inputs": asarray(case.x),
        "cell": case.cell,
        "weights": Weights(**{name: asarray(a) for name, a in case.weights.items()}),
        "lengths": None if lengths is None else np.array(lengths),
        "reverse": reverse,
        "precision": precision,
    }
    return Observation(**given | changes)


def stepwise(case: Case, seed: int = 5, **changes: Any) -> tuple[Observation, dict]:
    """Return a cell stepped in a user's loop, each step from a state of its own; and the truth."""
    rng = np.random.default_rng(seed)
    shape = case.x.shape[:1]
    previous = {name: rng.normal(0, 0.7, (*shape, *a.shape)) for name, a in case.initial.items()}
    steps = [
        case.with_(x=case.x[t : t + 1], initial={n: a[t] for n, a in previous.items()}).expected()
        for t in range(len(case.x))
    ]
    values = {name: np.concatenate([s.values[name] for s in steps]) for name in steps[0].values}
    states = tuple(case.initial)
    seen = observed(
        case,
        observed={name: values[name] for name in states},
        initial={name: a[0] for name, a in previous.items()},
        final={name: values[name][-1] for name in states},
        previous=previous,
        **changes,
    )
    return seen, values


class Counting:
    """A mix-in for cells that notes how much they compute; `reset` it before use."""

    products: ClassVar[list[tuple[int, ...]]] = []
    """Shape of each product of the input: (steps, batch, rows of the weights)."""
    evolved: ClassVar[list[int]] = []
    """Steps of each stretch."""

    @classmethod
    def reset(cls) -> None:
        cls.products.clear()
        cls.evolved.clear()

    def from_input(self, w, x):
        a = super().from_input(w, x)
        self.products.append(tuple(a.shape))
        return a

    def evolve(self, w, a_x, a_h, before):
        self.evolved.append(a_x.shape[0])
        return super().evolve(w, a_x, a_h, before)


@dataclass(frozen=True)
class CountingLSTM(Counting, LSTM):
    """An LSTM that counts."""


@dataclass(frozen=True)
class CountingGRU(Counting, GRU):
    """A GRU that counts."""


@dataclass(frozen=True)
class CountingRNN(Counting, SimpleRNN):
    """A simple RNN that counts."""


COUNTING = {"lstm": CountingLSTM, "gru": CountingGRU, "simple_rnn": CountingRNN}


def counting(case: Case, **changes: Any) -> Observation:
    """Return an observation whose cell counts, from zero."""
    Counting.reset()
    return observed(case, cell=COUNTING[case.family](**case.variants), **changes)
