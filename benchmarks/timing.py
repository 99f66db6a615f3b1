"""How things are timed here: the candidates take turns and the best round counts.

Turns, because a machine's speed drifts: only ratios within one run are worth quoting.
"""

import time
from collections.abc import Callable, Sequence


def best_of(candidates: Sequence[Callable[[], object]], rounds: int) -> list[float]:
    """Return each candidate's best time in seconds, after one round that does not count."""
    best = [float("inf")] * len(candidates)
    for counted in [False] + [True] * rounds:
        for k, candidate in enumerate(candidates):
            start = time.perf_counter()
            candidate()
            seconds = time.perf_counter() - start
            best[k] = min(best[k], seconds) if counted else best[k]
    return best
