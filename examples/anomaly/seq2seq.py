"""A sequence-to-sequence LSTM that reads a window and writes it down again, and its training.

The encoder reads a window of 16 steps, half a second; the decoder starts from the encoder's final
state, gets no input, and writes the window backwards (Srivastava, Mansimov and Salakhutdinov 2015,
arXiv:1502.04681). Its error on a window is a score of anomaly (Malhotra et al. 2016,
arXiv:1607.00148).

    python examples/anomaly/seq2seq.py --output seq2seq.safetensors

Needs PyTorch. About half a minute on one core. Nothing but the steps of `series.FIT` is trained on.
"""

import argparse
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from series import FIT, HELD_OUT, load_channels
from torch import Tensor, nn

WINDOW = 16
NOISE = 0.3  # added to what is read, not to what is to be written: or it learns by heart
WEIGHTS = Path(__file__).parent / "seq2seq.safetensors"


class Seq2Seq(nn.Module):
    """An LSTM encoder and an LSTM decoder."""

    def __init__(self, channels: int = 9, units: int = 48) -> None:
        super().__init__()
        self.encoder = nn.LSTM(channels, units, batch_first=True)
        self.decoder = nn.LSTM(channels, units, batch_first=True)
        self.head = nn.Linear(units, channels)

    def forward(self, x: Tensor) -> Tensor:
        """Return the reconstruction of windows of shape (batch, time, channels)."""
        _, state = self.encoder(x)
        backwards, _ = self.decoder(torch.zeros_like(x), state)
        return self.head(backwards).flip(1)


def load_model() -> Seq2Seq:
    """Return the trained network."""
    model = Seq2Seq()
    model.load_state_dict(load_file(WEIGHTS))
    return model.eval()


def windows(x: np.ndarray, length: int = WINDOW, stride: int = 1) -> Tensor:
    """Return the windows of a series of shape (time, channels): (windows, length, channels)."""
    views = np.lib.stride_tricks.sliding_window_view(x, length, axis=0)[::stride]
    return torch.from_numpy(views.swapaxes(1, 2).copy())


def train(model: Seq2Seq, fit: Tensor, held_out: Tensor, epochs: int) -> None:
    """Train, and print the mean squared error on both."""
    batch = 64
    optimiser = torch.optim.Adam(model.parameters())
    steps = epochs * -(-len(fit) // batch)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, max_lr=5e-3, total_steps=steps)
    for epoch in range(epochs):
        for rows in torch.randperm(len(fit)).split(batch):
            optimiser.zero_grad()
            read = fit[rows] + NOISE * torch.randn_like(fit[rows])
            loss = nn.functional.mse_loss(model(read), fit[rows])
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimiser.step()
            schedule.step()
        if epoch % 20 == 19 or epoch == epochs - 1:
            with torch.no_grad():
                error = nn.functional.mse_loss(model(held_out), held_out).item()
            print(f"epoch {epoch + 1}: error {loss.item():.4f}, held out {error:.4f}", flush=True)


def main() -> None:
    """Train on the normal part and write the weights."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, default=Path("seq2seq.safetensors"))
    parser.add_argument("--epochs", type=int, default=120)
    parser.add_argument("--stride", type=int, default=1, help="steps between windows")
    arguments = parser.parse_args()
    torch.manual_seed(0)
    torch.set_num_threads(1)
    x = load_channels()
    model = Seq2Seq()
    train(model, windows(x[FIT], stride=arguments.stride), windows(x[HELD_OUT]), arguments.epochs)
    save_file(model.state_dict(), arguments.output)
    print(f"wrote {arguments.output} ({arguments.output.stat().st_size} bytes)")


if __name__ == "__main__":
    main()
