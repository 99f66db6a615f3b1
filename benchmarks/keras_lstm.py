"""What `everystate.record` costs beside the call of a Keras LSTM, on each of Keras' back ends.

A back end is fixed when Keras is imported, so each is measured in a process of its own.
"""

import os
import subprocess
import sys
from importlib.util import find_spec

SHAPES = [(32, 100, 32, 128), (64, 200, 64, 256)]
"""(batch, time, features, units)."""
BACKENDS = ("tensorflow", "torch", "jax")


def measure(shape: tuple[int, int, int, int], rounds: int) -> list[float]:
    """Return the times of the layer's own call and of the recordings, in seconds."""
    import keras
    import numpy as np
    from benchmarks.timing import best_of

    import everystate as es
    from everystate.frameworks.keras.backend import without_gradients

    batch, steps, features, units = shape
    x = np.random.default_rng(0).normal(size=(batch, steps, features)).astype("float32")
    x = keras.ops.convert_to_tensor(x)
    layer = keras.layers.LSTM(units)
    layer(x)
    with without_gradients():
        return best_of(
            [
                lambda: np.asarray(keras.ops.convert_to_numpy(layer(x))),
                lambda: es.record(layer, x, select=es.Select(variables="c")),
                lambda: es.record(layer, x, select=es.Select(variables=("h", "c"))),
                lambda: es.record(layer, x),
            ],
            rounds,
        )


def main(rounds: int) -> None:
    """Print the table."""
    print("Keras LSTM; times the layer's own call, model(x) as record calls it")
    heads = ("record c", "record h, c", "record all")
    print(
        f"{'back end':>12} {'(B, T, D, H)':>20} {'call':>10} " + " ".join(f"{h:>12}" for h in heads)
    )
    for backend in BACKENDS:
        if find_spec(backend) is not None:
            environment = {**os.environ, "KERAS_BACKEND": backend, "TF_CPP_MIN_LOG_LEVEL": "3"}
            command = [sys.executable, "-m", "benchmarks.keras_lstm", str(rounds)]
            subprocess.run(command, env=environment, check=True, stderr=subprocess.DEVNULL)


def rows(rounds: int) -> None:
    """Print the rows of the back end that Keras is set to."""
    import keras

    for shape in SHAPES:
        call, *others = measure(shape, rounds)
        ratios = " ".join(f"{seconds / call:11.2f}x" for seconds in others)
        backend = keras.backend.backend()
        print(f"{backend:>12} {shape!s:>20} {call * 1e3:7.1f} ms {ratios}", flush=True)


if __name__ == "__main__":
    rows(int(sys.argv[1]))
