"""The demo's autoencoder, wired from the stacks of a weights file: no framework is needed."""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from everystate.demo.series import WEIGHTS
from everystate.frameworks.numpy import load

Windows = npt.NDArray[np.float32]
"""Standardised values, shape (batch, time, 1)."""
State = Any
"""State of a stack, as it takes and returns it: (h, c), each of shape (1, batch, units)."""


class Autoencoder:
    """An LSTM that reads a window, and a second one that writes it down again, backwards.

    Parameters
    ----------
    path : Path
        What ``examples/train_demo.py`` wrote.

    Attributes
    ----------
    encoder, decoder : Stack
        Call them like a layer; record them like a model.
    window : int
        Steps of the windows it was trained on.
    """

    def __init__(self, path: Path = WEIGHTS) -> None:
        stacks = load(path)
        self.encoder, self.decoder = stacks["encoder"], stacks["decoder"]
        self.mean, self.std = stacks.tensor("mean"), stacks.tensor("std")
        self.window = int(stacks.tensor("window"))
        self.weight, self.bias = stacks.tensor("head.weight"), stacks.tensor("head.bias")

    def scale(self, values: npt.NDArray[np.float32]) -> Windows:
        """Return a series as one standardised sequence, shape (1, time, 1)."""
        scaled = (values - self.mean) / self.std
        return scaled[None, :, None].astype(np.float32, copy=False)

    def cut(self, sequence: Windows, ends: npt.NDArray[np.int64]) -> Windows:
        """Return the windows of a sequence that end before the steps `ends`."""
        windows: Windows = sequence[0, ends[:, None] - self.window + np.arange(self.window)]
        return windows

    def encode(self, windows: Windows) -> State:
        """Read windows, from a state of zeros, and return the state they leave behind."""
        _, state = self.encoder(windows)
        return state

    def decode(self, state: State) -> Windows:
        """Return the window that a state remembers."""
        nothing = np.zeros((state[0].shape[1], self.window, 1), np.float32)
        backwards, _ = self.decoder(nothing, state)
        windows: Windows = (backwards @ self.weight.T + self.bias)[:, ::-1]
        return windows
