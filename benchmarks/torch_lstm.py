"""What `everystate.record` costs beside PyTorch's fused LSTM and the hand-written loop."""

import torch
from benchmarks.timing import best_of
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


def measure(shape: tuple[int, int, int, int], rounds: int) -> list[float]:
    """Return the times of the fused forward, the loop and the recordings, in seconds."""
    batch, steps, features, units = shape
    torch.manual_seed(0)
    lstm, cell = nn.LSTM(features, units), nn.LSTMCell(features, units)
    x = torch.randn(steps, batch, features)
    states = es.Select(variables=("h", "c"))

    def watched() -> None:
        with es.recording(lstm, select=states):
            lstm(x)

    with torch.no_grad():
        return best_of(
            [
                lambda: lstm(x),
                lambda: loop(cell, x),
                lambda: es.record(lstm, x, select=states),
                lambda: es.record(lstm, x),
                watched,
            ],
            rounds,
        )


def main(rounds: int) -> None:
    """Print the table."""
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads; times the fused forward")
    heads = ("loop", "record h, c", "record all", "recording h, c")
    print(f"{'(B, T, D, H)':>20} {'fused':>10} " + " ".join(f"{head:>14}" for head in heads))
    for shape in SHAPES:
        fused, *others = measure(shape, rounds)
        ratios = " ".join(f"{seconds / fused:13.2f}x" for seconds in others)
        print(f"{shape!s:>20} {fused * 1e3:7.1f} ms {ratios}")
