"""Record a PyTorch model that was never written for it: a forecaster with a decoder loop.

The encoder reads a series, the decoder writes the next steps one at a time, each from the one
before, as forecasting models do. Nothing of the model is changed.

    python examples/record_pytorch.py

Needs PyTorch (``pip install everystate[torch]``).
"""

import torch
from torch import Tensor, nn

import everystate as es


class Forecaster(nn.Module):
    """Two stacked LSTMs and a decoder that is called once for every step it predicts."""

    def __init__(self, units: int = 16) -> None:
        super().__init__()
        self.encoder = nn.LSTM(1, units, num_layers=2, batch_first=True)
        self.decoder = nn.LSTM(1, units, num_layers=2, batch_first=True)
        self.head = nn.Linear(units, 1)

    def forward(self, x: Tensor, steps: int = 20) -> Tensor:
        """Continue series of shape (batch, time, 1) for some steps."""
        _, state = self.encoder(x)
        value, forecast = x[:, -1:], []
        for _ in range(steps):
            output, state = self.decoder(value, state)
            value = self.head(output)
            forecast.append(value)
        return torch.cat(forecast, dim=1)


def main() -> None:
    """Record everything, then a part, then with gradients."""
    torch.manual_seed(0)
    model = Forecaster().eval()
    x = torch.sin(torch.linspace(0.0, 25.0, 200)).repeat(3, 1).unsqueeze(-1) + torch.randn(3, 1, 1)

    # Every state and gate of every layer at every step, from one call.
    trace = es.record(model, x)
    print(trace)
    forget = trace["encoder/layer_1"].f
    print(f"mean forget gate of the upper layer: {float(forget.mean()):.3f}")

    # The 20 calls of the decoder are one sequence: its states while it predicts.
    drift = abs(trace["decoder/layer_1"].c).mean(["batch", "unit"])
    print(f"mean |c| of the decoder, first and last step: {drift[0]:.3f}, {drift[-1]:.3f}")

    # What is not selected is not computed.
    few = es.record(model, x, select=es.Select(layers="encoder", variables="c", every=10))
    print(
        f"selected: {list(few['encoder/layer_0'].data_vars)}, {dict(few['encoder/layer_0'].sizes)}"
    )

    # Your own loop over a stream: the calls become one sequence.
    with torch.no_grad(), es.recording(model.encoder, along="time") as recorder:
        state = None
        for chunk in x.split(50, dim=1):
            _, state = model.encoder(chunk, state)
    print(f"stream of 4 chunks: {dict(recorder.trace['lstm/layer_0'].c.sizes)}")

    # Tensors attached to the graph: how does an early input reach a late memory?
    x.requires_grad_()
    out = es.unroll(model.encoder, x)
    out.states["layer_1"].c[:, -1].sum().backward()
    reach = x.grad.abs().mean((0, 2))
    print(f"|d c_last / d x_t|: {reach[0]:.1e} at the first step, {reach[-1]:.1e} at the last")


if __name__ == "__main__":
    main()
