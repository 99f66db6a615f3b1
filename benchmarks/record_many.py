"""What more workers bring to `everystate.scale.record_many`, and what a shard costs.

Each worker runs its forward pass on one thread. All clusters stay up for the whole table and take
turns; the first round, in which workers import and load, does not count. Throughput is that from
the first finished shard to the last: laying out and completing the trace, which take the same time
for ten sequences and for ten million, are told apart.
"""

import shutil
import tempfile
import time
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch import nn

from everystate.scale import Batching, connected, record_many

SEQUENCES, STEPS, FEATURES, UNITS = 192, 400, 16, 128
WORKERS = (1, 2, 4)
SHARDS = (4, 16)
"""Sequences of a shard."""

Measured = tuple[float, float]
"""Sequences a second, and the seconds of all else."""


def load_model(path: str) -> nn.Module:
    """Return the LSTM, as each worker loads it."""
    from safetensors.torch import load_file

    model = nn.LSTM(FEATURES, UNITS, batch_first=True)
    model.load_state_dict(load_file(path))
    return model


def record(client: Any, rows: int, folder: Path, x: np.ndarray) -> Measured:
    """Record all sequences into a fresh place."""
    done: list[tuple[int, float]] = []
    load = partial(load_model, str(folder / "weights.safetensors"))
    begin = time.perf_counter()
    record_many(
        load,
        x,
        folder / "run.zarr",
        client=client,
        batching=Batching(rows=rows),
        progress=lambda rows, total: done.append((rows, time.perf_counter())),
    )
    seconds = time.perf_counter() - begin
    shutil.rmtree(folder / "run.zarr")
    _, (first, start), *_, (last, end) = done
    return (last - first) / (end - start), seconds - (end - start)


def measure(folder: Path, rounds: int) -> dict[tuple[int, int], Measured]:
    """Return the best of all rounds, by workers and sequences of a shard."""
    x = np.random.default_rng(0).normal(size=(SEQUENCES, STEPS, FEATURES)).astype(np.float32)
    torch.manual_seed(0)
    save_file(nn.LSTM(FEATURES, UNITS).state_dict(), folder / "weights.safetensors")
    best: dict[tuple[int, int], Measured] = {}
    with ExitStack() as stack:
        clients = {n: stack.enter_context(connected(n)) for n in WORKERS}
        for counted in [False] + [True] * rounds:
            for rows in SHARDS:
                for n, client in clients.items():
                    found = record(client, rows, folder, x)
                    if counted:
                        speed, rest = best.get((n, rows), (0.0, float("inf")))
                        best[n, rows] = max(speed, found[0]), min(rest, found[1])
    return best


def main(rounds: int) -> None:
    """Print the table."""
    with tempfile.TemporaryDirectory() as folder:
        best = measure(Path(folder), min(rounds, 3))
    size = STEPS * UNITS * 4 * 6 / 1e6
    print(f"record_many: {STEPS} steps, {UNITS} units, all variables ({size:.1f} MB) a sequence")
    heads = (f"{n} worker{'s' * (n > 1)}" for n in WORKERS)
    print(f"{'shard':>8} " + " ".join(f"{head:>24}" for head in heads) + "     once")
    for rows in SHARDS:
        one = best[1, rows][0]
        cells = [f"{best[n, rows][0]:8.1f}/s  {best[n, rows][0] / one:5.2f} x" for n in WORKERS]
        rest = min(best[n, rows][1] for n in WORKERS)
        print(f"{rows:>8} " + " ".join(f"{cell:>24}" for cell in cells) + f" {rest:6.1f} s")
