"""Train the demo's autoencoder: an LSTM reads one heartbeat, a second one writes it down again.

The encoder reads a window; the decoder starts from the encoder's final state, gets no input, and
writes the window backwards (Srivastava, Mansimov and Salakhutdinov 2015, arXiv:1502.04681). Without
input it cannot copy the sample before, so all it knows went through the state: that is what makes
the reconstruction error of an unseen shape large (Malhotra et al. 2016, arXiv:1607.00148).

Only the first 800 steps of the series are trained on, none of them labelled, and the next 400 are
held out. The series begins with them, so nothing of the labelled part is ever read here.

    python examples/train_demo.py --output autoencoder.safetensors

Needs PyTorch. The same machine and version of PyTorch give the same weights again.
"""

import argparse
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from everystate.demo.series import FIT, HELD_OUT, load_series

WINDOW = 184  # about one heartbeat: the autocorrelation of the normal part peaks at 183 steps
UNITS = 64


class Autoencoder(nn.Module):
    """A sequence-to-sequence LSTM autoencoder of a series with one feature."""

    def __init__(self, mean: float, std: float) -> None:
        super().__init__()
        self.encoder = nn.LSTM(1, UNITS, batch_first=True)
        self.decoder = nn.LSTM(1, UNITS, batch_first=True)
        self.head = nn.Linear(UNITS, 1)
        self.register_buffer("mean", torch.tensor(mean))
        self.register_buffer("std", torch.tensor(std))
        self.register_buffer("window", torch.tensor(WINDOW))

    def forward(self, x: Tensor) -> Tensor:
        """Return the reconstruction of standardised windows of shape (batch, time, 1)."""
        _, state = self.encoder(x)
        backwards, _ = self.decoder(torch.zeros_like(x), state)
        return self.head(backwards).flip(1)


def windows(values: np.ndarray) -> Tensor:
    """Return every window of a standardised series, shape (windows, time, 1)."""
    views = np.lib.stride_tricks.sliding_window_view(values, WINDOW)
    return torch.from_numpy(views.copy()).unsqueeze(-1)


def train(model: Autoencoder, fit: Tensor, held_out: Tensor, epochs: int) -> float:
    """Train and return the mean squared error on the held-out windows."""
    batch = 64
    optimiser = torch.optim.Adam(model.parameters(), lr=3e-3)
    steps = epochs * -(-len(fit) // batch)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, max_lr=3e-3, total_steps=steps)
    error = float("nan")
    for epoch in range(epochs):
        model.train()
        for rows in torch.randperm(len(fit)).split(batch):
            optimiser.zero_grad()
            loss = nn.functional.mse_loss(model(fit[rows]), fit[rows])
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimiser.step()
            schedule.step()
        model.eval()
        with torch.no_grad():
            error = float(nn.functional.mse_loss(model(held_out), held_out))
        if epoch % 10 == 9 or epoch == epochs - 1:
            print(f"epoch {epoch + 1}: error {loss.item():.4f}, held out {error:.4f}", flush=True)
    return error


def main() -> None:
    """Train on the normal part and write the weights."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, default=Path("autoencoder.safetensors"))
    parser.add_argument("--epochs", type=int, default=150)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    torch.manual_seed(arguments.seed)
    torch.set_num_threads(2)

    values = load_series("TRAIN").values
    mean, std = float(values[FIT].mean()), float(values[FIT].std())
    scaled = (values - np.float32(mean)) / np.float32(std)
    model = Autoencoder(mean, std)
    train(model, windows(scaled[FIT]), windows(scaled[HELD_OUT]), arguments.epochs)
    save_file(model.state_dict(), arguments.output)
    print(f"wrote {arguments.output} ({arguments.output.stat().st_size} bytes)")


if __name__ == "__main__":
    main()
