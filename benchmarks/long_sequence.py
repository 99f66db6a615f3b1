"""One long sequence to disk: `everystate.record` with a store, beside the same work without it.

``python -m benchmarks.long_sequence --steps 1000000`` is the size of the promise: an LSTM of 256
units, one row, ``h`` and ``c`` of every step. Beside it stand the forward pass alone, in chunks,
and a plain write of the same bytes; they take turns, and the best round of each counts.
``--framework onnx`` or ``tensorflow`` takes the same of a model's file; of its forward pass the
state is not carried on, since the file has no way to. That of ``flax`` is compiled before it is
timed; a recording compiles its own within its time, once whatever its length.
"""

import argparse
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

import everystate as es

FEATURES, UNITS, CHUNK = 8, 256, 8192
STATES = es.Select(variables=("h", "c"))

Forward = Callable[[Any, Any], Any]
"""Takes a chunk and a state; returns the next state."""


def torch_model(folder: Path) -> tuple[Any, Forward]:
    """Return PyTorch's LSTM."""
    import torch

    torch.manual_seed(0)
    lstm = torch.nn.LSTM(FEATURES, UNITS).eval()

    def forward(chunk: Any, state: Any) -> Any:
        with torch.no_grad():
            return lstm(torch.from_numpy(chunk), state)[1]

    return lstm, forward


def flax_model(folder: Path) -> tuple[Any, Forward]:
    """Return an LSTM of Flax NNX; its forward pass is one compiled function."""
    import jax
    from flax import nnx

    cell = nnx.OptimizedLSTMCell(FEATURES, UNITS, rngs=nnx.Rngs(0))
    model = nnx.RNN(cell, time_major=True)
    begin = cell.initialize_carry((1, FEATURES), nnx.Rngs(0))
    graph, weights = nnx.split(model)

    @jax.jit
    def run(weights: Any, chunk: Any, state: Any) -> Any:
        own = nnx.merge(graph, weights)
        return own(chunk, initial_carry=state, return_carry=True)

    def forward(chunk: Any, state: Any) -> Any:
        after, y = run(weights, chunk, begin if state is None else state)
        jax.block_until_ready(y)
        return after

    forward(np.zeros((CHUNK, 1, FEATURES), np.float32), None)
    return model, forward


def onnx_model(folder: Path) -> tuple[Any, Forward]:
    """Return a file of one LSTM node."""
    import onnx
    import onnxruntime
    from onnx import TensorProto, helper, numpy_helper

    rng, path = np.random.default_rng(0), folder / "model.onnx"
    shapes = {"W": (1, 4 * UNITS, FEATURES), "R": (1, 4 * UNITS, UNITS), "B": (1, 8 * UNITS)}
    arrays = {name: rng.normal(0, 0.05, shape) for name, shape in shapes.items()}
    stored = [numpy_helper.from_array(a.astype(np.float32), name) for name, a in arrays.items()]
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["time", "batch", FEATURES])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    node = helper.make_node("LSTM", ["x", *shapes], ["y"], hidden_size=UNITS)
    graph = helper.make_graph([node], "model", [x], [y], stored)
    opset = [helper.make_opsetid("", 22)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=10), path)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return path, lambda chunk, state: session.run(None, {"x": chunk}) and None


def tensorflow_model(folder: Path) -> tuple[Any, Forward]:
    """Return a frozen graph of a `dynamic_rnn`."""
    import tensorflow as tf

    from everystate.frameworks.tensorflow import rnn_cell

    v1, path = tf.compat.v1, folder / "frozen.pb"
    with tf.Graph().as_default() as graph, v1.Session() as session:
        x = v1.placeholder(tf.float32, [None, None, FEATURES], name="x")
        cell = rnn_cell.LSTMCell(UNITS)
        y = v1.nn.dynamic_rnn(cell, x, time_major=True, dtype=tf.float32)[0]
        session.run(v1.global_variables_initializer())
        name, definition = y.op.name, graph.as_graph_def()
        frozen = v1.graph_util.convert_variables_to_constants(session, definition, [name])
    path.write_bytes(frozen.SerializeToString())
    with tf.Graph().as_default() as graph:
        tf.import_graph_def(frozen, name="")
    session = v1.Session(graph=graph)
    return path, lambda chunk, state: session.run(f"{name}:0", {"x:0": chunk}) is None


MODELS = {
    "torch": torch_model,
    "flax": flax_model,
    "onnx": onnx_model,
    "tensorflow": tensorflow_model,
}


class Work:
    """The three candidates, on one series in a folder."""

    def __init__(self, folder: Path, steps: int, framework: str) -> None:
        self.folder, self.steps = folder, steps
        self.model, self.run = MODELS[framework](folder)
        shape = (steps, 1, FEATURES)
        x = np.lib.format.open_memmap(folder / "x.npy", "w+", np.float32, shape)
        rng = np.random.default_rng(0)
        for start in range(0, steps, CHUNK):
            x[start : start + CHUNK] = rng.normal(size=x[start : start + CHUNK].shape)
        x.flush()

    def forward(self) -> None:
        """Run the model in chunks, and keep nothing."""
        x, state = np.load(self.folder / "x.npy", mmap_mode="r"), None
        for start in range(0, self.steps, CHUNK):
            state = self.run(np.array(x[start : start + CHUNK]), state)

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
        es.record(self.model, self.folder / "x.npy", store=path, select=STATES, overwrite=True)


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


def measure(steps: int, rounds: int, framework: str) -> tuple[list[float], float, float]:
    """Return the seconds of all three; of the last one processor time and peak memory in MB."""
    with tempfile.TemporaryDirectory() as folder:
        work = Work(Path(folder), steps, framework)
        beginning = np.zeros((300, 1, FEATURES), np.float32)
        es.record(work.model, beginning, store=Path(folder) / "first.zarr")
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
    """Print the table of a size that takes half a minute, and a line for each kind of file."""
    table(rounds, 100_000)
    for framework in ("flax", "onnx", "tensorflow"):
        table(1, 100_000, framework, sizes=[])


def table(
    rounds: int, steps: int, framework: str = "torch", sizes: Sequence[int] | None = None
) -> None:
    """Print the table, each size in a process of its own: what one takes another does not see."""
    threads = os.environ.get("OMP_NUM_THREADS", "unset")
    print(
        f"one sequence to disk with {framework}, h and c of {UNITS} units, "
        f"OMP_NUM_THREADS {threads}; times forward + plain write"
    )
    heads = ("forward", "write", "record")
    columns = f"{'ratio':>7} {'us/step':>8} {'cpu us':>8} peak"
    print(f"{'steps':>10} {' '.join(f'{head:>9}' for head in heads)} {columns}")
    sizes = [10**k for k in range(4, 10) if 10**k < steps] if sizes is None else sizes
    for size in [*sizes, steps]:
        turns = max(1, min(rounds, 3 * 10**5 // size))
        command = [sys.executable, "-m", "benchmarks.long_sequence", "--one", str(size)]
        command += ["--rounds", str(turns), "--framework", framework]
        subprocess.run(command, check=True)


def line(steps: int, rounds: int, framework: str) -> None:
    """Print one line of the table."""
    (forward, write, record), processor, peak = measure(steps, rounds, framework)
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
    parser.add_argument("--framework", choices=MODELS, default="torch")
    given = parser.parse_args()
    if given.one:
        line(given.one, given.rounds, given.framework)
    else:
        table(given.rounds, given.steps, given.framework)
