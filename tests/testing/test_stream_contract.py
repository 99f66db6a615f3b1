"""The contract of `stream`, held by PyTorch's; it fails what does not hand the state on."""

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from everystate.testing import StreamContract, importorskip

torch = importorskip("torch")

from everystate.errors import UncuttableError
from everystate.frameworks import torch as framework
from everystate.recording import discovery


class TestTorch(StreamContract):
    framework = framework

    def model(self):
        torch.manual_seed(3)
        layers = torch.nn.LSTM(3, 5, num_layers=2), torch.nn.GRU(5, 4)
        return Stack(*layers)

    def sequence(self):
        return np.random.default_rng(4).normal(size=(120, 2, 3)).astype("float32")


class Stack(torch.nn.Module):
    def __init__(self, lower, upper):
        super().__init__()
        self.lower, self.upper = lower, upper

    def forward(self, x):
        return self.upper(torch.relu(self.lower(x)[0]))[0]


def mutant(**changes: Any) -> SimpleNamespace:
    """Return PyTorch's module with a stream that differs."""

    def stream(model):
        right = framework.stream(model)
        return replace(right, **{name: change(right) for name, change in changes.items()})

    return SimpleNamespace(**{**vars(framework), "stream": stream})


def forgets(right):
    return lambda x, _state: right.step(x, None)


def rounds(right):
    def half(state):
        return tuple(map(half, state)) if isinstance(state, tuple) else state.half().float()

    def step(x, state):
        y, after = right.step(x, state)
        return y, {path: half(states) for path, states in after.items()}

    return step


@pytest.mark.filterwarnings("ignore:.*calls joined along time do not start from the state")
@pytest.mark.parametrize(
    ("changes", "error", "said"),
    [
        ({"step": forgets}, UncuttableError, "the pieces do not go on"),
        ({"step": rounds}, AssertionError, "upper: the state is not carried on"),
        ({"time_axis": lambda right: lambda x: 1}, AssertionError, "/upper"),
    ],
)
def test_a_stream_that_is_wrong_fails(changes, error, said, tmp_path, monkeypatch):
    wrong = mutant(**changes)
    monkeypatch.setattr(discovery, "framework_of", lambda model: ("torch", wrong))
    monkeypatch.setattr("everystate.streaming.sequence.framework_of", discovery.framework_of)
    contract = TestTorch()
    contract.framework = wrong
    with pytest.raises(error, match=said):
        contract.test_cutting_changes_no_value(tmp_path)
