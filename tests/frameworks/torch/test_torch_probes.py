"""`unroll(probes=True)`: gradients by each state of each step are those of a loop over cells."""

import numpy as np
import pytest

from everystate.testing import importorskip

torch = importorskip("torch")

from torch import nn
from torch.nn.utils.rnn import PackedSequence, pad_packed_sequence

import everystate as es
import torch_reference as ref
from everystate.errors import UnsupportedModelError
from everystate.frameworks.torch import probing

T, B, D, H, P = 6, 3, 4, 5, 2
LENGTHS = (4, 6, 1)
KINDS = {
    "lstm": nn.LSTM,
    "gru": nn.GRU,
    "rnn_tanh": nn.RNN,
    "rnn_relu": lambda *a, **k: nn.RNN(*a, nonlinearity="relu", **k),
}


def stack(kind, **options):
    options = {"bidirectional": True, "num_layers": 2, **options}
    module = KINDS[kind](D, H, dtype=torch.float64, **options)
    return ref.randomise(module, seed=4).requires_grad_(True)


def loss_of(outputs, final, rows):
    """A loss that needs every output and both last states, each row with weights of its own."""
    total = (outputs * ref.random(T, B, outputs.shape[-1], seed=7)[: len(outputs), rows]).sum()
    for k, s in enumerate(final):
        total = total + (s * ref.random(4, B, H, seed=8 + k)[:, rows]).square().sum()
    return total


def by_loop(module, x, state, rows):
    """The gradient of every state of every step, as (time, rows, units), by path and name."""
    kept = {}
    run = ref.by_cells(module, x, state, kept)
    last = [path for *_, path in ref.leaves(module)]
    outputs = torch.cat([run[path]["h"] for path in last[-2:]], -1)
    ends = [0 if path.endswith("backward") else len(x) - 1 for path in last]
    names = ("h", "c")[: len(state)]
    final = [
        torch.stack([run[p][n][end] for p, end in zip(last, ends, strict=True)]) for n in names
    ]
    loss_of(outputs, final, rows).backward()
    found = {}
    for (path, name, _), s in kept.items():
        found.setdefault((path, name), []).append(s)
    times = {key: [t for p, n, t in kept if (p, n) == key] for key in found}
    return {
        key: np.stack([found[key][times[key].index(t)].grad.numpy() for t in range(len(x))])
        for key in found
    }


def ours(module, given, x, state):
    """The same by probes, (time, batch, units), and what was unrolled."""
    single = state if len(state) > 1 else state[0]
    args = {
        "batched": lambda: x,
        "batch_first": lambda: x.transpose(0, 1).contiguous(),
        "packed": lambda: ref.packed(x, LENGTHS),
    }[given]()
    out = es.unroll(module, args, single, probes=True)
    outputs = out.outputs
    if isinstance(outputs, PackedSequence):
        outputs = pad_packed_sequence(outputs)[0]
    elif given == "batch_first":
        outputs = outputs.transpose(0, 1)
    final = out.final_state if isinstance(out.final_state, tuple) else (out.final_state,)
    keys = [(path, name) for path, layer in out.probes.items() for name in layer]
    probes = [out.probes[path][name] for path, name in keys]
    loss = loss_of(outputs, final, list(range(B)))
    found = torch.autograd.grad(loss, probes)
    if given == "batch_first":
        found = [g.transpose(0, 1) for g in found]
    return {key: g.numpy() for key, g in zip(keys, found, strict=True)}, out, args, single


@pytest.mark.parametrize("given", ["batched", "batch_first", "packed"])
@pytest.mark.parametrize("kind", KINDS)
def test_gradients_by_every_state_are_those_of_a_loop_over_cells(kind, given):
    module = stack(kind, batch_first=given == "batch_first")
    x, state = ref.random(T, B, D, seed=2), ref.initial(module, B)
    found, out, args, single = ours(module, given, x, state)
    lengths = LENGTHS if given == "packed" else [T] * B
    assert set(found) == {(p, n) for *_, p in ref.leaves(module) for n in ("h", "c")[: len(state)]}
    for row, n in enumerate(lengths):
        expected = by_loop(module, x[:n, [row]], [s[:, [row]] for s in state], [row])
        for key, wanted in expected.items():
            np.testing.assert_allclose(found[key][:n, [row]], wanted, rtol=1e-9, atol=1e-12)
            assert np.abs(wanted).max() > 1e-6
            assert not found[key][n:, row].any()
    for name, a in es.unroll(module, args, single).states.items():
        for variable, values in a.items():
            torch.testing.assert_close(out.states[name][variable], values, atol=1e-12, rtol=1e-10)
    whole = module(args, single)
    torch.testing.assert_close(data(out.outputs), data(whole[0]), atol=1e-12, rtol=1e-10)
    torch.testing.assert_close(out.final_state, whole[1], atol=1e-12, rtol=1e-10)


def data(output):
    return output.data if isinstance(output, PackedSequence) else output


def test_a_probe_in_the_wrong_place_is_noticed(monkeypatch):
    """Added to c after h was made of it, or a step late: the comparison above fails."""
    real = probing._step

    def late(stack, suffix, x, before, added):
        none = {name: torch.zeros_like(p) for name, p in added.items()}
        return {name: s + added[name] for name, s in real(stack, suffix, x, before, none).items()}

    monkeypatch.setattr(probing, "_step", late)
    with pytest.raises(AssertionError, match="Not equal to tolerance"):
        test_gradients_by_every_state_are_those_of_a_loop_over_cells("lstm", "batched")


def projected(module, x, bump):
    """The last h of a projected LSTM in NumPy, with numbers added to the states of each step."""
    w = {name: p.detach().numpy() for name, p in module.named_parameters()}
    h, c = np.zeros((B, P)), np.zeros((B, H))
    for t in range(T):
        a = x[t] @ w["weight_ih_l0"].T + w["bias_ih_l0"] + w["bias_hh_l0"]
        i, f, g, o = np.split(a + h @ w["weight_hh_l0"].T, 4, axis=1)
        sigmoid = [1 / (1 + np.exp(-v)) for v in (i, f, o)]
        c = sigmoid[1] * c + sigmoid[0] * np.tanh(g) + bump["c"][t]
        h = (sigmoid[2] * np.tanh(c)) @ w["weight_hr_l0"].T + bump["h"][t]
    return h


def test_a_projected_lstm_by_finite_differences():
    module = ref.randomise(nn.LSTM(D, H, proj_size=P, dtype=torch.float64), seed=3)
    x = ref.random(T, B, D, seed=5)
    out = es.unroll(module, x, probes=True)
    probes = {name: out.probes["lstm"][name] for name in ("h", "c")}
    loss = out.outputs[-1].square().sum()
    found = dict(zip(probes, torch.autograd.grad(loss, list(probes.values())), strict=True))
    zeros = {name: np.zeros(tuple(p.shape)) for name, p in probes.items()}
    for name, step in (("c", 0), ("c", T - 1), ("h", 2), ("h", T - 1)):
        for row, unit in ((0, 1), (B - 1, 0)):
            slope = []
            for side in (1e-6, -1e-6):
                bump = {n: a.copy() for n, a in zeros.items()}
                bump[name][step, row, unit] = side
                slope.append((projected(module, x.numpy(), bump) ** 2).sum())
            expected = (slope[0] - slope[1]) / 2e-6
            assert float(found[name][step, row, unit]) == pytest.approx(expected, abs=1e-7)


def test_without_a_batch_and_without_biases():
    module = ref.randomise(nn.LSTM(D, H, bias=False, dtype=torch.float64), seed=3)
    x = ref.random(T, 1, D, seed=5)
    alone, batched = es.unroll(module, x[:, 0], probes=True), es.unroll(module, x, probes=True)
    found = [
        torch.autograd.grad(out.outputs[-1].sum(), [out.probes.c, out.probes.h])
        for out in (alone, batched)
    ]
    assert found[0][0].shape == (T, H)
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b[:, 0])


def test_dropout_between_layers_draws_what_the_module_draws():
    module = ref.randomise(nn.GRU(D, H, 2, dropout=0.5, dtype=torch.float64), seed=3).train()
    for x in (ref.random(T, B, D, seed=5), ref.packed(ref.random(T, B, D, seed=5), LENGTHS)):
        torch.manual_seed(1)
        expected = module(x)[0]
        torch.manual_seed(1)
        out = es.unroll(module, x, probes=True)
        torch.testing.assert_close(data(out.outputs), data(expected), atol=1e-12, rtol=1e-10)


def test_no_probes_unless_asked_for_and_none_for_cells():
    assert es.unroll(nn.GRU(D, H), torch.randn(T, B, D)).probes is None
    with pytest.raises(UnsupportedModelError, match=r"probes are for nn\.LSTM.*retain_grad"):
        es.unroll(nn.LSTMCell(D, H), torch.randn(T, B, D), probes=True)
