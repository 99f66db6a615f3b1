"""A cell whose state is nested: an LSTM cell beside a running mean of what it read, on PyTorch.

    python examples/custom_cells/nested_state.py

Names go to the tensors of a state in the order of its structure, whatever that is.
"""

from typing import Any

import torch
from torch import Tensor, nn

import everystate as es


class Normalised(nn.Module):
    """An LSTM cell that reads how far the input is from its running mean."""

    everystate_states = ("h", "c", "mean", "steps")

    def __init__(self, features: int, units: int) -> None:
        super().__init__()
        self.lstm = nn.LSTMCell(features, units)

    def start(self, batch: int) -> dict[str, Any]:
        """Return the state before the first step."""
        h = torch.zeros(batch, self.lstm.hidden_size)
        mean = torch.zeros(batch, self.lstm.input_size)
        return {"memory": (h, h), "seen": {"mean": mean, "steps": torch.zeros(batch, 1)}}

    def forward(self, x: Tensor, state: dict[str, Any]) -> tuple[Tensor, dict[str, Any]]:
        """Take one step; return the output, and the state in the same structure."""
        mean, steps = state["seen"]["mean"], state["seen"]["steps"] + 1.0
        mean = mean + (x - mean) / steps
        h, c = self.lstm(x - mean, state["memory"])
        return h, {"memory": (h, c), "seen": {"mean": mean, "steps": steps}}


def main() -> None:
    """Record every part of the state, each under its name and with units of its own."""
    torch.manual_seed(0)
    cell, x = Normalised(3, 6), 5.0 + torch.randn(40, 2, 3)

    with torch.no_grad(), es.recording(cell) as recorder:
        state = cell.start(2)
        for x_t in x:
            _, state = cell(x_t, state)
    trace = recorder.trace
    own = trace["normalised"]
    for name in cell.everystate_states:
        print(f"{name}: {dict(own[name].sizes)}")
    print(f"the LSTM cell inside, gates and all: {list(trace['lstm'].data_vars)}")

    last = torch.from_numpy(own["mean"].isel(time=-1).values)
    print(f"the running mean ends at the mean: {torch.allclose(last, x.mean(0), atol=1e-5)}")

    out = es.unroll(cell, x, cell.start(2))
    print(f"unrolled, the same h: {torch.equal(out.states.h[-1], state['memory'][0])}")


if __name__ == "__main__":
    main()
