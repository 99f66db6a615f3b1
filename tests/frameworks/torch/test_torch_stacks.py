"""Every option of ``nn.LSTM``, ``nn.GRU`` and ``nn.RNN`` against the float64 oracle."""

from dataclasses import dataclass
from itertools import product

import numpy as np
import pytest

from everystate.testing import importorskip

torch = importorskip("torch")

from torch import nn

import everystate as es
import mutations
import oracles
import torch_reference as ref

T, B, D, H, P = 6, 3, 4, 5, 2
LENGTHS = {"sorted": (6, 4, 1), "unsorted": (4, 6, 1)}
KINDS = {
    "lstm": lambda *a, **k: nn.LSTM(*a, **k),
    "lstm_proj": lambda *a, **k: nn.LSTM(*a, proj_size=P, **k),
    "gru": lambda *a, **k: nn.GRU(*a, **k),
    "rnn_tanh": lambda *a, **k: nn.RNN(*a, **k),
    "rnn_relu": lambda *a, **k: nn.RNN(*a, nonlinearity="relu", **k),
}


@dataclass
class Call:
    """A module, what it is called with, and what the oracle makes of it."""

    module: nn.RNNBase
    args: tuple
    expected: dict
    lengths: tuple[int, ...] | None = None

    @property
    def root(self) -> str:
        return type(self.module).__name__.lower()

    def leaf(self, trace, path):
        return trace[f"{self.root}/{path}" if path else self.root]

    def check(self, trace, tolerance=1e-10):
        assert {n.path for n in trace.leaves} == {
            f"/{self.root}/{path}" if path else f"/{self.root}" for path in self.expected
        }
        for path, expected in self.expected.items():
            leaf = self.leaf(trace, path)
            ref.assert_leaf(leaf, expected, tolerance)
            assert leaf.attrs["direction"] == ("backward" if "backward" in path else "forward")
            if self.lengths is not None:
                assert leaf.length.values.tolist() == list(self.lengths)


def build(
    kind, layers=1, both=False, inputs="batched", *, first=False, bias=True, hx=True, **options
) -> Call:
    dtype = options.pop("dtype", torch.float64)
    steps, batch = options.pop("steps", T), options.pop("batch", B)
    module = KINDS[kind](
        D, H, layers, bidirectional=both, batch_first=first, bias=bias, dtype=dtype, **options
    )
    ref.randomise(module, seed=layers + 2 * both)
    batch = 1 if inputs == "unbatched" else batch
    x = ref.random(steps, batch, D, seed=3, dtype=dtype)
    state = ref.initial(module, batch, dtype=dtype) if hx else None
    lengths = LENGTHS.get(inputs)
    expected = ref.stack(
        module, ref.numpy(x), [ref.numpy(s) for s in state] if hx else None, lengths=lengths
    )
    if lengths:
        given = ref.packed(x, lengths)
    elif inputs == "unbatched":
        given, state = x[:, 0], tuple(s[:, 0] for s in state) if hx else None
    else:
        given = x.transpose(0, 1).contiguous() if first else x
    if not hx:
        return Call(module, (given,), expected, lengths)
    return Call(module, (given, state if len(state) == 2 else state[0]), expected, lengths)


def flat(output):
    """Return every tensor in a module's result."""
    if isinstance(output, torch.Tensor):
        return [output]
    return [a for part in output if part is not None for a in flat(part)]


def assert_same(ours, theirs):
    assert type(ours) is type(theirs)
    assert len(flat(ours)) == len(flat(theirs))
    for a, b in zip(flat(ours), flat(theirs), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("inputs", ["batched", "unbatched", "sorted", "unsorted"])
@pytest.mark.parametrize("both", [False, True], ids=["one_way", "both_ways"])
@pytest.mark.parametrize("layers", [1, 2, 3])
@pytest.mark.parametrize("kind", KINDS)
def test_agrees_with_the_oracle_in_float64(kind, layers, both, inputs):
    for first, bias, hx in product((False, True), repeat=3):
        call = build(kind, layers, both, inputs, first=first, bias=bias, hx=hx)
        with torch.no_grad():
            outside = call.module(*call.args)
            with es.recording(call.module) as recorder:
                inside = call.module(*call.args)
        assert_same(inside, outside)
        call.check(recorder.trace)


@pytest.mark.parametrize("inputs", ["batched", "unbatched", "sorted", "unsorted"])
@pytest.mark.parametrize("both", [False, True], ids=["one_way", "both_ways"])
@pytest.mark.parametrize("layers", [1, 2, 3])
@pytest.mark.parametrize("kind", KINDS)
def test_agrees_with_the_oracle_in_float32(kind, layers, both, inputs):
    call = build(kind, layers, both, inputs, first=True, dtype=torch.float32)
    with es.recording(call.module) as recorder:
        inside = call.module(*call.args)
    assert_same(inside, call.module(*call.args))
    call.check(recorder.trace, 1e-4)
    call.check(es.record(call.module, *call.args), 1e-4)  # may run on another kernel


@pytest.mark.parametrize("kind", KINDS)
def test_final_states_agree_with_the_oracle(kind):
    """What the framework returns last is what verification compares with."""
    call = build(kind, 2, True, "unsorted")
    final = call.module(*call.args)[1]
    final = final if isinstance(final, tuple) else (final,)
    for row, (run, _) in enumerate(call.expected.values()):
        theirs = {n: ref.numpy(s[row]) for n, s in zip(run.final, final, strict=True)}
        oracles.assert_close(theirs, run.final)


@pytest.mark.parametrize("kind", ["lstm", "gru", "rnn_tanh", "rnn_relu"])
def test_agrees_with_pytorchs_own_cells(kind):
    call = build(kind, 3, True)
    x, state = call.args
    theirs = ref.by_cells(call.module, x, state if isinstance(state, tuple) else (state,))
    trace = es.record(call.module, *call.args)
    for path, states in theirs.items():
        ours = ref.values(call.leaf(trace, path))
        oracles.assert_close(ours, {n: ref.numpy(a) for n, a in states.items()})


@pytest.mark.parametrize("kind", KINDS)
def test_the_comparison_sees_wrong_weights(kind):
    """Of the upper layer, which the last output alone would not tell apart."""
    call = build(kind, 2, True)
    trace = es.record(call.module, *call.args)
    x, state = call.args
    state = [ref.numpy(s) for s in (state if isinstance(state, tuple) else (state,))]
    for leaf, suffix in (("layer_0/backward", "_l0_reverse"), ("layer_1/forward", "_l1")):
        for fault, wrong in mutations.of_gates(ref.gates(call.module, suffix)):
            expected = ref.stack(call.module, ref.numpy(x), state, wrong={leaf: wrong})
            with mutations.must_be_noticed(f"{leaf}: {fault}"):
                ref.assert_leaf(call.leaf(trace, leaf), expected[leaf], 1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_the_comparison_sees_wrong_values(kind):
    call = build(kind, 2, True, "unsorted")
    trace = es.record(call.module, *call.args)
    for path, (run, start) in call.expected.items():
        for fault, values in mutations.of_values(run.values):
            with mutations.must_be_noticed(f"{path}: {fault}"):
                wrong = (oracles.Unrolled(values, run.final), start)
                ref.assert_leaf(call.leaf(trace, path), wrong, 1e-4)
        for name in start:
            shifted = {**start, name: np.roll(start[name], 1, 0)}
            with mutations.must_be_noticed(f"{path}: initial {name} of another row"):
                ref.assert_leaf(call.leaf(trace, path), (run, shifted), 1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_the_trace_says_what_it_is(kind):
    call = build(kind, 2, True)
    leaf = call.leaf(es.record(call.module, *call.args), "layer_1/backward")
    assert leaf.h.dims[:2] == ("batch", "time")
    assert leaf.h.attrs["origin"] == "observed"
    assert leaf.attrs["module"] == type(call.module).__name__
    assert leaf.attrs["precision"] == "float64"
    if kind == "lstm_proj":
        assert leaf.h.dims[2] == "projected_unit"
        assert leaf.c.dims[2] == "unit"
    if "rnn" in kind:
        assert leaf.attrs["activation"] == call.module.nonlinearity
    else:
        assert leaf.attrs["max_error_h"] <= 1e-12
        gates = {"lstm": "ifgo", "gru": "rzn"}[kind.split("_")[0]]
        assert all(leaf[gate].attrs["origin"] == "replayed" for gate in gates)
        assert leaf.attrs["framework_gate_order"] == " ".join(gates)


@pytest.mark.parametrize("inputs", ["batched", "sorted", "unsorted"])
@pytest.mark.parametrize("both", [False, True], ids=["one_way", "both_ways"])
@pytest.mark.parametrize("kind", KINDS)
def test_dropout_between_layers_in_training(kind, both, inputs):
    """The upper layers see the input that they really got, whose mask is drawn here again."""
    call = build(kind, 3, both, inputs, dropout=0.4)
    x, lengths = ref.random(T, B, D, seed=3), call.lengths
    wide = (P if kind == "lstm_proj" else H) * (1 + both)
    torch.manual_seed(11)
    outside = call.module(*call.args)
    random_state = torch.get_rng_state()
    torch.manual_seed(11)
    masks = [mask(wide, lengths) for _ in range(2)]
    state = call.args[1] if isinstance(call.args[1], tuple) else (call.args[1],)
    state = [ref.numpy(s) for s in state]
    call.expected = ref.stack(call.module, ref.numpy(x), state, lengths=lengths, masks=masks)
    torch.manual_seed(11)
    with es.recording(call.module) as recorder:
        inside = call.module(*call.args)
    assert_same(inside, outside)
    assert torch.equal(torch.get_rng_state(), random_state)
    call.check(recorder.trace)
    still = ref.stack(call.module, ref.numpy(x), state, lengths=lengths)
    with mutations.must_be_noticed("no dropout at all"):
        call.expected = still
        call.check(recorder.trace)
    call.module.eval()
    call.check(es.record(call.module, *call.args))


def mask(wide, lengths):
    """Return what dropout draws next, as (time, batch, units)."""
    if lengths is None:
        return torch.dropout(torch.ones(T, B, wide, dtype=torch.float64), 0.4, True).numpy()
    packed = ref.packed(torch.ones(T, B, wide, dtype=torch.float64), lengths)
    dropped = packed._replace(data=torch.dropout(packed.data, 0.4, True))
    return nn.utils.rnn.pad_packed_sequence(dropped)[0].numpy()


@pytest.mark.parametrize("kind", KINDS)
def test_one_step_and_one_row(kind):
    for steps, batch in ((1, 3), (6, 1), (1, 1)):
        for both in (False, True):
            call = build(kind, 2, both, steps=steps, batch=batch)
            with es.recording(call.module) as recorder:
                call.module(*call.args)
            call.check(recorder.trace)
