"""What recording costs beside plain onnxruntime, on one LSTM node.

Both sides do the same. One call: the model is opened and run once, and what was recorded is handed
over as a trace. Further calls: the model was opened, and run once, before the clock starts; it is
then run some more times, and everything recorded is handed over as one trace.
"""

import time
from functools import partial

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
from benchmarks.timing import best_of
from onnx import TensorProto, helper, numpy_helper

import everystate as es

SHAPES = [(32, 100, 64, 128), (64, 200, 128, 512), (1, 2000, 32, 256), (16, 1000, 8, 64)]
"""(batch, time, features, units)."""
RECORDED = {"h": ("h",), "h, c": ("h", "c"), "h, c, gates": ("h", "c", "gates")}
CALLS = 3

Input = npt.NDArray[np.float32]


def lstm(features: int, units: int) -> onnx.ModelProto:
    """Return a model of one LSTM node with random weights."""
    rng = np.random.default_rng(0)
    sizes = {"W": (1, 4 * units, features), "R": (1, 4 * units, units), "B": (1, 8 * units)}
    weights = [
        numpy_helper.from_array(rng.normal(0, units**-0.5, size).astype("float32"), name)
        for name, size in sizes.items()
    ]
    graph = helper.make_graph(
        [helper.make_node("LSTM", ["x", "W", "R", "B"], ["y", "h", "c"], hidden_size=units)],
        "lstm",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["time", "batch", features])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        weights,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 22)], ir_version=10)


def one_call(model: onnx.ModelProto, x: Input, rounds: int) -> list[float]:
    """Return the times of a plain call and of recorded ones, each of which opens the model."""
    serialized = model.SerializeToString()

    def plain() -> None:
        onnxruntime.InferenceSession(serialized).run(None, {"x": x})

    def recorded(variables: tuple[str, ...]) -> None:
        es.record(model, x, select=es.Select(variables=variables))

    return best_of([plain, *(partial(recorded, names) for names in RECORDED.values())], rounds)


def further_calls(model: onnx.ModelProto, x: Input, rounds: int) -> list[float]:
    """Return the times a call of plain calls and of recorded ones, after the first one."""
    session = onnxruntime.InferenceSession(model.SerializeToString())

    def plain() -> float:
        session.run(None, {"x": x})
        start = time.perf_counter()
        for _ in range(CALLS):
            session.run(None, {"x": x})
        return time.perf_counter() - start

    def recorded(variables: tuple[str, ...]) -> float:
        with es.recording(model, select=es.Select(variables=variables)) as recorder:
            recorder.run(x)
            start = time.perf_counter()
            for _ in range(CALLS):
                recorder.run(x)
            _ = recorder.trace
            return time.perf_counter() - start

    candidates = [plain, *(partial(recorded, names) for names in RECORDED.values())]
    turns = [[candidate() / CALLS for candidate in candidates] for _ in range(rounds + 1)]
    return [min(times) for times in zip(*turns[1:], strict=True)]


def main(rounds: int) -> None:
    """Print the tables."""
    print(f"onnxruntime {onnxruntime.__version__}; times plain onnxruntime")
    for what, measure in (("one call, opening", one_call), ("further calls", further_calls)):
        print(f"{what:>20} {'plain':>10} " + " ".join(f"{names:>14}" for names in RECORDED))
        for shape in SHAPES:
            batch, steps, features, units = shape
            x = np.random.default_rng(1).normal(size=(steps, batch, features)).astype("float32")
            plain, *others = measure(lstm(features, units), x, rounds)
            ratios = " ".join(f"{seconds / plain:13.2f}x" for seconds in others)
            print(f"{shape!s:>20} {plain * 1e3:7.1f} ms {ratios}", flush=True)
