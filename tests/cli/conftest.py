"""The command line in a folder of its own, with a weights file and series to record."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file
from typer.testing import CliRunner

from everystate.cli.main import app

T, D, U = 30, 2, 3
"""Steps, features, units."""


@dataclass(frozen=True)
class Done:
    """What a command did."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


Run = Callable[..., Done]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def run(folder: Path) -> Run:
    """``run("record", "weights.safetensors", ...)``, in `folder`."""

    def run(*args: object) -> Done:
        done = CliRunner().invoke(app, [str(a) for a in args], prog_name="everystate")
        return Done(done.exit_code, done.stdout, done.stderr)

    return run


def lstm(rng: np.random.Generator, prefix: str, features: int) -> dict[str, np.ndarray]:
    shapes = {"weight_ih": (4 * U, features), "weight_hh": (4 * U, U), "bias_ih": (4 * U,)}
    shapes["bias_hh"] = (4 * U,)
    tensors = {n: rng.normal(0, 0.7, shape).astype("float32") for n, shape in shapes.items()}
    return {f"{prefix}.{name}_l0": a for name, a in tensors.items()}


@pytest.fixture
def weights(folder: Path) -> Path:
    rng = np.random.default_rng(0)
    save_file({**lstm(rng, "encoder", D), "head.weight": np.ones((1, U))}, "weights.safetensors")
    return Path("weights.safetensors")


@pytest.fixture
def two_stacks(folder: Path) -> Path:
    rng = np.random.default_rng(0)
    save_file({**lstm(rng, "encoder", D), **lstm(rng, "decoder", 1)}, "two.safetensors")
    return Path("two.safetensors")


@pytest.fixture
def x() -> np.ndarray:
    return np.random.default_rng(1).normal(size=(T, D))


@pytest.fixture
def data(folder: Path, x: np.ndarray) -> Path:
    np.save("data.npy", x)
    return Path("data.npy")


@pytest.fixture
def trace(run: Run, weights: Path, data: Path) -> Path:
    done = run("record", weights, data, "-o", "run.zarr")
    assert done.code == 0, done.err
    return Path("run.zarr")
