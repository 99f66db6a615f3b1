"""What one-pass figures cost a value, and what they hold, each alone and all in one pass.

``python -m benchmarks.reducers --steps 100000000`` makes all of 10^8 steps.
"""

import argparse
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

STEPS, UNITS, BLOCK = 10**7, 4, 2**14
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


def together(steps: int) -> tuple[float, list[Reducer]]:
    """Feed all reducers in one pass; return the seconds a step, and what they have seen."""
    rng = np.random.default_rng(0)
    blocks = [rng.normal(size=(BLOCK, 1, UNITS)).astype(np.float32) for _ in range(8)]
    reducers: list[Reducer] = [kind() for kind in KINDS]
    begin = time.perf_counter()
    for k, start in enumerate(range(0, steps, BLOCK)):
        for reducer in reducers:
            reducer.update(blocks[k % 8][: steps - start], start)
    return (time.perf_counter() - begin) / steps, reducers


def all_in_one_pass(most: int) -> None:
    """Print what that takes for 10^6 steps, ten times as many, and so on."""
    print(f"all {len(KINDS)} in one pass, {UNITS} units; {peak():.0f} MB before")
    steps = min(10**6, most)
    while steps <= most:
        seconds, reducers = together(steps)
        held = sum(a.nbytes for reducer in reducers for a in reducer.state().values()) / 1e3
        print(
            f"{steps:>13,} steps {seconds * 1e6:6.2f} µs a step, {seconds * steps:7.1f} s, state "
            f"{held:.1f} kB, peak {peak():.0f} MB",
            flush=True,
        )
        steps *= 10


def main(rounds: int) -> None:
    """Print both tables; one round, as it is long."""
    del rounds
    all_in_one_pass(STEPS)
    each()


def each() -> None:
    """Print what each takes alone."""
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


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=STEPS, help="steps of the longest pass")
    all_in_one_pass(parser.parse_args().steps)
