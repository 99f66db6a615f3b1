"""The array libraries that every cell must work with."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from everystate.testing import importorskip


@dataclass(frozen=True)
class Library:
    """An array library at one precision: how to make an array of it, and how exact it is."""

    asarray: Callable[[np.ndarray], Any]
    tolerance: float


@pytest.fixture(
    params=["numpy float64", "numpy float32", "torch float64", "jax float64", "jax float32"]
)
def library(request: pytest.FixtureRequest) -> Iterator[Library]:
    name, dtype = request.param.split()
    tolerance = {"float64": 1e-13, "float32": 5e-6}[dtype]
    if name == "numpy":
        yield Library(lambda a: np.asarray(a, dtype), tolerance)
    elif name == "torch":
        torch = importorskip("torch")
        yield Library(lambda a: torch.from_numpy(np.array(a, dtype)), tolerance)
    else:
        jax = importorskip("jax")
        with jax.enable_x64(dtype == "float64"):
            yield Library(lambda a: jax.numpy.asarray(a, dtype), tolerance)
