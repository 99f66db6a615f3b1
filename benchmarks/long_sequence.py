"""One long sequence to disk: `everystate.record` with a store, beside the same work without it.

``python -m benchmarks.long_sequence --steps 1000000`` is the size of the promise: an LSTM of 256
units, one row, ``h`` and ``c`` of every step. Beside it stand the forward pass alone, in chunks,
and a plain write of the same bytes; they take turns, and the best round of each counts.
"""

import argparse
import resource
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import nn

import everystate as es

FEATURES, UNITS, CHUNK = 8, 256, 8192
STATES = es.Select(variables=("h", "c"))


class Work:
    """The three candidates, on one series in a folder."""

    def __init__(self, folder: Path, steps: int) -> None:
        torch.manual_seed(0)
        self.folder, self.steps, self.lstm = folder, steps, nn.LSTM(FEATURES, UNITS).eval()
        shape = (steps, 1, FEATURES)
        x = np.lib.format.open_memmap(folder / "x.npy", "w+", np.float32, shape)
        rng = np.random.default_rng(0)
        for start in range(0, steps, CHUNK):
            x[start : start + CHUNK] = rng.normal(size=x[start : start + CHUNK].shape)
        x.flush()

    def forward(self) -> None:
        """Run the model in chunks, and keep nothing."""
        x, state = np.load(self.folder / "x.npy", mmap_mode="r"), None
        with torch.no_grad():
            for start in range(0, self.steps, CHUNK):
                chunk = torch.from_numpy(np.array(x[start : start + CHUNK]))
                _, state = self.lstm(chunk, state)

    def write(self) -> None:
        """Write as many bytes as the states have to one file."""
        block = np.random.default_rng(0).normal(size=(CHUNK, UNITS)).astype(np.float32)
        with (self.folder / "plain").open("wb") as file:
            for start in range(0, self.steps, CHUNK):
                part = block[: self.steps - start]
                file.write(part)
                file.write(part)

    def record(self) -> None:
        """Record h and c of every step."""
        path = self.folder / "run.zarr"
        es.record(self.lstm, self.folder / "x.npy", store=path, select=STATES, overwrite=True)


def peak_above(work: Callable[[], object]) -> float:
    """Return by how many MB the resident memory grew while something ran, at most."""

    def resident() -> float:
        return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() / 1e6

    before, found, over = resident(), [0.0], threading.Event()

    def watch() -> None:
        while not over.wait(0.02):
            found.append(resident() - before)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        work()
    finally:
        over.set()
        watcher.join()
    return max(found)


def measure(steps: int, rounds: int) -> tuple[list[float], float, float]:
    """Return the seconds of all three; of the last one processor time and peak memory in MB."""
    with tempfile.TemporaryDirectory() as folder:
        work = Work(Path(folder), steps)
        es.record(work.lstm, np.zeros((300, 1, FEATURES)), store=Path(folder) / "first.zarr")
        peak, processor = 0.0, float("inf")
        best = [float("inf")] * 3
        for _ in range(rounds):
            for k, candidate in enumerate((work.forward, work.write, work.record)):
                shutil.rmtree(work.folder / "run.zarr", ignore_errors=True)
                start, used = time.perf_counter(), time.process_time()
                if k == 2:
                    peak = max(peak, peak_above(candidate))
                    processor = min(processor, time.process_time() - used)
                else:
                    candidate()
                best[k] = min(best[k], time.perf_counter() - start)
        return best, processor, peak


def main(rounds: int) -> None:
    """Print the table of a size that takes half a minute."""
    table(rounds, 100_000)


def table(rounds: int, steps: int) -> None:
    """Print the table, each size in a process of its own: what one takes another does not see."""
    print(
        f"one sequence to disk, h and c of {UNITS} units, {torch.get_num_threads()} threads of "
        "PyTorch; times forward + plain write"
    )
    heads = ("forward", "write", "record")
    columns = f"{'ratio':>7} {'us/step':>8} {'cpu us':>8} peak"
    print(f"{'steps':>10} {' '.join(f'{head:>9}' for head in heads)} {columns}")
    sizes = [10**k for k in range(4, 10) if 10**k < steps]
    for size in [*sizes, steps]:
        turns = max(1, min(rounds, 3 * 10**5 // size))
        command = [sys.executable, "-m", "benchmarks.long_sequence", "--one", str(size)]
        subprocess.run([*command, "--rounds", str(turns)], check=True)


def line(steps: int, rounds: int) -> None:
    """Print one line of the table."""
    (forward, write, record), processor, peak = measure(steps, rounds)
    each = " ".join(f"{seconds / steps * 1e6:8.1f}" for seconds in (record, processor))
    print(
        f"{steps:>10,} {forward:8.2f}s {write:8.2f}s {record:8.2f}s "
        f"{record / (forward + write):6.2f}x {each} +{peak:.0f} MB"
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--one", type=int, help="this size alone, in this process")
    given = parser.parse_args()
    if given.one:
        line(given.one, given.rounds)
    else:
        table(given.rounds, given.steps)
