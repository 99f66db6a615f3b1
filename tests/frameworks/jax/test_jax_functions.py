"""Functions as models: names, rows, branches, and what is refused."""

import functools
from types import SimpleNamespace

import numpy as np
import pytest

from everystate.errors import (
    InputError,
    NothingRecordedError,
    UnknownLayerError,
    UnsupportedModelError,
)
from everystate.testing import importorskip

jax = importorskip("jax")
jnp = importorskip("jax.numpy")

import everystate as es
from everystate.frameworks import jax as framework

T, B, D = 5, 3, 2
X = np.random.default_rng(0).normal(size=(T, B, D)).astype("float32")


def integrate(xs, start):
    def step(state, x):
        return jax.tree.map(lambda s: 0.5 * s + x.sum(), state), None

    return jax.lax.scan(step, start, xs)[0]


def test_states_are_named_by_the_structure_of_the_carry():
    start = {"v": jnp.zeros((B, D)), "w": (jnp.ones(B), jnp.ones((B, 4)))}
    leaf = es.record(integrate, X, start)["scan_0"]
    assert {n: a.dims[-1] for n, a in leaf.data_vars.items() if a.ndim == 3} == {
        "v": "unit",
        "w_0": "w_0_unit",
        "w_1": "w_1_unit",
    }
    assert leaf.v.shape == (B, T, D)
    assert leaf.w_1.shape == (B, T, 4)
    total, v = 0.0, []
    for x in X:
        total = 0.5 * total + x.sum()
        v.append(total)
    np.testing.assert_allclose(leaf.v.values[1, :, 1], v, rtol=1e-5)
    assert leaf.attrs["module"] == "step"


def test_states_with_a_name_of_the_traces_own():
    start = {"time": jnp.zeros((B, D)), "inputs": jnp.ones((B, D)), "v": jnp.zeros((B, D))}
    leaf = es.record(integrate, X, start)["scan_0"]
    assert {"state_time", "state_inputs", "v"} <= set(leaf.data_vars)
    assert leaf.time.values.tolist() == list(range(T))
    by_hand, state = [], np.ones((B, D))
    for x in X:
        state = 0.5 * state + x.sum()
        by_hand.append(state)
    np.testing.assert_allclose(leaf.state_inputs.values, np.swapaxes(by_hand, 0, 1), rtol=1e-5)


def test_a_state_without_a_batch_is_one_row():
    leaf = es.record(integrate, X[:, 0], jnp.zeros(D))["scan_0"]
    assert list(leaf.data_vars) == ["state", "initial_state"]
    assert dict(leaf.state.sizes) == {"batch": 1, "time": T, "unit": D}


def test_what_is_no_number_is_named_and_left_out():
    def counting(key, xs):
        def step(carry, x):
            key, n, v = carry
            return (jax.random.fold_in(key, n), n + 1, v + x), None

        return jax.lax.scan(step, (key, 0, jnp.zeros(D)), xs)[0]

    leaf = es.record(counting, jax.random.key(0), X[:, 0])["scan_0"]
    assert list(leaf.data_vars) == ["state_2", "initial_state_2"]
    assert leaf.attrs["not_numbers"] == "state_0, state_1"


def test_scans_in_a_scan_are_calls_of_one_layer():
    def outer(c, xs):
        h = jax.lax.scan(lambda h, x: (jnp.tanh(h + x), None), c, xs)[0]
        return 0.5 * h, h

    trace = es.record(lambda xs: jax.lax.scan(outer, jnp.zeros((B, D)), xs), X.reshape(1, T, B, D))
    leaves = {leaf.path: next(iter(leaf.data_vars)) for leaf in trace.leaves}
    assert list(leaves.values()) == ["c", "h"]
    two = es.record(
        lambda xs: jax.lax.scan(outer, jnp.zeros((B, D)), xs), X[:4].reshape(2, 2, B, D)
    )
    h = [two[f"scan_0/scan_0/call_{k}"].h.values for k in (0, 1)]
    np.testing.assert_allclose(h[0][:, 0], np.tanh(X[0]), rtol=1e-6)
    np.testing.assert_allclose(h[1][:, 0], np.tanh(0.5 * h[0][:, -1] + X[2]), rtol=1e-5)


@pytest.mark.parametrize("taken", [True, False])
def test_only_the_branch_that_ran_is_recorded(taken):
    def fn(which, xs):
        def scanned(xs):
            return integrate(xs, jnp.zeros((B, D)))

        def other(xs):
            return jax.lax.scan(lambda c, x: (c + x, None), xs[0], xs)[0]

        return jax.lax.cond(which, scanned, other, xs)

    trace = es.record(fn, np.bool_(taken), X)
    (leaf,) = trace.leaves
    assert next(iter(leaf.data_vars)) == ("state" if taken else "c")


def test_chunks_go_on_along_time():
    fn = jax.jit(integrate)
    whole = es.record(fn, X, jnp.zeros((B, D)))["scan_0"]
    state = jnp.zeros((B, D))
    with es.recording(fn, along="time") as rec:
        for chunk in (X[:2], X[2:4], X[4:]):
            state = rec.run(chunk, state)
    np.testing.assert_array_equal(rec.trace["scan_0"].state.values, whole.state.values)
    assert "state_resets" not in rec.trace["scan_0"].attrs


def test_a_selection_names_scans():
    with pytest.raises(UnknownLayerError, match=r"'encoder'; the model has: scan_0"):
        es.record(integrate, X, jnp.zeros((B, D)), select=es.Select("encoder"))
    leaf = es.record(integrate, X, jnp.zeros((B, D)), select=es.Select("scan_0", every=2))
    assert leaf["scan_0"].time.values.tolist() == [0, 2, 4]


def test_which_objects_are_functions_of_jax():
    assert framework.matches(integrate)
    assert framework.matches(jax.jit(integrate))
    assert framework.matches(jax.vmap(integrate))
    assert framework.matches(functools.partial(jax.jit(integrate), start=0.0))
    assert not framework.matches(len)
    assert not framework.matches(SimpleNamespace)
    assert not framework.matches(SimpleNamespace(__call__=integrate))


def test_methods_of_other_frameworks_are_not_claimed():
    torch = importorskip("torch")
    lstm = torch.nn.LSTM(2, 3)
    assert not framework.matches(lstm)
    assert not framework.matches(lstm.forward)


def from_a_number(xs):
    """A scan that starts with Python's 0.0, which stands in the trace as a literal."""

    def step(h, x):
        return 0.5 * h + x.sum(), None

    return jax.lax.scan(step, 0.0, xs)[0]


def test_a_carry_that_starts_as_a_python_float():
    wanted = [0.0]
    for x in X.astype("float64"):
        wanted.append(0.5 * wanted[-1] + x.sum())
    for fn in (from_a_number, jax.jit(from_a_number)):
        leaf = es.record(fn, X)["scan_0"]
        np.testing.assert_allclose(leaf.h.values[0, :, 0], wanted[1:], rtol=1e-5)
        assert leaf.initial_h.values.tolist() == [[0.0]]
    states = framework.tap_scans(from_a_number)(X)[1]["scan_0"]
    assert {name: (type(a), a.shape) for name, a in states.items()} == {
        "h": (type(jnp.zeros(1)), (T,)),
        "initial_h": (type(jnp.zeros(1)), ()),
    }
    assert states["initial_h"].dtype == jnp.float32


def test_a_loop_and_a_tuple_that_start_with_python_floats():
    def loop(x):
        return jax.lax.fori_loop(0, 6, lambda i, h: 0.5 * h + x.sum(), 0.0)

    def both(xs):
        def step(state, x):
            return (0.9 * state[0] + x.sum(), state[1] + x[0, 0]), None

        return jax.lax.scan(step, (0.0, jnp.zeros(4)), xs)[0]

    found = es.record(loop, X)["scan_0"]
    assert found.h.values[0, -1, 0] == pytest.approx(X.sum() * (2 - 0.5**5), rel=1e-5)
    found = es.record(both, X)["scan_0"]
    assert (found.state_0.shape, found.state_1.shape) == ((1, T, 1), (1, T, 4))


def test_scans_of_no_floating_numbers_are_told_from_no_scans():
    def count(xs):
        return jax.lax.scan(lambda n, _: (n + 1, None), jnp.int32(0), xs)[0]

    with pytest.raises(NothingRecordedError, match=r"count: its scans carry integers only, which"):
        es.record(count, X)


LAMBDA = np.exp(np.linspace(-0.5, -0.05, 4) + 1j * np.linspace(0.1, 2.0, 4))
MIX = np.random.default_rng(5).normal(size=(D, 4)) + 1j * np.random.default_rng(6).normal(
    size=(D, 4)
)


def lru(xs, start):
    """Orvieto et al. 2023 (arXiv:2303.06349), equation 3: a diagonal, complex recurrence."""

    def step(state, x):
        h = jnp.asarray(LAMBDA, "complex64") * state["h"] + x @ jnp.asarray(MIX, "complex64")
        return {"h": h, "n": state["n"] + 1.0}, h.real

    return jax.lax.scan(step, start, xs)[1]


def test_complex_states_are_recorded_as_two_parts():
    start = np.random.default_rng(7).normal(size=(2, B, 4))
    h = start[0] + 1j * start[1]
    trace = es.record(lru, X, {"h": jnp.asarray(h, "complex64"), "n": jnp.ones(B)})
    leaf = trace["scan_0"]
    np.testing.assert_allclose(leaf.initial_h_imag, h.imag, rtol=1e-6)
    for t, x in enumerate(X.astype("float64")):
        h = LAMBDA * h + x @ MIX
        np.testing.assert_allclose(leaf.h_real.isel(time=t), h.real, atol=1e-5)
        np.testing.assert_allclose(leaf.h_imag.isel(time=t), h.imag, atol=1e-5)
    assert set(leaf.data_vars) == {
        *("h_real", "h_imag", "n", "initial_h_real", "initial_h_imag", "initial_n")
    }
    assert leaf.n.attrs["long_name"] == "n"  # no candidate: nobody knows this cell
    assert leaf.attrs["precision"] == "float32"
    assert "range of h_imag" in str(es.summary(trace))
    assert "range of n" in str(es.summary(trace))


def test_an_associative_scan_has_no_steps_and_is_told_so():
    def minimal(xs):
        def join(a, b):
            return a[0] * b[0], b[0] * a[1] + b[1]

        z = jax.nn.sigmoid(xs)
        return jax.lax.associative_scan(join, (1 - z, z * jnp.tanh(xs)))[1]

    with pytest.raises(NothingRecordedError, match=r"associative_scan .* return them"):
        es.record(minimal, X)


def test_what_holds_no_states_is_refused():
    with pytest.raises(NothingRecordedError, match=r"double has no lax\.scan"):
        es.record(double, X)
    with es.recording(integrate) as rec:
        integrate(X, jnp.zeros((B, D)))
    with pytest.raises(NothingRecordedError, match=r"called by the recorder: rec\.run\(x\)"):
        _ = rec.trace
    with pytest.raises(NothingRecordedError, match=r"while_loop.*no fixed number of steps"):
        es.record(jax.jit(until_large), X)
    with pytest.raises(UnsupportedModelError, match=r"got the function integrate.*tap_scans"):
        es.unroll(integrate, X)


def double(x):
    return 2 * x


def until_large(x):
    return jax.lax.while_loop(lambda v: v.sum() < 100.0, lambda v: 2 * v + 1.0, x)


def test_a_scan_of_no_steps_is_refused():
    with pytest.raises(InputError, match="0 time steps"):
        es.record(integrate, X[:0], jnp.zeros((B, D)))


def test_shapes_that_do_not_fit_are_jaxs_own_error():
    with pytest.raises(TypeError, match="incompatible shapes"):
        es.record(lambda xs: jax.lax.scan(lambda c, x: (c + x, None), jnp.zeros(3), xs), X[:, 0])
