"""The contract of a framework module, held by Flax's NNX and by Linen."""

import numpy as np
import pytest

import flax_reference as ref
import mutations
from everystate.testing import FrameworkContract, importorskip

jax = importorskip("jax")
jnp = importorskip("jax.numpy")
nn = importorskip("flax.linen")
nnx = importorskip("flax.nnx")

import everystate as es
from everystate.frameworks import flax as framework

T, B, D, H = 7, 3, 4, 5
X = np.random.default_rng(2).normal(size=(B, T, D)).astype("float32")


class Nnx(nnx.Module):
    """Every family; one way and both ways."""

    def __init__(self):
        rngs = nnx.Rngs(0)
        self.encoder = nnx.Bidirectional(
            nnx.RNN(nnx.LSTMCell(D, H, rngs=rngs)), nnx.RNN(nnx.GRUCell(D, H, rngs=rngs))
        )
        self.stack = nnx.List([nnx.RNN(nnx.OptimizedLSTMCell(2 * H, H - 1, rngs=rngs))])
        self.simple = nnx.RNN(nnx.SimpleCell(H - 1, H, rngs=rngs), reverse=True, keep_order=True)

    def __call__(self, x):
        return self.simple(self.stack[0](self.encoder(x)))


class TestNnx(FrameworkContract):
    framework = framework
    tolerance = 1e-5

    def model(self):
        model = Nnx()
        nnx.update(model, ref.randomised(nnx.state(model, nnx.Param), seed=4))
        return model

    def inputs(self):
        return (X,)

    def results(self, model):
        return [np.asarray(model(*self.inputs()))]  # as its user calls it

    def expected(self):
        model, x = self.model(), X.swapaxes(0, 1)
        forward, backward = model.encoder.forward_rnn.cell, model.encoder.backward_rnn.cell
        found = {}
        found["encoder/forward"], a = ref.leaf("LSTM", ref.nnx_gates("LSTM", forward), x)
        gates = ref.nnx_gates("GRU", backward)
        found["encoder/backward"], b = ref.leaf("GRU", gates, x, reverse=True)
        gates = ref.nnx_gates("OptimizedLSTM", model.stack[0].cell)
        found["stack/0"], y = ref.leaf("OptimizedLSTM", gates, np.concatenate([a, b], -1))
        gates = ref.nnx_gates("Simple", model.simple.cell)
        found["simple"], _ = ref.leaf("Simple", gates, y, reverse=True)
        return found

    def state(self, model):
        return [(path, type(node)) for path, node in nnx.iter_graph(model)]


class Linen(nn.Module):
    """Every family; one way and both ways; modules made in the call."""

    def setup(self):
        self.encoder = nn.Bidirectional(nn.RNN(nn.LSTMCell(H)), nn.RNN(nn.GRUCell(H)))
        self.middle = nn.RNN(nn.OptimizedLSTMCell(H - 1))
        self.simple = nn.RNN(nn.SimpleCell(H), reverse=True)

    def __call__(self, x):
        return self.simple(self.middle(self.encoder(x)))


def linen():
    module = Linen()
    variables = jax.eval_shape(module.init, jax.random.key(0), X)
    return module.bind(ref.randomised(variables, seed=5))


class TestLinen(FrameworkContract):
    framework = framework
    tolerance = 1e-5

    def model(self):
        return linen()

    def inputs(self):
        return (X,)

    def expected(self):
        params, x = self.model().variables["params"], X.swapaxes(0, 1)

        def gates(kind, *path):
            tree = params
            for name in path:
                tree = tree[name]
            return ref.linen_gates(kind, tree["cell"])

        found = {}
        found["encoder/forward"], a = ref.leaf("LSTM", gates("LSTM", "encoder", "forward_rnn"), x)
        found["encoder/backward"], b = ref.leaf(
            "GRU", gates("GRU", "encoder", "backward_rnn"), x, reverse=True
        )
        found["middle"], y = ref.leaf(
            "OptimizedLSTM", gates("OptimizedLSTM", "middle"), np.concatenate([a, b], -1)
        )
        found["simple"], _ = ref.leaf("Simple", gates("Simple", "simple"), y, reverse=True)
        return found

    def state(self, model):
        return type(model), jax.tree.map(lambda a: a.sum().item(), model.variables)

    def test_layers_are_those_of_the_trace(self):
        """Linen makes modules when they are called, so its layers are known then."""
        trace = es.record(self.model(), X)
        assert framework.layers(self.model()) is None
        assert sorted(leaf.path.strip("/") for leaf in trace.leaves) == sorted(self.expected())


@pytest.mark.parametrize("contract", [TestNnx, TestLinen])
def test_the_oracle_notices(contract):
    trace = es.record(contract().model(), X)
    for path, arrays in contract().expected().items():
        leaf = {n: a.values.swapaxes(0, 1) for n, a in trace[path].data_vars.items() if a.ndim > 2}
        wanted = {n: a.swapaxes(0, 1) for n, a in arrays.items() if a.ndim > 2}
        for fault, wrong in mutations.of_values(wanted):
            with mutations.must_be_noticed(f"{path}: {fault}"):
                for name, array in wrong.items():
                    contract()._assert_close(name, leaf[name], array)
