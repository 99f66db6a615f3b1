import pytest

import gate_orders
from everystate.testing import importorskip

torch = importorskip("torch")


def run(layer, given):
    """Give a layer of PyTorch weights as they are, and run it."""
    tensor = torch.from_numpy
    with torch.no_grad():
        layer.weight_ih_l0.copy_(tensor(given.W))
        layer.weight_hh_l0.copy_(tensor(given.R))
        layer.bias_ih_l0.copy_(tensor(given.b))
        layer.bias_hh_l0.copy_(tensor(given.b_R))
        state = tuple(tensor(s)[None] for s in given.initial)
        h, final = layer(tensor(given.x), state if len(state) > 1 else state[0])
    final = final if isinstance(final, tuple) else (final,)
    return h.numpy(), tuple(s[0].numpy() for s in final)


@pytest.mark.parametrize("name", ["LSTM", "GRU", "RNN"])
def test_layer(name):
    layer = getattr(torch.nn, name)(gate_orders.D, gate_orders.H, dtype=torch.float64)
    gate_orders.check("PyTorch", name, lambda given: run(layer, given), 1e-12)
