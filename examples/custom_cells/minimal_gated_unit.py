"""A cell that no framework has: the minimal gated unit, on PyTorch.

    python examples/custom_cells/minimal_gated_unit.py

Zhou et al. 2016 (arXiv:1603.09420), equations 4 to 6: one gate f, both for reset and update.
It names its state and its gate, so both are recorded; `unroll` steps it, differentiable.
"""

import torch
from torch import Tensor, nn

import everystate as es


class MinimalGatedUnit(nn.Module):
    """``h' = (1 - f) h + f tanh(W x + R (f h) + b)``, with ``f = sigmoid(W_f x + R_f h + b_f)``."""

    everystate_states = ("h", "f")

    def __init__(self, features: int, units: int) -> None:
        super().__init__()
        self.gate = nn.Linear(features + units, units)
        self.candidate = nn.Linear(features + units, units)

    def forward(self, x: Tensor, state: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        """Take one step; the gate goes along in the state, so that it is seen."""
        h, _ = state
        f = torch.sigmoid(self.gate(torch.cat([x, h], -1)))
        n = torch.tanh(self.candidate(torch.cat([x, f * h], -1)))
        return (1.0 - f) * h + f * n, f


class Classifier(nn.Module):
    """A model that steps the cell in a loop of its own, as a user would write it."""

    def __init__(self) -> None:
        super().__init__()
        self.cell = MinimalGatedUnit(3, 8)
        self.head = nn.Linear(8, 2)

    def forward(self, x: Tensor) -> Tensor:
        """Read (batch, time, 3)."""
        state = (x.new_zeros(len(x), 8), x.new_zeros(len(x), 8))
        for x_t in x.unbind(1):
            state = self.cell(x_t, state)
        return self.head(state[0])


def main() -> None:
    """Record the cell inside its model, then unroll it alone, with gradients."""
    torch.manual_seed(0)
    model, x = Classifier(), torch.randn(4, 50, 3)

    trace = es.record(model, x)
    layer = trace["cell"]
    print(f"recorded: {list(layer.data_vars)}, {dict(layer.h.sizes)}")
    print(es.summary(trace))

    zeros = torch.zeros(4, 8)
    out = es.unroll(model.cell, x.transpose(0, 1), (zeros, zeros))
    same = torch.allclose(out.states.h.transpose(0, 1), torch.from_numpy(layer.h.values))
    print(f"unrolled alone, the same states: {same}")

    # A loss on the gate: open it less.
    out.states.f.mean().backward()
    pull = float(model.cell.gate.bias.grad.sum())
    print(f"the mean gate falls with the gate's bias: {pull > 0}")


if __name__ == "__main__":
    main()
