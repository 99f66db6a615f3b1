"""Layers called several times, step by step, in chunks, shared, nested; cells in a user's loop."""

import numpy as np
import pytest

from everystate.testing import importorskip

torch = importorskip("torch")

from torch import nn

import everystate as es
import mutations
import oracles
import torch_reference as ref
from everystate.errors import EverystateWarning

T, B, D, H = 7, 3, 4, 5
STACKS = {"lstm": nn.LSTM, "gru": nn.GRU, "rnn": nn.RNN}
CELLS = {"lstm": nn.LSTMCell, "gru": nn.GRUCell, "rnn": nn.RNNCell}


def stack(kind, layers=2, **options):
    module = STACKS[kind](D, H, layers, dtype=torch.float64, **options)
    return ref.randomise(module, seed=5)


def cell(kind, **options):
    return ref.randomise(CELLS[kind](D, H, dtype=torch.float64, **options), seed=6)


def series(steps=T, batch=B, seed=3):
    return ref.random(steps, batch, D, seed=seed)


def expected(module, x, state=None):
    state = None if state is None else [ref.numpy(s) for s in tupled(state)]
    return ref.stack(module, ref.numpy(x), state)


def tupled(state):
    return state if isinstance(state, tuple) else (state,)


def single(state):
    return state if len(state) > 1 else state[0]


def check(trace, root, expected, tolerance=1e-10):
    for path, leaf in expected.items():
        ref.assert_leaf(trace[f"{root}/{path}" if path else root], leaf, tolerance)


class Wrapped(nn.Module):
    """Calls a function on its one part, so that a test can say what the forward does."""

    def __init__(self, part, forward):
        super().__init__()
        self.part, self.how = part, forward

    def forward(self, *args):
        return self.how(self.part, *args)


def step_by_step(module, x, state):
    outputs = []
    for x_t in x:
        y, state = module(x_t[None], state)
        outputs.append(y)
    return torch.cat(outputs), state


@pytest.mark.parametrize("kind", STACKS)
@pytest.mark.parametrize("given", [True, False], ids=["learned_state", "no_state"])
def test_one_step_at_a_time_is_one_sequence(kind, given):
    """A decoder loop: the trace is that of one call over all the steps."""
    module = stack(kind)
    state = single(ref.initial(module, B)) if given else None
    model = Wrapped(module, step_by_step)
    trace = es.record(model, series(), state)
    check(trace, "part", expected(module, series(), state))
    assert trace["part/layer_0"].attrs["edited_steps"] == 0


@pytest.mark.parametrize("kind", STACKS)
def test_chunks_of_several_steps_are_one_sequence(kind):
    module, state = stack(kind), single(ref.initial(stack(kind), B))

    def uneven(part, x, state):
        for chunk in x.split([3, 1, 2, 1]):
            y, state = part(chunk, state)
        return y

    trace = es.record(Wrapped(module, uneven), series(), state)
    check(trace, "part", expected(module, series(), state))


@pytest.mark.parametrize("kind", STACKS)
def test_a_root_called_in_chunks_is_one_sequence(kind):
    module, state = stack(kind), None
    for along in ("batch", "time"):
        with es.recording(module, along=along) as recorder:
            state = None
            for chunk in series().split([1, 3, 1, 1, 1]):
                _, state = module(chunk, state)
        check(recorder.trace, kind, expected(module, series()))


@pytest.mark.parametrize("kind", STACKS)
def test_a_state_edited_between_steps_is_replayed_from(kind):
    """Attention or dropout on h: each step starts from what it was given, not from the last."""
    module = stack(kind, layers=1)
    edited = [ref.random(1, B, H, seed=20 + t) for t in range(T)]

    def decode(part, x, state):
        for x_t, add in zip(x, edited, strict=True):
            _, state = part(x_t[None], state)
            h, *c = tupled(state)
            state = single((0.5 * h + add, *c))

    state = single(ref.initial(module, B))
    trace = es.record(Wrapped(module, decode), series(), state)
    leaf = trace["part"]
    found, state = {}, [ref.numpy(s) for s in tupled(state)]
    for t in range(T):  # the oracle, one step at a time
        run, _ = ref.stack(module, ref.numpy(series()[t : t + 1]), state)[""]
        for name, a in run.values.items():
            found.setdefault(name, []).append(a[0])
        h = 0.5 * run.final["h"] + ref.numpy(edited[t][0])
        state = [h[None], *(run.final[n][None] for n in run.final if n != "h")]
    wanted = {name: np.stack(a) for name, a in found.items()}
    oracles.assert_close(ref.values(leaf), wanted)
    assert leaf.attrs["edited_steps"] == T - 1
    with mutations.must_be_noticed("as if the state had not been edited"):
        check(trace, "part", expected(module, series(), single(ref.initial(module, B))))


@pytest.mark.parametrize("start", ["none", "zeros", "learned"])
def test_two_sequences_are_told_apart(start):
    """The second starts afresh, however the model says so."""
    module = stack("lstm", layers=1)
    learned = ref.initial(module, B)
    states = {
        "none": None,
        "zeros": tuple(torch.zeros_like(s) for s in learned),
        "learned": learned,
    }

    def twice(part, a, b):
        step_by_step(part, a, states[start])
        step_by_step(part, b, states[start])

    a, b = series(seed=1), series(steps=4, seed=2)
    trace = es.record(Wrapped(module, twice), a, b)
    for k, x in enumerate((a, b)):
        check(trace, f"part/call_{k}", expected(module, x, states[start]))


@pytest.mark.parametrize("kind", CELLS)
def test_sequences_whose_steps_take_turns(kind):
    """Two series read side by side by one cell: each step goes on with its own."""
    module, a, b = cell(kind), series(seed=1), series(seed=2)

    def side_by_side(part, a, b):
        left = right = None
        for a_t, b_t in zip(a, b, strict=True):
            left, right = part(a_t, left), part(b_t, right)

    trace = es.record(Wrapped(module, side_by_side), a, b)
    start = {n: np.zeros((B, H)) for n in ("h", "c")[: 1 + (kind == "lstm")]}
    for call, x in enumerate((a, b)):
        run = ref.UNROLL[ref.family(module)](
            ref.numpy(x), start, ref.gates(module), **ref.variants(module)
        )
        ref.assert_leaf(trace[f"part/call_{call}"], (run, start))
        assert trace[f"part/call_{call}"].attrs["edited_steps"] == 0


def test_many_sequences_of_one_cell_keep_their_order():
    module, many = cell("gru"), [series(steps=2, seed=k) for k in range(9)]

    def one_by_one(part, *series):
        for x in series:
            state = None
            for x_t in x:
                state = part(x_t, state)

    trace = es.record(Wrapped(module, one_by_one), *many)
    for call, x in enumerate(many):
        run = oracles.gru(ref.numpy(x), {"h": np.zeros((B, H))}, ref.gates(module))
        ref.assert_leaf(trace[f"part/call_{call}"], (run, {}))


def test_nan_in_the_state_does_not_break_a_sequence():
    x = series()
    x[2, 0, 1] = torch.nan
    for steps in (1, 2):
        model = Wrapped(stack("lstm", layers=1), lambda part, x, n=steps: in_chunks(part, x, n))
        with pytest.warns(EverystateWarning, match="NaN or infinite"):
            leaf = es.record(model, x)["part"]
        assert leaf.sizes["time"] == T
        assert leaf.c.isnull()[0].any("unit").values.tolist() == [False] * 2 + [True] * (T - 2)
        assert not leaf.c.isnull()[1:].any()


def in_chunks(part, x, steps):
    state = None
    for chunk in x.split(steps):
        _, state = part(chunk, state)


def test_another_batch_size_begins_another_sequence():
    module = stack("gru", layers=1)

    def shrinking(part, x):
        _, state = step_by_step(part, x, None)
        step_by_step(part, x[:, :2], state[:, :2])

    trace = es.record(Wrapped(module, shrinking), series())
    assert trace["part/call_0"].sizes["batch"] == B
    assert trace["part/call_1"].sizes["batch"] == 2


@pytest.mark.parametrize("kind", STACKS)
def test_a_layer_shared_between_places(kind):
    module = stack(kind)

    class Twins(nn.Module):
        def __init__(self):
            super().__init__()
            self.left = self.right = module

        def forward(self, a, b):
            return self.left(a)[0], self.right(b)[0]

    a, b = series(seed=1), series(steps=5, batch=2, seed=2)
    trace = es.record(Twins(), a, b)
    assert {n.path for n in trace.leaves} == {
        f"/left/layer_{k}/call_{call}" for k in (0, 1) for call in (0, 1)
    }
    for call, x in enumerate((a, b)):
        for path, leaf in expected(module, x).items():
            ref.assert_leaf(trace[f"left/{path}/call_{call}"], leaf)


def test_a_layer_called_more_often_in_one_run_than_in_another():
    module = stack("gru", layers=1)
    model = Wrapped(module, lambda part, x, n: [part(x) for _ in range(n)])
    with es.recording(model) as recorder:
        model(series(seed=1), 1)
        model(series(seed=2), 2)
    trace = recorder.trace
    assert trace["part/call_0"].sizes["batch"] == 2 * B
    rows = trace["part/call_1"]
    check(trace, "part/call_1", expected(module, series(seed=2)))
    assert rows.sizes["batch"] == B


@pytest.mark.parametrize("kind", STACKS)
def test_nested_anywhere(kind):
    inner = [stack(kind, layers=1), stack(kind, layers=1, batch_first=True)]
    ref.randomise(inner[1], seed=9)

    class Deep(nn.Module):
        def __init__(self):
            super().__init__()
            self.blocks = nn.ModuleList([nn.ModuleDict({"a": inner[0]}), nn.Sequential(inner[1])])

        def forward(self, x):
            y, _ = self.blocks[0]["a"](x)
            return self.blocks[1]((y[..., :D]).transpose(0, 1))

    trace = es.record(nn.Sequential(Deep()), series())
    first = expected(inner[0], series())
    check(trace, "0/blocks/0/a", first)
    x = torch.from_numpy(first[""][0].values["h"][..., :D])
    check(trace, "0/blocks/1/0", expected(inner[1], x))


@pytest.mark.parametrize("root", [True, False], ids=["in_a_model", "without_a_root_call"])
@pytest.mark.parametrize("kind", CELLS)
def test_cells_in_a_users_loop(kind, root):
    module = cell(kind)

    def loop(part, x, state=None):
        for x_t in x:
            state = part(x_t, state)
        return state

    model = Wrapped(module, loop)
    rng_state = [torch.from_numpy(np.random.default_rng(k).normal(size=(B, H))) for k in (0, 1)]
    for state in (None, single(tuple(rng_state[: 1 + (kind == "lstm")]))):
        with es.recording(model) as recorder:
            model(series(), state) if root else loop(module, series(), state)
        sizes = {n: np.zeros((B, H)) for n in ("h", "c")[: 1 + (kind == "lstm")]}
        start = (
            sizes if state is None else dict(zip(sizes, map(ref.numpy, tupled(state)), strict=True))
        )
        run = ref.UNROLL[ref.family(module)](
            ref.numpy(series()), start, ref.gates(module), **ref.variants(module)
        )
        leaf = recorder.trace["part"]
        ref.assert_leaf(leaf, (run, start))
        assert leaf.h.attrs["origin"] == "observed"
        if kind == "lstm":
            assert leaf.c.attrs["origin"] == "observed"
        for fault, wrong in mutations.of_gates(ref.gates(module)):
            bad = ref.UNROLL[ref.family(module)](
                ref.numpy(series()), start, wrong, **ref.variants(module)
            )
            with mutations.must_be_noticed(fault):
                ref.assert_leaf(leaf, (bad, start))


@pytest.mark.parametrize("kind", CELLS)
def test_a_cell_that_is_the_model(kind):
    module, state = cell(kind, bias=False), None
    with es.recording(module) as recorder:
        for x_t in series():
            state = module(x_t, state)
        state = None
        for x_t in series(seed=4):
            state = module(x_t, state)
    start = {n: np.zeros((B, H)) for n in ("h", "c")[: 1 + (kind == "lstm")]}
    runs = [
        ref.UNROLL[ref.family(module)](
            ref.numpy(series(seed=seed)), start, ref.gates(module), **ref.variants(module)
        )
        for seed in (3, 4)
    ]
    both = {n: np.concatenate([r.values[n] for r in runs], 1) for n in runs[0].values}
    oracles.assert_close(ref.values(recorder.trace[f"{kind}cell"]), both)


def test_a_cell_without_a_batch():
    module, state = cell("lstm"), None
    with es.recording(module) as recorder:
        for x_t in series()[:, 0]:
            state = module(x_t, state)
    start = {n: np.zeros((1, H)) for n in "hc"}
    run = oracles.lstm(ref.numpy(series()[:, :1]), start, ref.gates(module))
    ref.assert_leaf(recorder.trace["lstmcell"], (run, start))


def test_arguments_by_name_in_any_order():
    module = stack("lstm", layers=1)
    state = ref.initial(module, B)
    model = Wrapped(module, lambda part, x: part(hx=state, input=x))
    check(es.record(model, series()), "part", expected(module, series(), state))
    with es.recording(module) as recorder:
        module(hx=state, input=series())
    check(recorder.trace, "lstm", expected(module, series(), state))


def test_weights_that_change_between_steps():
    """Online learning: each step is replayed with the weights it ran with."""
    module = cell("lstm")
    optimiser = torch.optim.SGD(module.parameters(), 0.3)
    state, found = None, []
    with es.recording(module) as recorder:
        for x_t in series():
            start = [np.zeros((B, H))] * 2 if state is None else [ref.numpy(s) for s in state]
            own = ref.gates(module)
            state = module(x_t, state)
            run = oracles.lstm(ref.numpy(x_t[None]), dict(zip("hc", start, strict=True)), own)
            found.append({n: a[0] for n, a in run.values.items()})
            optimiser.zero_grad()
            state[0].square().sum().backward()
            optimiser.step()
            state = tuple(s.detach() for s in state)
    wanted = {n: np.stack([f[n] for f in found]) for n in found[0]}
    oracles.assert_close(ref.values(recorder.trace["lstmcell"]), wanted)


def test_layers_used_and_not():
    model = nn.ModuleDict({"used": stack("gru", layers=1), "unused": stack("gru", layers=1)})
    with (
        pytest.warns(EverystateWarning, match=r"never called.*: unused\."),
        es.recording(model) as recorder,
    ):
        model["used"](series())
    assert [n.path for n in recorder.trace.leaves] == ["/used"]


def test_a_long_stream_is_handed_over_in_parts(monkeypatch):
    """Without a seam, also where a step at one starts from an edited state."""
    from everystate.frameworks.torch import watching

    monkeypatch.setattr(watching, "STEPS", 3)
    module = cell("lstm")

    def decode(part, x):
        state = None
        for t, x_t in enumerate(x):
            state = part(x_t, state)
            state = (0.5 * state[0], state[1]) if t in (2, 4) else state

    few = es.record(Wrapped(module, decode), series())
    monkeypatch.setattr(watching, "STEPS", 100)
    whole = es.record(Wrapped(module, decode), series())
    assert few["part"].attrs["edited_steps"] == whole["part"].attrs["edited_steps"] == 2
    oracles.assert_close(ref.values(few["part"]), ref.values(whole["part"]), 1e-12)
    assert np.array_equal(few["part"].time, whole["part"].time)


def test_the_trace_within_the_block_has_every_step_so_far():
    module, state = cell("lstm"), None
    with es.recording(module) as recorder:
        for k, x_t in enumerate(series()):
            state = module(x_t, state)
            if k in (0, 3):
                assert recorder.trace["lstmcell"].sizes["time"] == k + 1
    start = {n: np.zeros((B, H)) for n in "hc"}
    run = oracles.lstm(ref.numpy(series()), start, ref.gates(module))
    ref.assert_leaf(recorder.trace["lstmcell"], (run, start))
