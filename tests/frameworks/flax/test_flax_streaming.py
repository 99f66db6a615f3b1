"""Modules of Flax, NNX and Linen, in chunks of time: the carry of each layer is handed on."""

import numpy as np
import pytest

import flax_reference as ref
from everystate.testing import StreamContract, importorskip

importorskip("flax")
import flax.linen as nn
import jax
import jax.numpy as jnp
from flax import nnx

import everystate as es
import streamed
from everystate.errors import UncuttableError
from everystate.frameworks import flax as framework

B, T, D, U = 2, 150, 3, 5
LITTLE = 10_000
"""Memory that no sequence here fits into whole."""


def sequence() -> np.ndarray:
    return np.random.default_rng(0).normal(size=(B, T, D)).astype("float32")


@pytest.fixture
def x() -> np.ndarray:
    return sequence()


class Tagger(nnx.Module):
    """Two layers and what looks at one step; whoever calls it with a state gets one back."""

    def __init__(self, seed=2):
        rngs = nnx.Rngs(seed)
        self.lower = nnx.RNN(nnx.GRUCell(D, 4, rngs=rngs))
        self.norm = nnx.LayerNorm(4, rngs=rngs)
        self.upper = nnx.RNN(nnx.LSTMCell(4, U, rngs=rngs))
        nnx.update(self, ref.randomised(nnx.state(self, nnx.Param), seed=4))

    def __call__(self, x, state=(None, None)):
        lower, x = self.lower(x, initial_carry=state[0], return_carry=True)
        upper, x = self.upper(self.norm(x), initial_carry=state[1], return_carry=True)
        return x, (lower, upper)


class Linen(nn.Module):
    """Layers made in the call, the lower one under `jax.jit` and time-major."""

    @nn.compact
    def __call__(self, x, state=None):
        cell = nn.OptimizedLSTMCell(4)
        lower = nn.jit(nn.RNN)(cell, time_major=True, return_carry=True)
        after, x = lower(x, initial_carry=state)
        return after, nn.RNN(nn.GRUCell(U), time_major=True, name="top")(nn.relu(x))


def linen(x) -> nn.Module:
    variables = Linen().init(jax.random.key(0), x)
    return Linen().bind(ref.randomised(variables, seed=5))


@pytest.mark.parametrize("time_major", [False, True])
def test_a_layer_alone(time_major, x, tmp_path):
    cell = nnx.LSTMCell(D, U, rngs=nnx.Rngs(1))
    x = x.swapaxes(0, 1) if time_major else x
    streamed.check(nnx.RNN(cell, time_major=time_major), x, tmp_path, memory=LITTLE)


def test_a_bare_layer_of_flax_itself_needs_no_trial(x):
    class Own(nnx.RNN):
        pass

    rngs = nnx.Rngs(1)
    sure = framework.stream(nnx.RNN(nnx.GRUCell(D, U, rngs=rngs))).sure(x[:, :1])
    assert sure == B * 4 * (D + 4 * U)  # its input, h, r, z and n
    for model in (
        Own(nnx.GRUCell(D, U, rngs=rngs)),
        nnx.RNN(nnx.GRUCell(D, U, rngs=rngs), reverse=True),
        nnx.RNN(nnx.GRUCell(D, U, activation_fn=jnp.sin, rngs=rngs)),
        Tagger(),
    ):
        assert framework.stream(model).sure(x[:, :1]) is None


def test_another_axis_than_time_is_told(x, tmp_path):
    model = nnx.RNN(nnx.GRUCell(D, U, rngs=nnx.Rngs(1)))
    rows = np.repeat(x, 20, axis=0)  # as many in each piece, so that states would fit
    with pytest.raises(UncuttableError, match="cannot be run in chunks of time"):
        es.record(model, rows, store=tmp_path / "run.zarr", memory=LITTLE, time_axis=0, chunk=20)


def test_a_module_of_nnx(x, tmp_path):
    model = Tagger()
    before = nnx.state(model, nnx.Param)
    streamed.check(model, x, tmp_path, memory=LITTLE)
    assert jax.tree.all(jax.tree.map(np.array_equal, before, nnx.state(model, nnx.Param)))


class TestLinen(StreamContract):
    framework = framework

    def model(self):
        return linen(self.sequence())

    def sequence(self):
        return sequence().swapaxes(0, 1)


def test_steps_of_ones_own(x, tmp_path):
    model = Tagger()
    streamed.check(
        model, x, tmp_path, step=lambda x, state: model(x) if state is None else model(x, state)
    )
    x = x.swapaxes(0, 1)
    module = linen(x)

    def step(chunk, state):
        after, y = module(chunk, None if state is None else state["lower"])
        return y, {"lower": after}

    select = es.Select(layers="JitRNN_0")
    options = {"step": step, "chunk": 37, "select": select}
    got = es.record(module, x, store=tmp_path / "linen.zarr", **options)
    assert streamed.compare(got, es.record(module, x, select=select)) < 1e-6


class Lengths(nnx.Module):
    def __init__(self):
        self.rnn = nnx.RNN(nnx.GRUCell(D, U, rngs=nnx.Rngs(0)))

    def __call__(self, x):
        return self.rnn(x, seq_lengths=jnp.full(B, x.shape[1]))


class Loop(nnx.Module):
    def __init__(self):
        self.cell = nnx.GRUCell(D, U, rngs=nnx.Rngs(0))

    def __call__(self, x):
        h = self.cell.initialize_carry(x[:, 0].shape, nnx.Rngs(0))
        for t in range(x.shape[1]):
            h, y = self.cell(h, x[:, t])
        return y


def both_ways():
    forward, backward = (nnx.RNN(nnx.GRUCell(D, U, rngs=nnx.Rngs(k))) for k in (0, 1))
    return nnx.Bidirectional(forward, backward)


@pytest.mark.parametrize(
    ("model", "said"),
    [
        (both_ways, "/backward reads backwards: it begins at the end"),
        (Lengths, "rnn is given seq_lengths: its rows end apart"),
        (Loop, "cell is a cell that is called step by step in a Python loop"),
    ],
)
def test_what_cannot_be_cut(model, said, x, tmp_path):
    with pytest.raises(UncuttableError, match=said):
        es.record(model(), x[:, :60], store=tmp_path / "run.zarr", memory=1000)
