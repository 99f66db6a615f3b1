"""`unroll`: values of the oracle, results of the module, gradients of a cell-by-cell loop."""

import pytest

from everystate.testing import importorskip

torch = importorskip("torch")

from torch import nn

import everystate as es
import oracles
import torch_reference as ref
from everystate.errors import InputError, InputTypeError, UnknownLayerError, UnsupportedModelError

T, B, D, H, P = 5, 3, 4, 6, 2
LENGTHS = (3, 5, 1)
STACKS = {
    "lstm": nn.LSTM,
    "lstm_proj": lambda *a, **k: nn.LSTM(*a, proj_size=P, **k),
    "gru": nn.GRU,
    "rnn_tanh": nn.RNN,
    "rnn_relu": lambda *a, **k: nn.RNN(*a, nonlinearity="relu", **k),
}
CELLS = {"lstm": nn.LSTMCell, "gru": nn.GRUCell, "rnn": nn.RNNCell}


def stack(kind, layers=2, both=True, **options):
    options = {"dtype": torch.float64, **options}
    return ref.randomise(STACKS[kind](D, H, layers, bidirectional=both, **options), seed=4)


def series(batch=B):
    return ref.random(T, batch, D, seed=2)


def single(state):
    return state if len(state) > 1 else state[0]


def tupled(state):
    return state if isinstance(state, tuple) else (state,)


def layer(out, module, path):
    return out.states[path] if path else out.states[type(module).__name__.lower()]


def assert_same(a, b):
    if isinstance(a, torch.Tensor):
        assert torch.equal(a, b)
        return
    assert type(a) is type(b)
    for one, other in zip(a, b, strict=True):
        if one is not None:
            assert_same(one, other)


@pytest.mark.parametrize("given", ["batched", "batch_first", "unbatched", "packed"])
@pytest.mark.parametrize("both", [False, True], ids=["one_way", "both_ways"])
@pytest.mark.parametrize("layers", [1, 2, 3])
@pytest.mark.parametrize("kind", STACKS)
def test_values_results_and_layout(kind, layers, both, given):
    module = stack(kind, layers, both, batch_first=given == "batch_first")
    batch = 1 if given == "unbatched" else B
    x, state = series(batch), ref.initial(module, batch)
    lengths = LENGTHS if given == "packed" else None
    expected = ref.stack(module, ref.numpy(x), [ref.numpy(s) for s in state], lengths=lengths)
    if given == "unbatched":
        args = x[:, 0], single(tuple(s[:, 0] for s in state))
    else:
        as_given = {
            "batched": lambda: x,
            "batch_first": lambda: x.transpose(0, 1).contiguous(),
            "packed": lambda: ref.packed(x, LENGTHS),
        }
        args = as_given[given](), single(state)
    out = es.unroll(module, *args)
    assert_same(out.outputs, module(*args)[0])
    assert_same(out.final_state, module(*args)[1])
    if lengths:
        assert out.lengths.tolist() == list(LENGTHS)
    for path, (run, start) in expected.items():
        states = layer(out, module, path)
        assert set(states) == {*run.values, *(f"initial_{n}" for n in start)}
        ours = {}
        for name in run.values:
            a = states[name].detach()
            a = a.transpose(0, 1) if given == "batch_first" else a
            ours[name] = (a[:, None] if given == "unbatched" else a).numpy()
        wanted = run.values
        if lengths:
            wanted = {n: torch.from_numpy(a).nan_to_num(0.0).numpy() for n, a in wanted.items()}
        oracles.assert_close(ours, wanted)


@pytest.mark.parametrize("kind", ["lstm", "gru", "rnn_tanh", "rnn_relu"])
@pytest.mark.parametrize("given", ["batched", "packed"])
def test_gradients_are_those_of_a_cell_by_cell_loop(kind, given):
    """Of every state and gate with respect to x, hx and every weight, bidirectional, 2 layers."""
    module = stack(kind)
    x, state = series(), ref.initial(module, B)
    leaves = (x, *state, *module.parameters())
    for a in (x, *state):
        a.requires_grad_()
    rows = [list(range(B))] if given == "batched" else [[k] for k in range(B)]
    lengths = [T] if given == "batched" else LENGTHS
    packed = x if given == "batched" else ref.packed(x, LENGTHS)
    out = es.unroll(module, packed, single(state))
    ours = {path: dict(layer(out, module, path)) for *_, path in ref.leaves(module)}
    theirs = [
        ref.by_cells(module, x[:n, which], [s[:, which] for s in state])
        for n, which in zip(lengths, rows, strict=True)
    ]
    gates = [
        {
            path: with_gates(module, suffix, x[:n, which], run, path, [s[:, which] for s in state])
            for (_, _, suffix, path) in ref.leaves(module)
        }
        for n, which, run in zip(lengths, rows, theirs, strict=True)
    ]
    for path in ours:
        for name in gates[0][path]:
            weights = ref.random(T, B, ours[path][name].shape[-1], seed=9)
            mine = (ours[path][name] * weights).sum()
            loop = sum(
                (run[path][name] * weights[:n, which]).sum()
                for n, which, run in zip(lengths, rows, gates, strict=True)
            )
            assert_gradients_close(mine, loop, leaves, f"{path}.{name}")


def with_gates(module, suffix, x, run, path, state):
    """Return the loop's states, and its gates written out, in one direction of one layer."""
    backwards = suffix.endswith("_reverse")
    lower = path.replace("layer_1", "layer_0")
    if path.startswith("layer_1"):
        x = torch.cat([run["layer_0/forward"]["h"], run["layer_0/backward"]["h"]], -1)
    row = [p for *_, p in ref.leaves(module)].index(path)
    assert lower in run
    h, h_0 = run[path]["h"], state[0][row][None]
    before = torch.cat([h[1:], h_0]) if backwards else torch.cat([h_0, h[:-1]])
    w = {
        n: getattr(module, f"{n}{suffix}") for n in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
    }
    from_x, from_h = x @ w["weight_ih"].T + w["bias_ih"], before @ w["weight_hh"].T + w["bias_hh"]
    if ref.family(module) == "LSTM":
        i, f, g, o = (from_x + from_h).chunk(4, -1)
        return {**run[path], "i": i.sigmoid(), "f": f.sigmoid(), "g": g.tanh(), "o": o.sigmoid()}
    if ref.family(module) == "GRU":
        (x_r, x_z, x_n), (h_r, h_z, h_n) = from_x.chunk(3, -1), from_h.chunk(3, -1)
        r, z = (x_r + h_r).sigmoid(), (x_z + h_z).sigmoid()
        return {**run[path], "r": r, "z": z, "n": (x_n + r * h_n).tanh()}
    return run[path]


def assert_gradients_close(mine, loop, leaves, what):
    found = [
        torch.autograd.grad(
            value, leaves, retain_graph=True, allow_unused=True, materialize_grads=True
        )
        for value in (mine, loop)
    ]
    assert any(g.any() for g in found[1]), f"{what}: the loop has no gradient at all"
    for k, (a, b) in enumerate(zip(*found, strict=True)):
        error = ((a - b).abs() / (1 + b.abs())).max()
        assert error <= 1e-10, f"{what}: gradient {k} differs by {error:.2g}"


def test_the_comparison_of_gradients_can_fail():
    """Detached states, or a loop over other weights, are seen."""
    module, other = stack("lstm", 1, False), ref.randomise(stack("lstm", 1, False), seed=5)
    x = series().requires_grad_()
    zeros = [torch.zeros(1, B, H, dtype=torch.float64)] * 2
    c = es.unroll(module, x).states.c
    loop = ref.by_cells(module, x, zeros)[""]["c"]
    assert_gradients_close(c.sum(), loop.sum(), (x,), "c")
    wrong = {
        "another loss": (c.square().sum(), loop.sum()),
        "h instead of c": (es.unroll(module, x).outputs.sum(), loop.sum()),
        "other weights": (es.unroll(other, x).states.c.sum(), loop.sum()),
        "a step cut off": (c[1:].sum(), loop.sum()),
    }
    for what, (mine, theirs) in wrong.items():
        with pytest.raises(AssertionError, match="differs by"):
            assert_gradients_close(mine, theirs, (x,), what)


@pytest.mark.parametrize("kind", STACKS)
def test_gradcheck_of_a_loss_over_all_states(kind):
    """The projection too, which PyTorch's own cells do not have."""
    module = ref.randomise(STACKS[kind](2, 3, 2, bidirectional=True, dtype=torch.float64), seed=4)
    x, state = ref.random(3, 2, 2, seed=1), ref.initial(module, 2)
    names = [name for name, _ in module.named_parameters()]

    def states(x, *rest):
        weights = dict(zip(names, rest[len(state) :], strict=True))
        with torch.nn.utils.stateless._reparametrize_module(module, weights):
            out = es.unroll(module, x, single(rest[: len(state)]))
        return tuple(a for leaf in out.states.values() for n, a in leaf.items() if n[:4] != "init")

    leaves = [a.detach().requires_grad_() for a in (x, *state, *module.parameters())]
    assert torch.autograd.gradcheck(states, leaves, fast_mode=True)


@pytest.mark.parametrize("batched", [True, False])
@pytest.mark.parametrize("given", [True, False], ids=["hx", "no_hx"])
@pytest.mark.parametrize("kind", CELLS)
def test_a_cell_is_stepped_over_the_first_axis(kind, given, batched):
    cell = ref.randomise(CELLS[kind](D, H, dtype=torch.float64))
    x, count = series(), 1 + (kind == "lstm")
    state = tuple(ref.random(2, B, H, seed=8)[:count]) if given else None
    if not batched:
        x, state = x[:, 0], None if state is None else tuple(s[0] for s in state)
    for a in (x, *(state or ())):
        a.requires_grad_()
    out = es.unroll(cell, x, single(state)) if given else es.unroll(cell, x)
    now, outputs = None if state is None else single(state), []
    for x_t in x:
        now = cell(x_t, now)
        outputs.append(tupled(now)[0])
    assert_same(out.outputs, torch.stack(outputs))
    assert_same(out.final_state, now)
    start = {
        n: torch.zeros(B, H).numpy() if state is None else ref.numpy(s.reshape(-1, H))
        for n, s in zip("hc", state or (None,) * count, strict=False)
    }
    wide = x if batched else x[:, None]
    start = {n: s[: wide.shape[1]] for n, s in start.items()}
    run = ref.UNROLL[ref.family(cell)](
        ref.numpy(wide), start, ref.gates(cell), **ref.variants(cell)
    )
    ours = {n: ref.numpy(out.states[f"{kind}cell"][n].reshape(T, -1, H)) for n in run.values}
    oracles.assert_close(ours, run.values)
    name = "c" if kind == "lstm" else "h"
    assert_gradients_close(
        out.states[f"{kind}cell"][name].sum(),
        sum_of_loop(cell, x, state, name),
        (x, *(state or ()), *cell.parameters()),
        name,
    )


def sum_of_loop(cell, x, state, name):
    now, total = None if state is None else single(state), 0.0
    for x_t in x:
        now = cell(x_t, now)
        total = total + tupled(now)[-1 if name == "c" else 0].sum()
    return total


def test_dropout_between_layers_draws_what_the_module_draws():
    module = stack("lstm", 3, True, dropout=0.4)
    x = series()
    torch.manual_seed(3)
    outputs, final = module(x)
    torch.manual_seed(3)
    out = es.unroll(module, x)
    assert torch.equal(out.outputs, outputs)
    assert_same(out.final_state, final)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("kind", STACKS)
@pytest.mark.filterwarnings("ignore:LSTM with projections")
def test_other_precisions(kind, dtype):
    """States keep the module's dtype; long sequences too, and gradients flow."""
    module = stack(kind, dtype=dtype)
    with torch.no_grad():
        for p in module.parameters():
            p.mul_(0.4)
    x = ref.random(300, 2, D, seed=1, dtype=dtype)
    out = es.unroll(module, x)
    assert torch.equal(out.outputs, module(x)[0])
    tolerance = {torch.float32: 1e-4, torch.bfloat16: 1e-1, torch.float16: 2e-2}[dtype]
    wide = ref.randomise(stack(kind), seed=4)
    wide.load_state_dict(module.double().state_dict())
    states = out.states["layer_0/forward"]
    run, _ = ref.stack(wide, ref.numpy(x))["layer_0/forward"]
    for name in run.values:
        assert states[name].dtype == dtype
    if dtype == torch.float32:  # in half precision the module itself leaves the oracle's path
        oracles.assert_close({n: ref.numpy(states[n]) for n in run.values}, run.values, tolerance)
    assert torch.isfinite(out.outputs).all()


def test_autocast():
    module = ref.randomise(nn.LSTM(D, H, 2), scale=0.3)
    x = ref.random(50, B, D, seed=1, dtype=torch.float32)
    with torch.autocast("cpu"):
        out = es.unroll(module, x)
        outputs, _ = module(x)
    assert torch.equal(out.outputs, outputs)
    run, _ = ref.stack(module, ref.numpy(x))["layer_0"]
    ours = {n: ref.numpy(a) for n, a in out.states["layer_0"].items() if n in run.values}
    oracles.assert_close(ours, run.values, 5e-2)


def test_parametrised_weights_are_in_the_graph():
    module = ref.randomise(nn.LSTM(D, H, dtype=torch.float64))
    torch.nn.utils.parametrizations.weight_norm(module, "weight_hh_l0")
    es.unroll(module, series()).states.c.sum().backward()
    originals = module.parametrizations["weight_hh_l0"]
    assert all(p.grad.any() for p in (originals.original0, originals.original1))


def test_what_comes_back_is_pleasant_to_use():
    out = es.unroll(stack("lstm", 2, False), series())
    assert list(out.states) == ["layer_0", "layer_1"]
    assert torch.equal(out.states["layer_0"].c, out.states["layer_0"]["c"])
    assert "c: (5, 3, 6)" in repr(out.states)
    assert repr(out).startswith("Unrolled(outputs: (5, 3, 6), final_state: [(2, 3, 6), (2, 3, 6)]")
    assert len(repr(out)) < 500
    assert {"c", "initial_h"} <= set(dir(out.states["layer_0"]))
    with pytest.raises(AttributeError, match=r"which layer's c\? Try states\['layer_0'\]"):
        _ = out.states.c
    with pytest.raises(AttributeError, match="no state 'r'; there are"):
        _ = out.states["layer_0"].r
    with pytest.raises(UnknownLayerError, match=r"no layer 'layer_7'; there are \['layer_0'"):
        _ = out.states["layer_7"]
    alone = es.unroll(stack("gru", 1, False), series()).states
    assert torch.equal(alone.z, alone["gru"].z)


@pytest.mark.parametrize("kind", ["lstm", "gru"])
def test_a_wrong_reading_of_the_weights_is_refused(kind, monkeypatch):
    from everystate.errors import ReplayMismatchError
    from everystate.frameworks.torch import unrolling

    right = unrolling.weights_of

    def swapped(module, suffix=""):
        w = right(module, suffix)
        rows = torch.arange(w.W.shape[0]).reshape(-1, H)
        rows = torch.cat([rows[1], rows[0], *rows[2:]])
        return type(w)(W=w.W[rows], R=w.R[rows], b=w.b, b_R=w.b_R)

    monkeypatch.setattr(unrolling, "weights_of", swapped)
    with pytest.raises(ReplayMismatchError, match="layer_0/forward: the replayed h differs"):
        es.unroll(stack(kind), series())


def test_weights_swapped_by_a_functional_call_are_those_replayed():
    module = stack("lstm", 1, False)
    weights = {n: 0.5 * p.detach() for n, p in module.named_parameters()}
    with es.recording(module) as recorder:
        torch.func.functional_call(module, weights, (series(),))
    with torch.no_grad():
        for name, p in module.named_parameters():
            p.copy_(weights[name])
    for _, leaf in ref.stack(module, ref.numpy(series())).items():
        ref.assert_leaf(recorder.trace["lstm"], leaf)


CELL = nn.LSTMCell(D, H, dtype=torch.float64)
BAD = {
    "a whole model": (nn.Sequential(CELL), series(), UnsupportedModelError, "one recurrent layer"),
    "features": (stack("lstm"), series()[..., :2], InputError, "got 2 features"),
    "dtype": (stack("lstm"), series().float(), InputTypeError, "input is float32"),
    "rank": (CELL, series()[0, 0], InputError, r"expected \(time, batch"),
    "no step": (CELL, series()[:0], InputError, "one step at least"),
    "list": (CELL, [1.0], InputTypeError, "LSTMCell: got list, expected a tensor"),
    "packed": (CELL, ref.packed(series(), LENGTHS), InputTypeError, "got PackedSequence"),
}


@pytest.mark.parametrize("what", BAD)
def test_bad_input(what):
    module, x, error, message = BAD[what]
    with pytest.raises(error, match=message):
        es.unroll(module, x)
