"""Recording changes nothing: results, gradients, random numbers, hooks, weights, buffers."""

from contextlib import ExitStack, contextmanager, nullcontext

import numpy as np
import pytest

from everystate.testing import importorskip

torch = importorskip("torch")

from torch import nn
from torch.nn.utils import parametrizations

import everystate as es
import torch_reference as ref

T, B, D, H = 9, 3, 4, 5


class Model(nn.Module):
    """Every kind of layer, dropout in many places, a decoder loop, and a head."""

    def __init__(self, dtype=torch.float32):
        super().__init__()
        self.encoder = nn.LSTM(D, H, 3, bidirectional=True, dropout=0.3, dtype=dtype)
        self.projected = nn.LSTM(2 * H, H, proj_size=2, dtype=dtype)
        self.middle = nn.GRU(2, H, 2, dropout=0.2, batch_first=True, dtype=dtype)
        self.rnn = nn.RNN(H, H, nonlinearity="relu", dtype=dtype)
        self.decoder = nn.LSTM(H, H, 2, dropout=0.5, dtype=dtype)
        self.cell = nn.GRUCell(H, H, dtype=dtype)
        self.drop = nn.Dropout(0.25)
        self.head = nn.Linear(H, 2, dtype=dtype)

    def forward(self, x):
        y, _ = self.projected(self.drop(self.encoder(x)[0]))
        y = self.middle(y.transpose(0, 1))[0].transpose(0, 1)
        y, h = self.rnn(y)
        state, outputs = None, []
        for y_t in y:
            out, state = self.decoder(y_t[None], state)
            h = self.cell(self.drop(out[0]), None if h is None else h.reshape(-1, H))
            outputs.append(self.head(h))
        return torch.stack(outputs)


def model(dtype=torch.float32, train=True):
    return ref.randomise(Model(dtype), seed=1, scale=0.4).train(train)


def batch(dtype=torch.float32):
    return ref.random(T, B, D, seed=2, dtype=dtype)


def hooks(module):
    """Every registry of hooks in a module and its parts, as it stands."""
    return [
        (name, key, list(value))
        for name, part in module.named_modules()
        for key, value in vars(part).items()
        if "hook" in key and isinstance(value, dict)
    ]


def tensors(module):
    return {name: a.clone() for name, a in module.state_dict().items()}


@contextmanager
def grad():
    with torch.enable_grad():
        yield


AUTOCAST = "autocast"
MODES = {"grad": grad, "no_grad": torch.no_grad, "inference": torch.inference_mode}


@pytest.mark.parametrize("train", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    "dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16, AUTOCAST], ids=str
)
@pytest.mark.filterwarnings("ignore::UserWarning")  # of PyTorch, about kernels it lacks
def test_results_gradients_and_random_numbers_are_bitwise_the_same(dtype, mode, train):
    autocast = dtype is AUTOCAST
    dtype = torch.float32 if autocast else dtype
    seen = []
    for recorded in (False, True):
        one, x = model(dtype, train), batch(dtype)
        x.requires_grad_(mode == "grad")
        before = hooks(one)
        torch.manual_seed(3)
        with ExitStack() as contexts:
            contexts.enter_context(MODES[mode]())
            contexts.enter_context(torch.autocast("cpu", enabled=autocast))
            recorder = contexts.enter_context(es.recording(one)) if recorded else None
            y = one(x)
        if mode == "grad":
            y.float().square().sum().backward()
        seen.append(
            (y, torch.get_rng_state(), x.grad, {n: p.grad for n, p in one.named_parameters()})
        )
        assert hooks(one) == before
    assert_equal(seen[1], seen[0])
    assert len(recorder.trace.leaves) == 6 + 1 + 2 + 1 + 2 + 1


def assert_equal(a, b):
    assert type(a) is type(b)
    if isinstance(a, torch.Tensor):
        assert a.dtype == b.dtype
        assert torch.equal(a, b)
    elif isinstance(a, dict):
        assert list(a) == list(b)
        for name in a:
            assert_equal(a[name], b[name])
    elif isinstance(a, tuple):
        for one, other in zip(a, b, strict=True):
            assert_equal(one, other)


def test_a_recorded_training_run_is_the_same_training_run():
    """Some steps of an optimiser, recorded or not, end in the same weights."""
    ends = []
    for recorded in (False, True):
        one = model()
        optimiser = torch.optim.Adam(one.parameters(), 0.01)
        torch.manual_seed(4)
        with es.recording(one, along="batch") if recorded else nullcontext() as recorder:
            for k in range(3):
                loss = (one(ref.random(T, B, D, seed=k, dtype=torch.float32)) - 1).square().mean()
                optimiser.zero_grad()
                loss.backward()
                optimiser.step()
        ends.append(tensors(one))
    assert_equal(ends[1], ends[0])
    assert recorder.trace["cell"].sizes["batch"] == 3 * B


def test_the_random_numbers_drawn_after_the_block_are_the_same():
    drawn = []
    for recorded in (False, True):
        one = model()
        torch.manual_seed(5)
        np.random.seed(5)  # noqa: NPY002
        with es.recording(one) if recorded else nullcontext():
            one(batch())
            inside = torch.rand(3)
        drawn.append((inside, torch.rand(3), torch.tensor(np.random.rand(3))))  # noqa: NPY002
    assert_equal(drawn[1], drawn[0])


def test_record_leaves_the_random_state_as_a_plain_call_does():
    one = model()
    states = []
    for run in (one, lambda x: es.record(one, x)):
        torch.manual_seed(6)
        run(batch())
        states.append(torch.get_rng_state())
    assert torch.equal(*states)


@pytest.mark.parametrize("train", [True, False])
@pytest.mark.parametrize("kind", ["weight_norm", "spectral_norm", "orthogonal"])
@pytest.mark.parametrize(("module", "name"), [(nn.LSTM, "weight_hh_l1"), (nn.GRUCell, "weight_hh")])
@pytest.mark.parametrize("how", ["record", "recording"])
def test_parametrised_weights(how, module, name, kind, train):
    """spectral_norm in training moves on at each reading of the weight: not by ours."""
    options = {"num_layers": 2} if module is nn.LSTM else {}
    one = module(D, H, **options)
    getattr(parametrizations, kind)(one, name)
    ref.randomise(one, seed=8)
    one.train(train)
    x = ref.random(T, B, D, seed=1, dtype=torch.float32)
    x = x if module is nn.LSTM else x[0]
    before = tensors(one)
    with torch.no_grad():
        plain = one(x)
    after = tensors(one)
    one.load_state_dict(before)
    if how == "record":
        trace = es.record(one, x)
    else:
        with torch.no_grad(), es.recording(one) as recorder:
            assert_equal(one(x), plain)
        trace = recorder.trace
    assert_equal(tensors(one), after)
    bare = module(D, H, **options)
    one.eval()  # its weights now stand still at what the call used
    with torch.no_grad():
        for own, p in bare.named_parameters():
            p.copy_(getattr(one, own))
    if module is nn.LSTM:
        for path, leaf in ref.stack(bare, ref.numpy(x)).items():
            ref.assert_leaf(trace[f"lstm/{path}"], leaf, 1e-4)
    else:
        start = {"h": np.zeros((B, H))}
        run = ref.UNROLL["GRU"](ref.numpy(x[None]), start, ref.gates(bare))
        ref.assert_leaf(trace["grucell"], (run, start), 1e-4)


class Stopped(Exception):  # noqa: N818
    pass


def fail_in_forward(one):
    one.head.register_forward_hook(lambda *_: (_ for _ in ()).throw(Stopped()))


@pytest.mark.parametrize("where", ["block", "forward", "keyboard"])
def test_after_an_exception_hooks_are_gone_and_the_trace_is_kept(where):
    one = model(train=False)
    one.head.register_forward_pre_hook(lambda *_: None)
    if where == "forward":
        fail_in_forward(one)
    before = hooks(one)
    error = KeyboardInterrupt if where == "keyboard" else Stopped
    with pytest.raises(error), es.recording(one) as recorder:  # noqa: PT012
        one(batch())
        raise error
    assert hooks(one) == before
    trace = recorder.trace
    assert trace["encoder/layer_2/backward"].sizes["time"] == T
    expected = 1 if where == "forward" else T
    assert trace["decoder/layer_0"].sizes["time"] == trace["cell"].sizes["time"] == expected
    assert "forward" not in vars(one.encoder)


def test_after_an_exception_in_record_the_layers_have_their_own_forward():
    one = model(train=False)
    fail_in_forward(one)
    before = hooks(one)
    with pytest.raises(Stopped):
        es.record(one, batch())
    assert hooks(one) == before
    assert all("forward" not in vars(part) for part in one.modules())


def test_an_exception_that_the_user_catches_within_the_block():
    """The next call of the model is another run."""
    one = model(train=False)
    calls = []
    one.head.register_forward_hook(
        lambda *_: calls.append(1) or (_ for _ in ()).throw(Stopped()) if not calls else None
    )
    with es.recording(one) as recorder:
        with pytest.raises(Stopped):
            one(batch())
        one(batch())
    assert recorder.trace["encoder/layer_0/forward"].sizes["batch"] == 2 * B
    assert recorder.trace["cell"].length.values.tolist() == [1] * B + [T] * B


def test_the_users_own_hooks_run_as_ever():
    """Ours see the layer's own output and what its pre-hooks made of the input."""
    lstm = ref.randomise(nn.LSTM(D, H, dtype=torch.float64))
    lstm.register_forward_pre_hook(lambda _, args: (args[0] * 2,))
    lstm.register_forward_hook(lambda _m, _a, output: (output[0] * 3, output[1]))
    x = batch(torch.float64)
    outside = lstm(x)[0]
    with es.recording(lstm) as recorder:
        assert torch.equal(lstm(x)[0], outside)
    for path, leaf in ref.stack(lstm, ref.numpy(2 * x)).items():
        ref.assert_leaf(recorder.trace[f"lstm/{path}"], leaf)


def test_what_the_user_changes_in_place_stays_as_recorded():
    lstm = ref.randomise(nn.LSTM(D, H, 2, dtype=torch.float64))
    cell = ref.randomise(nn.LSTMCell(D, H, dtype=torch.float64))
    x, state = batch(torch.float64), ref.initial(lstm, B)
    expected = ref.stack(lstm, ref.numpy(x), [ref.numpy(s) for s in state])
    start = [ref.numpy(s[0]) for s in state]
    run = ref.UNROLL["LSTM"](ref.numpy(x[:1]), dict(zip("hc", start, strict=True)), ref.gates(cell))
    one = nn.ModuleDict({"lstm": lstm, "cell": cell})
    select = es.Select(variables=("states", "gates", "inputs"))
    with torch.no_grad(), es.recording(one, select=select) as recorder:
        given = tuple(s.clone() for s in state)
        stepped = cell(x[0], tuple(s[0] for s in given))
        y, last = lstm(x, given)
        for a in (y, *last, *given, *stepped, x):
            a.relu_().mul_(7.0)
        for p in one.parameters():
            p.zero_()
    for path, leaf in expected.items():
        ref.assert_leaf(recorder.trace[f"lstm/{path}"], leaf)
    ref.assert_leaf(recorder.trace["cell"], (run, dict(zip("hc", start, strict=True))))
    inputs = recorder.trace["lstm/layer_0"].inputs.values
    assert np.array_equal(inputs, np.swapaxes(ref.numpy(batch(torch.float64)), 0, 1))


def test_recordings_within_recordings():
    lstm = ref.randomise(nn.LSTM(D, H, dtype=torch.float64))
    before = hooks(lstm)
    x = batch(torch.float64)
    with es.recording(lstm) as outer, es.recording(lstm) as inner:
        y = lstm(x)[0]
    assert torch.equal(y, lstm(x)[0])
    assert outer.trace["lstm"].identical(inner.trace["lstm"])
    assert hooks(lstm) == before


def test_the_mode_and_the_weights_stay_as_they_are():
    one = model(train=True)
    one.cell.eval()
    modes = {name: part.training for name, part in one.named_modules()}
    needs = {name: p.requires_grad for name, p in one.named_parameters()}
    before = tensors(one)
    es.record(one, batch())
    assert {name: part.training for name, part in one.named_modules()} == modes
    assert {name: p.requires_grad for name, p in one.named_parameters()} == needs
    assert all(p.grad is None for p in one.parameters())
    assert_equal(tensors(one), before)
