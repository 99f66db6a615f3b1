"""What `everystate.record` costs beside PyTorch's fused LSTM and the hand-written loop.

Every figure is a ratio within this run: the candidates take turns, the best of several
rounds counts. Run it by ``make bench`` or ``python benchmarks/bench_torch.py``.
"""

import argparse
import time
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

import everystate as es

SHAPES = [(32, 100, 64, 128), (64, 200, 128, 512), (1, 2000, 32, 256), (16, 1000, 8, 64)]
"""(batch, time, features, units)."""


def loop(cell: nn.LSTMCell, x: Tensor) -> tuple[Tensor, Tensor]:
    """Return h and c at every step, as people write it by hand."""
    h = c = x.new_zeros(x.shape[1], cell.hidden_size)
    hs, cs = [], []
    for x_t in x:
        h, c = cell(x_t, (h, c))
        hs.append(h)
        cs.append(c)
    return torch.stack(hs), torch.stack(cs)


def best_of(candidates: Sequence[Callable[[], object]], rounds: int) -> list[float]:
    """Return each candidate's best time in seconds, the candidates taking turns."""
    best = [float("inf")] * len(candidates)
    for _ in range(rounds):
        for k, candidate in enumerate(candidates):
            start = time.perf_counter()
            candidate()
            best[k] = min(best[k], time.perf_counter() - start)
    return best


def measure(shape: tuple[int, int, int, int], rounds: int) -> list[float]:
    """Return the times of the fused forward, the loop, and two recordings, in seconds."""
    batch, steps, features, units = shape
    torch.manual_seed(0)
    lstm, cell = nn.LSTM(features, units), nn.LSTMCell(features, units)
    x = torch.randn(steps, batch, features)
    states = es.Select(variables=("h", "c"))
    with torch.no_grad():
        return best_of(
            [
                lambda: lstm(x),
                lambda: loop(cell, x),
                lambda: es.record(lstm, x, select=states),
                lambda: es.record(lstm, x),
            ],
            rounds,
        )


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    print(f"torch {torch.__version__}, {options.threads} threads; times the fused forward")
    print(f"{'(B, T, D, H)':>22} {'fused':>9} {'loop':>7} {'h, c':>7} {'all':>7}")
    for shape in SHAPES:
        fused, by_hand, states, everything = measure(shape, options.rounds)
        ratios = " ".join(f"{t / fused:6.2f}x" for t in (by_hand, states, everything))
        print(f"{shape!s:>22} {fused * 1e3:6.1f} ms {ratios}")


if __name__ == "__main__":
    main()
