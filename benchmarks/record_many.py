"""What more workers bring to `everystate.scale.record_many`, and what a shard costs.

Each worker runs its forward pass on one thread. All clusters stay up for the whole table, and
take turns; the first round, in which workers import and load, does not count.
"""

import shutil
import tempfile
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import numpy as np
import torch
from benchmarks.timing import best_of
from safetensors.torch import save_file
from torch import nn

from everystate.scale import Batching, connected, record_many

SEQUENCES, STEPS, FEATURES, UNITS = 256, 400, 16, 128
WORKERS = (1, 2, 4)
SHARDS = (4, 16, 32)
"""Sequences of a shard."""


def load_model(path: str) -> nn.Module:
    """Return the LSTM, as each worker loads it."""
    from safetensors.torch import load_file

    model = nn.LSTM(FEATURES, UNITS, batch_first=True)
    model.load_state_dict(load_file(path))
    return model


def record(client: object, weights: str, x: np.ndarray, folder: Path, rows: int) -> None:
    """Record all sequences into a fresh place."""
    store = folder / "run.zarr"
    batching = Batching(rows=rows, batch=rows)
    record_many(partial(load_model, weights), x, store, client=client, batching=batching)
    shutil.rmtree(store)


def alone(weights: str, x: np.ndarray) -> None:
    """Run the forward pass alone, in batches of 16."""
    model = load_model(weights)
    with torch.no_grad():
        for part in torch.from_numpy(x).split(16):
            model(part)


def main(rounds: int) -> None:
    """Print the table."""
    rounds = min(rounds, 2)
    torch.manual_seed(0)
    x = np.random.default_rng(0).normal(size=(SEQUENCES, STEPS, FEATURES)).astype(np.float32)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        weights = str(folder / "weights.safetensors")
        save_file(nn.LSTM(FEATURES, UNITS).state_dict(), weights)
        torch.set_num_threads(1)
        clients = {n: stack.enter_context(connected(n)) for n in WORKERS}
        runs = {(n, rows): (clients[n], rows) for rows in SHARDS for n in WORKERS}
        candidates = [partial(alone, weights, x)]
        candidates += [partial(record, c, weights, x, folder, rows) for c, rows in runs.values()]
        forward, *times = best_of(candidates, rounds)
    found = dict(zip(runs, times, strict=True))
    size = SEQUENCES * STEPS * UNITS * 4 * 6 / 1e6
    print(
        f"record_many, {SEQUENCES} sequences of {STEPS} steps, {UNITS} units, all states and gates "
        f"({size:.0f} MB); the forward pass alone, one thread: {forward:.2f} s"
    )
    heads = [f"{n} worker{'s' * (n > 1)}" for n in WORKERS]
    print(f"{'shard':>8} " + " ".join(f"{head:>22}" for head in heads))
    for rows in SHARDS:
        one = found[1, rows]
        cells = [f"{found[n, rows]:7.2f} s {one / found[n, rows]:5.2f} x" for n in WORKERS]
        print(f"{rows:>8} " + " ".join(f"{cell:>22}" for cell in cells))
