"""Weights files with known contents, and what the oracle makes of them, layer by layer."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

import oracles

T, B, D, U, P = 7, 3, 4, 5, 2
"""Steps, rows, features, units, projected units."""

ORDERS = {"lstm": "ifgo", "gru": "rzn", "rnn": "h"}
ORACLES = {"lstm": oracles.lstm, "gru": oracles.gru, "rnn": oracles.simple_rnn}
Write = Callable[..., Path]


@dataclass(frozen=True, eq=False)
class Model:
    """A random stack with PyTorch's names: every size different, no bias zero."""

    family: str
    tensors: dict[str, np.ndarray]
    layers: int = 1
    ways: int = 1
    projected: bool = False

    @property
    def places(self) -> list[tuple[int, bool]]:
        return [(k, r) for k in range(self.layers) for r in (False, True)[: self.ways]]

    @property
    def h_units(self) -> int:
        return P if self.projected else U

    def gates(self, layer: int, reverse: bool) -> dict[str, oracles.Gate]:
        end = f"_l{layer}" + "_reverse" * reverse
        names = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
        return oracles.gates(ORDERS[self.family], *(self.tensors.get(n + end) for n in names))

    def state(self, rng: np.random.Generator, batch: int = B) -> tuple[np.ndarray, ...]:
        """An initial state as PyTorch has it: h, or h and c."""
        sizes = (self.h_units, U) if self.family == "lstm" else (U,)
        return tuple(rng.normal(0, 0.7, (len(self.places), batch, size)) for size in sizes)

    def expected(
        self, x: np.ndarray, state: tuple[np.ndarray, ...], *, lengths=None, gates=None, **variants
    ) -> dict[str, oracles.Unrolled]:
        """The oracle's results of each layer and direction, by its path below the stack."""
        found: dict[str, oracles.Unrolled] = {}
        level: list[np.ndarray] = []
        for k, (layer, reverse) in enumerate(self.places):
            if not reverse:
                below, level = x if k == 0 else np.concatenate(level, axis=-1), []
            if self.projected:
                variants["projection"] = self.tensors[f"weight_hr_l{layer}" + "_reverse" * reverse]
            one = ORACLES[self.family](
                np.nan_to_num(below),
                dict(zip("hc", (s[k] for s in state), strict=False)),
                self.gates(layer, reverse) if gates is None else gates,
                lengths=lengths,
                reverse=reverse,
                **variants,
            )
            found[self.path(layer, reverse)] = one
            level.append(one.values["h"])
        return found

    def path(self, layer: int, reverse: bool) -> str:
        parts = [f"layer_{layer}"] * (self.layers > 1)
        parts += [("backward" if reverse else "forward")] * (self.ways > 1)
        return "/".join(parts)

    def with_(self, **changes: Any) -> "Model":
        return replace(self, **changes)


def make_model(
    family: str, *, layers: int = 1, ways: int = 1, projected: bool = False, seed: int = 0
) -> Model:
    rng = np.random.default_rng(seed)
    blocks = len(ORDERS[family])
    h_units = P if projected else U
    tensors = {}
    for layer in range(layers):
        for end in (f"_l{layer}", f"_l{layer}_reverse")[:ways]:
            features = D if layer == 0 else ways * h_units
            tensors[f"weight_ih{end}"] = rng.normal(0, 0.9, (blocks * U, features))
            tensors[f"weight_hh{end}"] = rng.normal(0, 0.9, (blocks * U, h_units))
            tensors[f"bias_ih{end}"] = rng.normal(0, 0.8, blocks * U)
            tensors[f"bias_hh{end}"] = rng.normal(0, 0.8, blocks * U)
            if projected:
                tensors[f"weight_hr{end}"] = rng.normal(0, 0.9, (P, U))
    return Model(family, tensors, layers, ways, projected)


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(1)


@pytest.fixture
def model() -> Callable[..., Model]:
    """``model(family, layers=, ways=, projected=)``."""
    return make_model


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """``write(tensors, prefix="encoder.", metadata=None)``: a weights file; returns its path."""

    def write(
        tensors: Mapping[str, np.ndarray],
        prefix: str = "",
        *,
        dtype: str | None = None,
        metadata: dict[str, str] | None = None,
    ) -> Path:
        path = tmp_path / "weights.safetensors"
        arrays = {prefix + n: np.array(a, dtype, order="C") for n, a in tensors.items()}
        save_file(arrays, path, metadata)
        return path

    return write
