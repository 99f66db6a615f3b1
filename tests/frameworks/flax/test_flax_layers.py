"""Flax's layers with all their options, against float64 oracles and Flax's own results."""

import functools

import numpy as np
import pytest

import flax_reference as ref
import mutations
import oracles
from everystate.errors import (
    EverystateWarning,
    NothingRecordedError,
    UnknownLayerError,
    UnsupportedModelError,
)
from everystate.testing import importorskip

jax = importorskip("jax")
jnp = importorskip("jax.numpy")
nn = importorskip("flax.linen")
nnx = importorskip("flax.nnx")

import everystate as es

T, B, D, H = 6, 3, 4, 5
X = np.random.default_rng(2).normal(size=(B, T, D))
X32 = X.astype("float32")
LENGTHS = np.array([6, 2, 4])
START = {n: np.random.default_rng(k).normal(size=(B, H)) for k, n in enumerate("ch")}


@pytest.fixture(autouse=True)
def float64():
    with jax.enable_x64(True):
        yield


def linen(module, *inputs, seed=1, **options):
    variables = jax.eval_shape(
        functools.partial(module.init, **options), jax.random.key(0), *inputs
    )
    return jax.tree.map(lambda a: jnp.asarray(a, "float64"), ref.randomised(variables, seed))


def layer(which, kind, **options):
    """Return a layer's own call, and the gates of its cell."""
    if which == "linen":
        module = nn.RNN(getattr(nn, f"{kind}Cell")(H, param_dtype="float64"), **options)
        variables = linen(module, X)
        gates = ref.linen_gates(kind, variables["params"]["cell"])
        return functools.partial(module.apply, variables), gates
    dtypes = {"dtype": jnp.float64, "param_dtype": jnp.float64}
    cell = getattr(nnx, f"{kind}Cell")(D, H, rngs=nnx.Rngs(0), **dtypes)
    module = nnx.RNN(cell, **options)
    nnx.update(module, ref.randomised(nnx.state(module, nnx.Param), seed=1))
    return module, ref.nnx_gates(kind, cell)


OPTIONS = {
    "plain": {},
    "time major": {"time_major": True},
    "lengths": {"seq_lengths": LENGTHS},
    "lengths and carry": {"seq_lengths": LENGTHS, "return_carry": True},
    "backwards": {"reverse": True},
    "backwards in order": {"reverse": True, "keep_order": True, "time_major": True},
    "backwards with lengths": {"reverse": True, "seq_lengths": LENGTHS, "return_carry": True},
    "initial carry": {"initial_carry": True},
}


@pytest.mark.parametrize("how", OPTIONS)
@pytest.mark.parametrize(("which", "kind"), [("linen", "LSTM"), ("nnx", "GRU")])
def test_options(which, kind, how):
    options = dict(OPTIONS[how])
    model, gates = layer(which, kind)
    names = ref.STATES[kind]
    start = {n: np.zeros((B, H)) for n in names}
    if options.get("initial_carry"):
        start = {n: START[n] for n in names}
        options["initial_carry"] = (START["c"], START["h"]) if kind == "LSTM" else START["h"]
    x = X.swapaxes(0, 1) if options.get("time_major") else X

    def run(x):
        return model(x, **options)

    if which == "nnx":
        out = es.unroll(model, x, **options)
        check_unrolled(out, run(x), gates, kind, start, options)
        return
    recorded = es.record(functools.partial(model, **options), x)["rnn"]
    ours = {n: a.values for n, a in recorded.data_vars.items()}
    oracles.assert_close(ours, expected(kind, gates, start, options), 1e-12)
    for fault, wrong in mutations.of_gates(gates):
        with mutations.must_be_noticed(fault):
            oracles.assert_close(ours, expected(kind, wrong, start, options), 1e-12)


def expected(kind, gates, start, options):
    lengths, reverse = options.get("seq_lengths"), options.get("reverse", False)
    return ref.leaf(kind, gates, X.swapaxes(0, 1), start, lengths=lengths, reverse=reverse)[0]


def check_unrolled(out, own, gates, kind, start, options):
    wanted = expected(kind, gates, start, options)
    if options.get("time_major"):
        wanted = {n: a if n.startswith("i") else a.swapaxes(0, 1) for n, a in wanted.items()}
    wanted = {n: np.nan_to_num(a) for n, a in wanted.items()}
    oracles.assert_close(out.states["rnn"], wanted, 1e-12)
    carry, outputs = own if options.get("return_carry") else (None, own)
    np.testing.assert_array_equal(out.outputs, outputs)
    if carry is not None:
        np.testing.assert_array_equal(out.final_state, carry)


@pytest.mark.parametrize("reset_gate", [True, False])
def test_mgu_states_are_recorded(reset_gate):
    module = nn.RNN(nn.MGUCell(H, param_dtype="float64", reset_gate=reset_gate))
    variables = linen(module, X)
    p = jax.tree.map(np.asarray, variables["params"]["cell"])

    def step(x, state):
        h = state["h"]
        f = oracles.sigmoid(x @ p["if"]["kernel"] + p["if"]["bias"] + h @ p["hf"]["kernel"])
        inner = h @ p["hn"]["kernel"] + p["hn"].get("bias", 0.0)
        n = np.tanh(x @ p["in"]["kernel"] + p["in"]["bias"] + (f * inner if reset_gate else inner))
        return {"h": (1 - f) * n + f * h}

    leaf = es.record(module.bind(variables), X)["rnn"]
    wanted = oracles.unroll(step, X.swapaxes(0, 1), {"h": np.zeros((B, H))}).values["h"]
    np.testing.assert_allclose(leaf.h.values, wanted.swapaxes(0, 1), rtol=1e-12)
    assert leaf.attrs["module"] == "MGUCell"


def test_convolutional_lstm_states_are_those_of_the_cell_stepped_by_hand():
    images = np.random.default_rng(0).normal(size=(2, 4, 3, 5, 1))
    module = nn.RNN(nn.ConvLSTMCell(2, (3, 3), param_dtype="float64"))
    variables = linen(module, images)
    leaf = es.record(module.bind(variables), images)["rnn"]
    cell = nn.ConvLSTMCell(2, (3, 3), param_dtype="float64")
    carry = (np.zeros((2, 3, 5, 2)), np.zeros((2, 3, 5, 2)))
    for t in range(4):
        carry, _ = cell.apply({"params": variables["params"]["cell"]}, carry, images[:, t])
        c, h = (np.asarray(a).reshape(2, -1) for a in carry)
        np.testing.assert_allclose(leaf.c.values[:, t], c, rtol=1e-12)
        np.testing.assert_allclose(leaf.h.values[:, t], h, rtol=1e-12)


class Filter(nn.RNNCellBase):
    """A cell of one's own, with a nested state and names for it."""

    everystate_states = ("fast", "slow")
    features: int = D

    @nn.compact
    def __call__(self, carry, x):
        gain = self.param("gain", nn.initializers.constant(0.7), ())
        fast = gain * carry["fast"] + x
        slow = [0.9 * carry["slow"][0] + 0.1 * fast]
        return {"fast": fast, "slow": slow}, slow[0]

    def initialize_carry(self, rng, shape):
        return {"fast": jnp.zeros(shape), "slow": [jnp.zeros(shape)]}

    @property
    def num_feature_axes(self):
        return 1


def test_a_cell_of_ones_own_keeps_its_names():
    module = nn.RNN(Filter())
    trace = es.record(module.bind(module.init(jax.random.key(0), X)), X)
    fast, slow, wanted = np.zeros((B, D)), np.zeros((B, D)), []
    for t in range(T):
        fast = 0.7 * fast + X[:, t]
        slow = 0.9 * slow + 0.1 * fast
        wanted.append((fast, slow))
    got = np.stack([trace["rnn"].fast.values, trace["rnn"].slow.values])
    np.testing.assert_allclose(got, np.array(wanted).transpose(1, 2, 0, 3), rtol=1e-6)


def test_what_flax_does_not_know_is_named_by_its_structure():
    class Plain(nn.RNNCellBase):
        initialize_carry, num_feature_axes = Filter.initialize_carry, Filter.num_feature_axes

        @nn.compact
        def __call__(self, carry, x):
            fast = 0.7 * carry["fast"] + x
            slow = [0.9 * carry["slow"][0] + 0.1 * fast]
            return {"fast": fast, "slow": slow}, slow[0]

    module = nn.RNN(Plain())
    trace = es.record(module.bind(module.init(jax.random.key(0), X)), X)
    assert list(trace["rnn"].data_vars) == ["fast", "slow_0", "initial_fast", "initial_slow_0"]


def test_a_changed_cell_is_recorded_without_gates():
    class Leaking(nnx.GRUCell):
        def __call__(self, carry, x):
            h, y = super().__call__(carry, x)
            return 0.5 * h, y

    model = nnx.RNN(Leaking(D, H, rngs=nnx.Rngs(0)))
    assert list(es.record(model, X32)["rnn"].data_vars) == ["h", "initial_h"]


@pytest.mark.parametrize("stored", ["bfloat16", "float32"])
def test_half_precision_is_verified_in_its_own_rounding(stored):
    dtypes = {"dtype": jnp.bfloat16, "param_dtype": stored}
    init = nnx.initializers.lecun_normal()
    cell = nnx.GRUCell(D, H, rngs=nnx.Rngs(0), recurrent_kernel_init=init, **dtypes)
    leaf = es.record(nnx.RNN(cell), jnp.asarray(X32, stored))["rnn"]
    assert leaf.attrs["precision"] == "bfloat16"
    assert leaf.attrs["max_error_h"] < 0.05
    assert leaf.r.dtype == np.float32


def test_a_stream_in_chunks_is_one_sequence():
    model, _ = layer("linen", "GRU")
    whole = es.record(model, X)

    @jax.jit
    def chunk(x, carry):
        return model(x, initial_carry=carry, return_carry=True)

    carry = jnp.zeros((B, H))
    with es.recording(chunk, along="time") as rec:
        for part in np.split(X, 3, axis=1):
            carry, _ = rec.run(part, carry)
    np.testing.assert_allclose(rec.trace["rnn"].z, whole["rnn"].z, rtol=1e-12)


def test_state_that_a_model_changes_is_kept():
    class Counting(nnx.Module):
        def __init__(self):
            self.rnn = nnx.RNN(nnx.GRUCell(D, H, rngs=nnx.Rngs(0)))
            self.calls = nnx.Variable(jnp.zeros((), int))

        def __call__(self, x):
            self.calls.set_value(self.calls.get_value() + 1)
            return self.rnn(x)

    model = Counting()
    es.record(model, X32)
    assert int(model.calls.get_value()) == 1


def test_what_jit_remembers_neither_hides_cells_nor_keeps_their_tags():
    module = nn.RNN(nn.GRUCell(H))
    variables = module.init(jax.random.key(0), X32)
    jitted = jax.jit(module.apply)
    before = jitted(variables, X32)
    assert "z" in es.record(jitted, variables, X32)["rnn"]
    assert "everystate" not in str(jax.make_jaxpr(jitted)(variables, X32))
    np.testing.assert_array_equal(jitted(variables, X32), before)


class Deep(nn.Module):
    """One layer over and over, each time with weights of its own: a scan around a scan."""

    @nn.compact
    def __call__(self, x):
        rnn = nn.RNN(nn.GRUCell(D))
        layers = nn.scan(
            lambda rnn, h, _: (rnn(h), None),
            variable_axes={"params": 0},
            split_rngs={"params": True},
            length=2,
        )
        return layers(rnn, x, None)[0]


def test_layers_that_are_scanned_over_are_told_apart():
    variables = Deep().init(jax.random.key(0), X32)
    trace, x = es.record(Deep().bind(variables), X32), X32.swapaxes(0, 1)
    (params,) = variables["params"].values()
    for k in range(2):
        own = jax.tree.map(lambda a, k=k: a[k], params)
        wanted, x = ref.leaf("GRU", ref.linen_gates("GRU", own), x)
        leaf = trace[f"RNN_0/layer_{k}"]
        oracles.assert_close({n: a.values for n, a in leaf.data_vars.items()}, wanted, 1e-5)


def test_functions_of_nnx_modules():
    model = nnx.RNN(nnx.GRUCell(D, H, rngs=nnx.Rngs(0)))
    wanted = es.record(model, X32)["rnn"].z.values

    @nnx.jit
    def jitted(model, x):
        return model(x)

    for fn in (jitted, lambda model, x: model(x)):
        np.testing.assert_allclose(es.record(fn, model, X32)["rnn"].z.values, wanted, rtol=1e-5)
    assert type(model.cell) is nnx.GRUCell
    with pytest.raises(Exception, match="Cannot mutate") as caught:
        es.record(lambda x: model(x), X32)
    assert "may have to be given as an argument" in str(caught.value.__notes__)


@pytest.mark.parametrize("kind", ["LSTM", "OptimizedLSTM", "GRU", "Simple"])
@pytest.mark.parametrize("which", ["linen", "nnx"])
def test_gradients_of_a_gate_are_those_of_differences(which, kind):
    model, _ = layer(which, kind)
    bound = model if which == "nnx" else model.func.__self__.bind(model.args[0])
    name = {"LSTM": "f", "OptimizedLSTM": "c", "GRU": "z", "Simple": "h"}[kind]

    def of_input(x):
        return (
            es.unroll(bound, x).states[next(iter(es.unroll(bound, x).states))][name][:, 4] ** 2
        ).sum()

    gradient, step = np.asarray(jax.grad(of_input)(jnp.asarray(X))), 1e-6
    for row, t, unit in [(0, 0, 1), (2, 3, 2)]:
        nudge = np.zeros_like(X)
        nudge[row, t, unit] = step
        above, below = (float(of_input(X + sign * nudge)) for sign in (1, -1))
        np.testing.assert_allclose(
            gradient[row, t, unit], (above - below) / 2 / step, rtol=1e-6, atol=1e-10
        )
    assert (gradient[:, 5:] == 0.0).all()


def test_bad_input():
    module = nn.RNN(nn.GRUCell(H))
    with pytest.raises(UnsupportedModelError, match=r"RNN without variables.*module\.bind"):
        es.record(module, X32)
    with pytest.raises(UnsupportedModelError, match=r"one recurrent layer or cell, got Dense"):
        es.unroll(nn.Dense(3).bind({}), X32)
    model = nnx.RNN(nnx.GRUCell(D, H, rngs=nnx.Rngs(0)))
    with pytest.raises(UnknownLayerError, match=r"'decoder'; the model has: rnn"):
        es.record(model, X32, select=es.Select("decoder"))
    bound = module.bind(module.init(jax.random.key(0), X32))
    with pytest.raises(UnknownLayerError, match=r"'decoder'; the model has: rnn"):
        es.record(bound, X32, select=es.Select("decoder"))
    with pytest.raises(NothingRecordedError, match=r"no lax\.scan"):
        es.record(nnx.Linear(D, H, rngs=nnx.Rngs(0)), X32)


def test_calls_within_a_transformation_are_warned_of_once_and_others_recorded(recwarn):
    model = nnx.RNN(nnx.GRUCell(D, H, rngs=nnx.Rngs(0)))

    @nnx.jit
    def fitted(model, x):
        return model(x).sum()

    with es.recording(model) as rec:
        fitted(model, X32)
        fitted(model, X32[:, :2])
        model(X32)
        rec.run(X32)
    assert [w.category for w in recwarn] == [EverystateWarning]
    assert "RNN was called within jax.jit" in str(recwarn[0].message)
    np.testing.assert_array_equal(rec.trace["rnn"].h[:B], es.record(model, X32)["rnn"].h)
    assert rec.trace["rnn"].sizes["batch"] == 2 * B
