"""One recurrent layer of each kind with all its data: seeded, asymmetric, every size different.

A test imports it as ``import cases``; the expected values come from `oracles`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

import oracles
from everystate.cells import GRU, LSTM, Cell, SimpleRNN, Weights

T, B, D, U, P = 7, 3, 4, 5, 2
"""Steps, rows, features, units, projected units."""

FAMILIES: dict[str, tuple[type[Cell], str, Callable[..., oracles.Unrolled]]] = {
    "lstm": (LSTM, "ifgo", oracles.lstm),
    "gru": (GRU, "rzn", oracles.gru),
    "simple_rnn": (SimpleRNN, "h", oracles.simple_rnn),
}


@dataclass(frozen=True, eq=False)
class Case:
    """A layer as the oracle takes it, and its data; `variants` have everystate's names."""

    family: str
    gates: dict[str, oracles.Gate]
    x: np.ndarray
    initial: dict[str, np.ndarray]
    variants: Mapping[str, Any] = field(default_factory=dict)
    peephole: dict[str, np.ndarray] | None = None
    projection: np.ndarray | None = None

    @property
    def cell(self) -> Cell:
        return FAMILIES[self.family][0](**self.variants)

    @property
    def weights(self) -> Weights:
        """Everystate's canonical form; a bias that is zero everywhere is left out."""
        arrays = oracles.stacked(self.gates, FAMILIES[self.family][1])
        arrays = {name: a for name, a in arrays.items() if name in ("W", "R") or a.any()}
        peephole = None if self.peephole is None else np.stack([self.peephole[k] for k in "ifo"])
        return Weights(**arrays, peephole=peephole, projection=self.projection)

    def expected(self, *, lengths=None, reverse=False, gates=None) -> oracles.Unrolled:
        """What the oracle makes of it, or of other `gates`."""
        extra = {"peephole": self.peephole, "projection": self.projection}
        extra = extra if self.family == "lstm" else {}
        return FAMILIES[self.family][2](
            self.x,
            self.initial,
            self.gates if gates is None else gates,
            lengths=lengths,
            reverse=reverse,
            **extra,
            **self.variants,
        )

    def with_(self, **changes: Any) -> "Case":
        return replace(self, **changes)


def case(
    family: str,
    *,
    seed: int = 0,
    sizes: tuple[int, int, int, int] = (T, B, D, U),
    scale: float = 1.0,
    biases: tuple[bool, bool] = (True, True),
    peephole: bool = False,
    projected: int | None = None,
    **variants: Any,
) -> Case:
    """Return a random layer of a family, with `biases` (input, recurrent), and its data.

    `scale` shrinks the weights: with an unbounded activation, states grow without end otherwise.
    """
    rng = np.random.default_rng(seed)
    steps, batch, features, units = sizes
    h_units = units if projected is None else projected

    def gate() -> oracles.Gate:
        b, b_R = rng.normal(0, 0.8 * scale, (2, units)) * np.array(biases)[:, None]
        W = rng.normal(0, 0.9 * scale, (units, features))
        return oracles.Gate(W, rng.normal(0, 0.9 * scale, (units, h_units)), b, b_R)

    cell, order, _ = FAMILIES[family]
    sizes_of_states = {"h": h_units, "c": units}
    return Case(
        family=family,
        gates={name: gate() for name in order},
        x=rng.normal(0, 1.2, (steps, batch, features)),
        initial={name: rng.normal(0, 0.7, (batch, sizes_of_states[name])) for name in cell.states},
        variants=variants,
        peephole={k: rng.normal(0, 0.9, units) for k in "ifo"} if peephole else None,
        projection=None if projected is None else rng.normal(0, 0.9, (projected, units)),
    )
