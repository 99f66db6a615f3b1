"""Equinox's cells, however their model is called; cells of one's own; unroll."""

import functools
import gc
import weakref

import numpy as np
import pytest

import mutations
import oracles
from everystate.errors import InputError, InputTypeError, UnknownLayerError, UnsupportedModelError
from everystate.testing import importorskip

jax = importorskip("jax")
jnp = importorskip("jax.numpy")
eqx = importorskip("equinox")

import everystate as es

T, B, D, H = 6, 3, 4, 5
RNG = np.random.default_rng(0)
X = RNG.normal(size=(B, T, D))
START = RNG.normal(size=(2, B, H))


@pytest.fixture(autouse=True)
def float64():
    with jax.enable_x64(True):
        yield


class Model(eqx.Module):
    cell: eqx.nn.GRUCell

    def __call__(self, xs):
        return jax.lax.scan(lambda h, x: (self.cell(x, h), None), jnp.zeros(H), xs)[0]

    def looped(self, xs):
        h = jnp.zeros(H)
        for x in xs:
            h = self.cell(x, h)
        return h


@pytest.fixture
def model():
    return Model(eqx.nn.GRUCell(D, H, dtype="float64", key=jax.random.key(0)))


def gates(cell, kind="gru"):
    if kind == "lstm":
        return oracles.gates("ifgo", cell.weight_ih, cell.weight_hh, cell.bias)
    b_R = np.concatenate([np.zeros(2 * H), cell.bias_n])
    return oracles.gates("rzn", cell.weight_ih, cell.weight_hh, cell.bias, b_R)


def expected(model, gates):
    return oracles.gru(X.swapaxes(0, 1), {"h": np.zeros((B, H))}, gates).values


def run(model, xs):
    return jax.vmap(model)(xs)


HOW = {
    "vmap": lambda m: es.record(jax.vmap(m), X),
    "filter_vmap": lambda m: es.record(eqx.filter_vmap(m), X),
    "jit of vmap": lambda m: es.record(jax.jit(jax.vmap(m)), X),
    "model as an argument": lambda m: es.record(run, m, X),
    "partial": lambda m: es.record(functools.partial(run, m), X),
    "filter_jit": lambda m: es.record(eqx.filter_jit(run), m, X),
    "closure": lambda m: es.record(lambda xs: jax.vmap(m)(xs), X),
    "method in a loop": lambda m: es.record(jax.vmap(m.looped), X),
}


@pytest.mark.parametrize("how", HOW)
def test_states_and_gates_however_the_model_is_called(model, how):
    (leaf,) = HOW[how](model).leaves
    assert leaf.path == "/cell"
    ours = {n: a.values.swapaxes(0, 1) for n, a in leaf.data_vars.items() if a.ndim == 3}
    oracles.assert_close(ours, expected(model, gates(model.cell)), 1e-12)
    assert set(ours) == {"h", "r", "z", "n"}
    assert type(model.cell) is eqx.nn.GRUCell
    for fault, wrong in mutations.of_gates(gates(model.cell)):
        with mutations.must_be_noticed(fault):
            oracles.assert_close(ours, expected(model, wrong), 1e-12)


def test_the_model_is_left_alone_after_an_error(model):
    def failing(xs):
        jax.vmap(model)(xs)
        raise RuntimeError("on purpose")

    with pytest.raises(RuntimeError, match="on purpose"):
        es.record(failing, X)
    assert type(model.cell) is eqx.nn.GRUCell


def test_chunks_in_a_scan_of_their_own_keep_their_gates(model):
    """A scan around a scan: weights are the outer one's constants, and are not stacked."""

    def chunked(xs):
        def chunk(h, part):
            h = jax.lax.scan(lambda h, x: (jax.vmap(model.cell)(x, h), None), h, part)[0]
            return h, None

        return jax.lax.scan(chunk, jnp.zeros((B, H)), xs)[0]

    trace = es.record(chunked, X.swapaxes(0, 1).reshape(2, T // 2, B, D))
    wanted = expected(model, gates(model.cell))
    for name in ("h", "z"):
        parts = [trace[f"cell/call_{k}"][name].values for k in (0, 1)]
        np.testing.assert_allclose(
            np.concatenate(parts, 1), wanted[name].swapaxes(0, 1), rtol=1e-12
        )


def test_a_map_over_rows_gives_rows(model):
    leaf = es.record(lambda xs: jax.lax.map(model, xs), X)["cell"]
    ours = {n: leaf[n].values.swapaxes(0, 1) for n in ("h", "r", "z", "n")}
    oracles.assert_close(ours, expected(model, gates(model.cell)), 1e-12)


class Adaptive(eqx.Module):
    """A cell of one's own, whose names are not in the order in which JAX has its states."""

    everystate_states = ("threshold", "rate")
    gain: jax.Array

    def __call__(self, x, state):
        rate = jnp.tanh(self.gain * state["rate"] + x - state["threshold"])
        return rate, {"rate": rate, "threshold": 0.9 * state["threshold"] + 0.1 * rate}


class Network(eqx.Module):
    layers: list

    def __call__(self, xs):
        def step(state, x):
            rate, state = self.layers[0](x, state)
            return state, rate

        return jax.lax.scan(step, {"rate": jnp.zeros(D), "threshold": jnp.ones(D)}, xs)[1]


def by_hand(xs):
    rate, threshold, found = np.zeros_like(xs[:, 0]), np.ones_like(xs[:, 0]), []
    for t in range(T):
        rate = np.tanh(0.5 * rate + xs[:, t] - threshold)
        threshold = 0.9 * threshold + 0.1 * rate
        found.append((rate, threshold))
    return np.array(found)


def test_a_cell_of_ones_own_is_recorded_by_its_names():
    network = Network([Adaptive(jnp.asarray(0.5))])
    leaf = es.record(jax.vmap(network), X)["layers/0"]
    assert list(leaf.data_vars) == ["threshold", "rate", "initial_threshold", "initial_rate"]
    got = np.stack([leaf.rate.values, leaf.threshold.values])
    np.testing.assert_allclose(got, by_hand(X).transpose(1, 2, 0, 3), rtol=1e-12)
    assert leaf.attrs["module"] == "Adaptive"


def test_a_cell_of_ones_own_is_unrolled():
    start = {"rate": jnp.zeros((B, D)), "threshold": jnp.ones((B, D))}
    out = es.unroll(Adaptive(jnp.asarray(0.5)), jnp.asarray(X.swapaxes(0, 1)), start)
    rate, threshold = by_hand(X).swapaxes(0, 1)
    np.testing.assert_allclose(out.outputs, rate, rtol=1e-12)
    np.testing.assert_allclose(out.states.threshold, threshold, rtol=1e-12)


def test_names_that_do_not_fit_are_refused():
    class Wrong(Adaptive):
        everystate_states = ("rate", "threshold", "other")

    with pytest.raises(UnsupportedModelError, match=r"states are rate, threshold, other, but.* 2 "):
        es.record(Network([Wrong(jnp.asarray(0.5))]), X[0])


@pytest.mark.parametrize("kind", ["lstm", "gru"])
def test_unroll_is_the_oracles(kind):
    cls = eqx.nn.LSTMCell if kind == "lstm" else eqx.nn.GRUCell
    cell = cls(D, H, dtype="float64", key=jax.random.key(1))
    start = {"h": START[0], "c": START[1]} if kind == "lstm" else {"h": START[0]}
    state = tuple(start.values()) if kind == "lstm" else START[0]
    out = es.unroll(cell, jnp.asarray(X.swapaxes(0, 1)), jax.tree.map(jnp.asarray, state))
    wanted = getattr(oracles, kind)(X.swapaxes(0, 1), start, gates(cell, kind))
    oracles.assert_close(out.states[f"{kind}cell"], wanted.values, 1e-12)
    np.testing.assert_array_equal(out.outputs, out.states.h)
    final = dict(zip(start, out.final_state if kind == "lstm" else (out.final_state,), strict=True))
    oracles.assert_close(final, wanted.final, 1e-12)
    one = es.unroll(cell, jnp.asarray(X[0]))
    assert one.states.h.shape == (T, H)


@pytest.mark.parametrize("variable", ["c", "f", "o"])
def test_gradients_through_unroll_are_those_of_differences(variable):
    cell = eqx.nn.LSTMCell(D, H, dtype="float64", key=jax.random.key(1))
    xs = jnp.asarray(X.swapaxes(0, 1))

    def total(cell):
        return (es.unroll(cell, xs).states["lstmcell"][variable][3] ** 2).sum()

    gradient = jax.grad(total)(cell)
    step = 1e-6
    for name in ("weight_ih", "weight_hh", "bias"):
        weight = getattr(cell, name)
        nudge = jnp.zeros(weight.size).at[7].set(step).reshape(weight.shape)
        above, below = (
            float(
                total(eqx.tree_at(lambda c, name=name: getattr(c, name), cell, weight + s * nudge))
            )
            for s in (1, -1)
        )
        got = getattr(gradient, name).reshape(-1)[7]
        np.testing.assert_allclose(got, (above - below) / 2 / step, rtol=1e-6, atol=1e-9)


def test_bad_input(model):
    with pytest.raises(InputError, match=r"input of shape \(6, 3\).* and 4 features"):
        es.unroll(model.cell, jnp.ones((T, D - 1)))
    with pytest.raises(InputTypeError, match="got list, expected an array"):
        es.unroll(model.cell, [1.0, 2.0])
    with pytest.raises(UnsupportedModelError, match=r"one cell, got Model.*unroll\(model\.cell"):
        es.unroll(model, X)
    with pytest.raises(TypeError, match="missing a required argument: 'hidden'"):
        es.record(model.cell, X[0])
    with pytest.raises(UnknownLayerError, match="'decoder'; the model has: cell"):
        es.record(model, X[0], select=es.Select("decoder"))
    with pytest.raises(UnsupportedModelError, match="give the state before the first step"):
        es.unroll(Adaptive(jnp.asarray(0.5)), X[0])


def test_a_model_that_was_recorded_is_not_kept():
    model = Model(eqx.nn.GRUCell(D, H, key=jax.random.key(1)))
    es.record(model, X[0])
    weights = weakref.ref(model.cell.weight_hh)
    assert weights() is not None
    del model
    gc.collect()
    assert weights() is None
