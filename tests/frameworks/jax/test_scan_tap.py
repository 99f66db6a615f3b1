"""The scan tap: results unchanged, and every carry that of a loop in float64 NumPy."""

import functools

import numpy as np
import pytest

import mutations
import oracles
from everystate.errors import NothingRecordedError, UnsupportedModelError
from everystate.testing import importorskip

jax = importorskip("jax")
jnp = importorskip("jax.numpy")

from everystate.frameworks.jax import tap_scans

T, B, D = 6, 3, 4
RNG = np.random.default_rng(0)
X = RNG.normal(size=(T, B, D))
START = {"v": RNG.normal(size=(B, D)), "w": RNG.normal(size=(B, D))}


def adaptive(xs, start, *, reverse=False):
    """A leaky integrator with a slow adaptation: two states, one output that is neither."""

    def step(state, x):
        v = jnp.tanh(0.8 * state["v"] + x - 0.3 * state["w"])
        w = 0.95 * state["w"] + 0.1 * v
        return {"v": v, "w": w}, v * w

    return jax.lax.scan(step, start, xs, reverse=reverse)


def adaptive_by_hand(xs, start, *, reverse=False):
    def step(x, state):
        v = np.tanh(0.8 * state["v"] + x - 0.3 * state["w"])
        return {"v": v, "w": 0.95 * state["w"] + 0.1 * v}

    return oracles.unroll(step, xs, start, reverse=reverse).values


@pytest.fixture(autouse=True)
def float64():
    with jax.enable_x64(True):
        yield


def assert_same(ours, theirs):
    jax.tree.map(np.testing.assert_array_equal, ours, theirs)


def carried(scan):
    return {name: np.asarray(a) for name, a in scan.items() if not name.startswith("initial")}


@pytest.mark.parametrize("reverse", [False, True])
def test_carries_are_those_of_a_loop(reverse):
    fn = functools.partial(adaptive, reverse=reverse)
    result, scans = tap_scans(fn)(X, START)
    assert_same(result, fn(X, START))
    assert list(scans) == ["scan_0"]
    assert_same({n: scans["scan_0"][f"initial_{n}"] for n in START}, START)
    wanted = adaptive_by_hand(X, START, reverse=reverse)
    oracles.assert_close(carried(scans["scan_0"]), wanted, 1e-12)
    for fault, wrong in mutations.of_values(wanted):
        with mutations.must_be_noticed(fault):
            oracles.assert_close(carried(scans["scan_0"]), wrong, 1e-12)


WRAPPED = {
    "jit outside": lambda fn: (fn, jax.jit),
    "jit inside": lambda fn: (jax.jit(fn), lambda tapped: tapped),
    "jit in jit": lambda fn: (lambda *a: jax.jit(fn)(*a), jax.jit),
    "checkpoint": lambda fn: (jax.checkpoint(fn), lambda tapped: tapped),
    "checkpoint in jit": lambda fn: (jax.jit(jax.checkpoint(fn)), jax.jit),
    "unrolled": lambda fn: (fn, lambda tapped: tapped),
}


@pytest.mark.parametrize("how", WRAPPED)
def test_within_and_outside_of_transformations(how):
    fn, outside = WRAPPED[how](adaptive)
    result, scans = outside(tap_scans(fn))(X, START)
    assert_same(result, outside(fn)(X, START))
    (name,) = scans
    oracles.assert_close(carried(scans[name]), adaptive_by_hand(X, START), 1e-12)


def test_custom_derivatives_are_kept():
    @jax.custom_vjp
    def scaled(xs, start):
        return adaptive(xs, start)[0]["v"]

    def forward(xs, start):
        return scaled(xs, start), (xs, start)

    def backward(kept, g):
        return (jnp.full_like(kept[0], 7.0), jax.tree.map(jnp.zeros_like, kept[1]))

    scaled.defvjp(forward, backward)
    result, scans = tap_scans(scaled)(X, START)
    assert_same(result, scaled(X, START))
    oracles.assert_close(carried(scans["scan_0"]), adaptive_by_hand(X, START), 1e-12)
    tapped = jax.grad(lambda xs: tap_scans(scaled)(xs, START)[0].sum())(X)
    assert_same(tapped, jax.grad(lambda xs: scaled(xs, START).sum())(X))
    assert (np.asarray(tapped) == 7.0).all()

    plain = jax.custom_jvp(lambda xs: adaptive(xs, START)[0]["v"])
    plain.defjvp(lambda primals, tangents: (plain(*primals), tangents[0][0] * 3.0))
    result, scans = tap_scans(plain)(X)
    assert_same(result, plain(X))
    oracles.assert_close(carried(scans["scan_0"]), adaptive_by_hand(X, START), 1e-12)


def test_vmap_inside_and_outside():
    inside = tap_scans(jax.vmap(adaptive, in_axes=(1, 0)))(X, START)
    outside = jax.vmap(tap_scans(adaptive), in_axes=(1, 0))(X, START)
    assert_same(inside[0], jax.vmap(adaptive, in_axes=(1, 0))(X, START))
    wanted = adaptive_by_hand(X, START)
    oracles.assert_close(carried(inside[1]["scan_0"]), wanted, 1e-12)
    turned = {n: a.swapaxes(0, 1) for n, a in carried(outside[1]["scan_0"]).items()}
    oracles.assert_close(turned, wanted, 1e-12)


def loss(fn):
    def total(xs, start):
        final, ys = fn(xs, start)
        return (ys**2).sum() + final["v"].sum()

    return total


def test_gradients_of_the_result_are_unchanged():
    tapped = jax.grad(loss(lambda *a: tap_scans(adaptive)(*a)[0]), argnums=(0, 1))
    assert_same(tapped(X, START), jax.grad(loss(adaptive), argnums=(0, 1))(X, START))


def test_gradients_of_a_state_in_the_middle():
    def of_state(xs):
        return (tap_scans(adaptive)(xs, START)[1]["scan_0"]["w"][3] ** 2).sum()

    gradient, step = np.asarray(jax.jit(jax.grad(of_state))(X)), 1e-6
    for t, row, unit in [(0, 0, 0), (2, 1, 3), (3, 2, 1)]:
        nudge = np.zeros_like(X)
        nudge[t, row, unit] = step
        above, below = (
            (adaptive_by_hand(X + sign * nudge, START)["w"][3] ** 2).sum() for sign in (1, -1)
        )
        np.testing.assert_allclose(gradient[t, row, unit], (above - below) / 2 / step, rtol=1e-7)
    assert (gradient[4:] == 0.0).all()


def test_a_gradient_inside_is_tapped_forwards_and_backwards():
    fn = jax.grad(loss(adaptive))
    result, scans = tap_scans(fn)(X, START)
    assert_same(result, fn(X, START))
    forwards, _backwards = scans.values()
    wanted = adaptive_by_hand(X, START)
    wanted = {"state_0": wanted["v"], "state_1": wanted["w"]}  # JAX forgets names here
    oracles.assert_close(carried(forwards), wanted, 1e-12)


def test_scans_inside_scans():
    def outer(c, xs):
        h = jax.lax.scan(lambda h, x: (jnp.tanh(h + x), None), c, xs)[0]
        return 0.5 * h, h

    chunks = X.reshape(2, T // 2, B, D)
    result, scans = jax.jit(tap_scans(lambda xs: jax.lax.scan(outer, START["v"], xs)))(chunks)
    assert_same(result, jax.jit(lambda xs: jax.lax.scan(outer, START["v"], xs))(chunks))
    wanted, c, inner = [], START["v"], []
    for chunk in chunks:
        h = c
        for x in chunk:
            h = np.tanh(h + x)
            inner.append(h)
        c = 0.5 * h
        wanted.append(c)
    assert list(scans) == ["scan_0", "scan_0/scan_0"]
    np.testing.assert_allclose(scans["scan_0"]["c"], wanted, rtol=1e-12)
    got = np.asarray(scans["scan_0/scan_0"]["h"])
    assert got.shape == (2, T // 2, B, D)
    np.testing.assert_allclose(got.reshape(T, B, D), inner, rtol=1e-12)
    with mutations.must_be_noticed("the axes of time swapped"):
        swapped = got.reshape(T // 2, 2, B, D).swapaxes(0, 1).reshape(T, B, D)
        np.testing.assert_allclose(swapped, inner, rtol=1e-12)


@pytest.mark.parametrize("taken", [0, 1])
def test_a_branch_that_is_not_taken_is_nan(taken):
    def fn(which, xs):
        branches = [lambda xs: adaptive(xs, START)[0]["v"], lambda xs: xs[0]]
        return jax.lax.switch(which, branches, xs)

    result, scans = tap_scans(fn)(taken, X)
    assert_same(result, fn(taken, X))
    if taken:
        assert np.isnan(scans["scan_0"]["v"]).all()
    else:
        oracles.assert_close(carried(scans["scan_0"]), adaptive_by_hand(X, START), 1e-12)


def test_a_fori_loop_with_fixed_bounds_is_a_scan():
    def fn(v):
        return jax.lax.fori_loop(2, 7, lambda i, v: 0.5 * v + i, v)

    result, scans = tap_scans(fn)(1.0)
    wanted, v = [], 1.0
    for i in range(2, 7):
        v = 0.5 * v + i
        wanted.append(v)
    assert result == v
    np.testing.assert_array_equal(scans["scan_0"]["v"], wanted)


def test_what_is_passed_on_unchanged_is_no_state():
    def fn(xs, gain):
        return jax.lax.scan(lambda c, x: ((c[0] * c[1] + x, c[1]), None), (0.0, gain), xs)[0]

    _, scans = tap_scans(fn)(X[:, 0, 0], 0.5)
    assert [name for name in scans["scan_0"] if "initial" not in name] == ["state_0"]


def test_random_keys_and_counts_are_carried_as_they_are():
    def fn(key, xs):
        def step(carry, x):
            key, n = carry
            key, now = jax.random.split(key)
            return (key, n + 1), x + jax.random.normal(now)

        return jax.lax.scan(step, (key, 0), xs)

    key = jax.random.key(3)
    result, scans = jax.jit(tap_scans(fn))(key, X[:, 0, 0])
    assert_same(result[1], jax.jit(fn)(key, X[:, 0, 0])[1])
    assert scans["scan_0"]["state_0"].shape == (T,)
    assert jax.random.key_data(scans["scan_0"]["state_0"][-1]).tolist() == (
        jax.random.key_data(result[0][0]).tolist()
    )
    assert scans["scan_0"]["state_1"].tolist() == list(range(1, T + 1))


def test_a_while_loop_is_refused_with_its_place():
    def counting(x):
        return jax.lax.while_loop(lambda v: v.sum() < 10.0, lambda v: v + 1.0, x)

    with pytest.raises(NothingRecordedError, match=r"counting.*while_loop.*test_scan_tap.py.*fori"):
        tap_scans(counting)(X)

    def around(x):
        def again(v):
            return jax.lax.scan(lambda c, x: (c + x, None), v, X)[0]

        return jax.lax.while_loop(lambda v: v.sum() < 10.0, again, x)

    with pytest.raises(UnsupportedModelError, match=r"while_loop \(again at .*no fixed number"):
        tap_scans(around)(X[0])


def test_a_function_without_scan_says_so():
    with pytest.raises(NothingRecordedError, match=r"double has no lax\.scan"):
        tap_scans(jax.jit(double))(X)


def double(x):
    return 2 * x


def test_a_map_carries_nothing():
    def fn(xs):
        return jax.lax.map(lambda x: jax.lax.scan(lambda c, v: (c + v, None), 0.0, x)[0], xs)

    _, scans = tap_scans(fn)(X[:, :, 0])
    assert {name: list(scan) for name, scan in scans.items()} == {
        "scan_0/scan_0": ["c", "initial_c"]
    }
    np.testing.assert_allclose(scans["scan_0/scan_0"]["c"], X[:, :, 0].cumsum(1), rtol=1e-12)
    with pytest.raises(NothingRecordedError, match=r"no lax\.scan"):
        tap_scans(lambda xs: jax.lax.map(double, xs))(X)


def test_what_is_no_array_goes_through_as_it_is():
    def fn(xs, *, mode, start):
        assert mode == "fast"
        return {"out": adaptive(xs, start)[1], "mode": mode, "none": None}

    result, scans = tap_scans(fn)(X, mode="fast", start=START)
    assert result["mode"] == "fast"
    assert result["none"] is None
    oracles.assert_close(carried(scans["scan_0"]), adaptive_by_hand(X, START), 1e-12)
