"""What recording costs beside plain onnxruntime, on one LSTM node."""

import numpy as np
import onnx
import onnxruntime
from benchmarks.timing import best_of
from onnx import TensorProto, helper, numpy_helper

import everystate as es

SHAPES = [(32, 100, 64, 128), (64, 200, 128, 512), (1, 2000, 32, 256), (16, 1000, 8, 64)]
"""(batch, time, features, units)."""


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


def measure(shape: tuple[int, int, int, int], rounds: int) -> list[float]:
    """Return the times of a plain run and of runs that record h; h and c; everything."""
    batch, steps, features, units = shape
    model = lstm(features, units)
    x = np.random.default_rng(1).normal(size=(steps, batch, features)).astype("float32")
    session = onnxruntime.InferenceSession(model.SerializeToString())

    def recorded(*variables: str) -> None:
        with es.recording(model, select=es.Select(variables=variables)) as recorder:
            recorder.run(x)

    return best_of(
        [
            lambda: session.run(None, {"x": x}),
            lambda: recorded("h"),
            lambda: recorded("h", "c"),
            lambda: recorded("h", "c", "gates"),
        ],
        rounds,
    )


def main(rounds: int) -> None:
    """Print the table."""
    print(f"onnxruntime {onnxruntime.__version__}; times a plain run")
    heads = ("record h", "record h, c", "record all")
    print(f"{'(B, T, D, H)':>20} {'plain':>10} " + " ".join(f"{head:>14}" for head in heads))
    for shape in SHAPES:
        plain, *others = measure(shape, rounds)
        ratios = " ".join(f"{seconds / plain:13.2f}x" for seconds in others)
        print(f"{shape!s:>20} {plain * 1e3:7.1f} ms {ratios}")
