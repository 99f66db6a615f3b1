"""What one-pass figures cost a value, and what they hold: 10^7 steps of 4 units, in blocks."""

import resource
import time

import numpy as np

from everystate.analysis.reducers import (
    Autocorrelation,
    Covariance,
    Histogram,
    Moments,
    Quantiles,
    Range,
    Reducer,
    Saturation,
    TopSteps,
)

STEPS, UNITS, BLOCK = 10**7, 4, 2**17
KINDS = (
    *(Moments, Range, Saturation, Histogram, Quantiles),
    *(Covariance, Autocorrelation, TopSteps),
)


def peak() -> float:
    """Return the largest memory of this process so far, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3


def feed(reducer: Reducer, block: np.ndarray, steps: int) -> float:
    """Feed as many steps, and return the seconds that took."""
    begin = time.perf_counter()
    for start in range(0, steps, BLOCK):
        reducer.update(block[: steps - start], start)
    return time.perf_counter() - begin


def main(rounds: int) -> None:
    """Print the table; one round, as it is long."""
    del rounds
    block = np.random.default_rng(0).normal(size=(BLOCK, 1, UNITS)).astype(np.float32)
    print(f"reducers: {STEPS:,} steps of {UNITS} units, {BLOCK:,} at once")
    print(
        f"{'':<16} {'seconds':>8} {'values/s':>10} {'state':>9} {'peak after 10^6, 10^7 steps':>30}"
    )
    for kind in KINDS:
        feed(kind(), block, STEPS // 10)
        early = peak()
        reducer = kind()
        seconds = feed(reducer, block, STEPS)
        size = sum(array.nbytes for array in reducer.state().values()) / 1e3
        speed = STEPS * UNITS / seconds / 1e6
        print(
            f"{kind.__name__:<16} {seconds:8.1f} {speed:8.1f} M {size:6.1f} kB "
            f"{early:17.0f}, {peak():.0f} MB",
            flush=True,
        )
