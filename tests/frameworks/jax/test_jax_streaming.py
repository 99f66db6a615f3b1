"""Functions of JAX over long sequences: each scan goes on where it ended in the chunk before."""

import os
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from threading import Barrier

import numpy as np
import pytest
import xarray as xr

from everystate.testing import StreamContract, importorskip

importorskip("jax")
import jax
import jax.numpy as jnp

import everystate as es
import streamed
from everystate.analysis.reducers import Moments
from everystate.errors import InputError, UncuttableError, UnknownLayerError
from everystate.frameworks import jax as framework
from everystate.frameworks.jax import carries
from everystate.frameworks.jax.running import Target
from everystate.frameworks.jax.streaming import Chunks

T, B, D, U = 150, 2, 3, 5
LITTLE = 5_000
"""Memory that no sequence here fits into whole."""
W = jnp.asarray(np.random.default_rng(0).normal(size=(D, U)), jnp.float32)
R = jnp.asarray(np.random.default_rng(3).normal(0, 0.3, size=(U, U)), jnp.float32)


def sequence() -> np.ndarray:
    return np.random.default_rng(1).normal(size=(T, B, D)).astype("float32")


@pytest.fixture
def x() -> np.ndarray:
    return sequence()


def leaky(xs):
    """A state of floats beside a counter, and nothing."""

    def step(state, x):
        v = 0.9 * state["v"] + x @ W + 0.01 * state["steps"]
        return {"v": v, "steps": state["steps"] + 1, "none": None}, v > 1.0

    begin = {"v": jnp.full((B, U), 0.3), "steps": 0, "none": None}
    return jax.lax.scan(step, begin, xs)[1]


@jax.custom_jvp
def lower(xs):
    return jax.lax.scan(lambda h, x: (jnp.tanh(x @ W + h @ R),) * 2, jnp.zeros((B, U)), xs)[1]


@lower.defjvp
def _lower(primals, tangents):
    raise AssertionError("nobody asks for derivatives")


@jax.jit
def stacked(xs):
    """Two scans under `jax.jit`, one of them in a function with a derivative of its own."""

    def upper(carry, x):
        h, fast = carry
        h = jnp.tanh(h @ R - x)
        fast = 0.5 * fast + h.astype(jnp.bfloat16)
        return (h, fast), (h, fast)

    begin = jnp.full((B, U), -0.2), jnp.ones((B, U), jnp.bfloat16)
    ys, _ = jax.lax.scan(upper, begin, lower(xs))[1]
    return jax.lax.map(lambda y: y.sum(), ys)


def noisy(xs):
    """A key that is split at each step; the batch comes first."""

    def step(carry, x):
        h, key, scale = carry
        key, now = jax.random.split(key)
        h = 0.5 * h + scale * x @ W + 0.1 * jax.random.normal(now, (B, U))
        return (h, key, scale), h

    begin = jnp.ones((B, U)), jax.random.key(7), jnp.float32(0.5)
    return jax.lax.scan(step, begin, xs.swapaxes(0, 1))[1]


def counted(xs):
    """A `fori_loop`, which finds its input by a counter that begins anew in each chunk."""

    def step(t, h):
        return jnp.tanh(xs[t] @ W + h @ R)

    return jax.lax.fori_loop(0, len(xs), step, jnp.full((B, U), 0.1))


def test_layers_known_only_once_the_function_is_called(x, tmp_path):
    whole = es.record(leaky, x)
    got = es.record(leaky, x, store=tmp_path / "run.zarr")
    assert streamed.compare(got, whole) == 0
    reduced = es.record(leaky, x, reduce=[Moments()], memory=LITTLE)["scan_0/v/moments"]
    wanted = np.asarray(whole["scan_0"].v, float).reshape(-1, U).mean(0)
    np.testing.assert_allclose(reduced["mean"], wanted, rtol=1e-6)
    with pytest.raises(UnknownLayerError, match="the model has: scan_0"):
        es.record(leaky, x, store=tmp_path / "no.zarr", select=es.Select(layers="scan_9"))
    assert os.listdir(tmp_path) == ["run.zarr"]


class TestStacked(StreamContract):
    framework = framework

    def model(self):
        return stacked

    def sequence(self):
        return sequence()


@pytest.mark.parametrize("fn", [leaky, noisy, counted])
def test_cutting_changes_no_value(fn, x, tmp_path):
    x = x.swapaxes(0, 1) if fn is noisy else x
    streamed.check(fn, x, tmp_path, memory=LITTLE)


def test_an_iterator_of_chunks(x, tmp_path):
    pieces = iter(np.split(x, [1, 8, 110, 113]))
    got = es.record(leaky, pieces, store=tmp_path / "run.zarr", chunk=64, memory=LITTLE)
    assert streamed.compare(got, es.record(leaky, x)) == 0


def test_random_keys_go_on_where_they_were_stopped(x, tmp_path):
    streamed.check_resumed(noisy, x.swapaxes(0, 1), tmp_path, memory=LITTLE)


def test_a_carry_that_is_not_handed_on_shows(x, tmp_path, monkeypatch):
    monkeypatch.setattr(carries, "moves", lambda eqn: [])
    with pytest.raises(UncuttableError, match="v of /scan_0 differs by up to"):
        es.record(leaky, x, store=tmp_path / "run.zarr", memory=LITTLE)


def test_a_step_of_ones_own(x, tmp_path):
    def model(xs, h):
        return jax.lax.scan(lambda h, x: (jnp.tanh(x @ W + h @ R),) * 2, h, xs)

    def step(chunk, state):
        begun = state is None
        h, ys = model(chunk, jnp.full((B, U), 0.4) if begun else state["h"][0])
        return ys, {"h": (h, None)}

    with es.recording(model) as rec:
        rec.run(x, jnp.full((B, U), 0.4))
    options = {"step": step, "chunk": 37, "time_axis": 0}
    got = es.record(model, x, store=tmp_path / "run.zarr", **options)
    assert streamed.compare(got, rec.trace) == 0
    options["step"] = lambda chunk, _: step(chunk, None)
    forgetful = es.record(model, x, store=tmp_path / "forgetful.zarr", **options)
    assert streamed.compare(forgetful, rec.trace) > 0.1
    with pytest.raises(InputError, match=r"none of its scans is seen.* Say time_axis=0"):
        es.record(model, x, store=tmp_path / "no.zarr", step=step)


def scan(xs, **options):
    return jax.lax.scan(lambda h, x: (0.5 * h + x,) * 2, jnp.ones(xs.shape[1:]), xs, **options)[1]


@pytest.mark.parametrize(
    ("fn", "said"),
    [
        (lambda xs: scan(xs, reverse=True), "reads backwards: it begins at the end"),
        (lambda xs: scan(xs[::2]), r"runs 15 steps over an input of 29, not one for each"),
        (lambda xs: scan(jnp.concatenate([xs, xs])), "runs 58 steps over an input of 29"),
        (lambda xs: jax.lax.map(scan, xs.swapaxes(0, 1)), "has a scan along time in it"),
        (
            lambda xs: jax.lax.cond(xs[0, 0, 0] < 9.0, scan, lambda xs: xs, xs),
            "is within a lax.cond or a shard_map",
        ),
        (lambda xs: scan(xs - xs.mean(0)), "it sees other steps than those before"),
        (lambda xs: scan(xs + jnp.arange(len(xs))[:, None, None]), "it sees other steps"),
        (lambda xs: scan(jax.lax.cumsum(xs)), "it sees other steps than those before"),
    ],
)
def test_what_cannot_be_cut(fn, said, x, tmp_path):
    with pytest.raises(UncuttableError, match=said):
        es.record(fn, x, store=tmp_path / "run.zarr", memory=LITTLE)


def test_what_cannot_be_cut_is_run_whole_where_there_is_room(x, tmp_path):
    fn = partial(scan, reverse=True)
    got = es.record(fn, x, store=tmp_path / "run.zarr")
    assert streamed.compare(got, es.record(fn, x)) == 0


def test_a_scan_of_a_length_of_its_own_is_left_alone(x, tmp_path):
    """It begins anew in each chunk, so it is no sequence of steps that could be recorded."""

    def model(xs):
        power = jax.lax.fori_loop(0, 17, lambda _, v: jnp.tanh(R @ v), jnp.ones(U))
        return scan(xs @ W * power)

    options = {"store": tmp_path / "run.zarr", "chunk": 37, "memory": LITTLE}
    with pytest.raises(UncuttableError, match="/scan_0 runs other steps in pieces"):
        es.record(model, x, **options)
    select = es.Select(layers="scan_1")
    got = es.record(model, x, **options, select=select)
    assert streamed.compare(got, es.record(model, x, select=select)) < 1e-6


def test_a_function_that_does_otherwise_on_longer_chunks(x, tmp_path):
    def model(xs):
        return scan(xs[::2] if len(xs) > 40 else xs)

    options = {"store": tmp_path / "run.zarr", "memory": LITTLE, "time_axis": 0}
    with pytest.raises(UncuttableError, match="/scan_0 runs other steps in pieces"):
        es.record(model, x, **options)
    chunks = Chunks(model, Target(model))
    _, state = chunks.step(x[:30], None)
    with pytest.raises(UncuttableError, match="runs 30 steps over an input of 60, not one for"):
        chunks.step(x[:60], state)
    with pytest.raises(
        UncuttableError, match=r"of shape \(2, 3\) at the end .* one of shape \(1, 3"
    ):
        chunks.step(x[:30, :1], state)
    with pytest.raises(UncuttableError, match="carries other states than in the chunk before"):
        chunks.step(x[:30], [[*state[0], *state[0]]])
    with pytest.raises(UncuttableError, match="not those that the state was carried by"):
        chunks.step(x[:31], [*state, *state])


def test_a_stream_of_ones_own(x, tmp_path):
    def model(xs, begin):
        with jax.named_scope("lower"):
            h, ys = jax.lax.scan(lambda h, x: (jnp.tanh(x @ W + h @ R),) * 2, begin[0], xs)
            with jax.named_scope("upper"):
                g = jax.lax.scan(lambda g, y: (0.5 * g + y, None), begin[1], ys)[0]
        return h, g

    begin = jnp.full((B, U), 0.3), jnp.ones((B, U))
    with es.recording(model) as rec:
        rec.run(x, begin)
    state = begin
    with es.recording(model, store=tmp_path / "run.zarr", along="time") as stream:
        for part in np.split(x, [40, 41, 99]):
            state = stream.run(part, state)
    assert rec.trace.groups == ("/", "/lower", "/lower/cell", "/lower/upper")
    assert stream.trace.groups == rec.trace.groups
    assert streamed.compare(stream.trace, rec.trace) == 0
    select = es.Select(layers="other")
    stream = es.recording(model, select=select, reduce=[Moments()], along="time")
    with pytest.raises(UnknownLayerError, match="has: lower, lower/upper"), stream as rec:
        rec.run(x, begin)


def test_threads_may_record_the_same_function_at_once(tmp_path):
    def record(seed):
        x = np.random.default_rng(seed).normal(size=(90, B, D)).astype("float32")
        together.wait()
        cut = es.record(leaky, x, store=tmp_path / f"{seed}.zarr", chunk=9, memory=LITTLE)
        return x, cut

    together = Barrier(3)
    with ThreadPoolExecutor(3) as pool:
        found = list(pool.map(record, range(3)))
    for x, cut in found:
        assert streamed.compare(cut, es.record(leaky, x)) == 0


def test_time_where_the_function_does_not_tell(x, tmp_path):
    def both(xs):
        return scan(xs), scan(xs.swapaxes(0, 1))

    with pytest.raises(InputError, match=r"its scans run along several axes of its input\. Say"):
        es.record(both, x, store=tmp_path / "run.zarr")


def test_is_traced_once_for_each_length(x, tmp_path):
    traced = []

    def model(xs):
        traced.append(xs.shape[0])
        return leaky(xs)

    es.record(model, x, store=tmp_path / "run.zarr", chunk=16, memory=LITTLE)
    assert traced.count(16) == 2  # without a state, and with one
    xr.testing.assert_equal(
        es.open_trace(tmp_path / "run.zarr")["scan_0"].to_dataset(),
        es.record(leaky, x)["scan_0"].to_dataset(),
    )


def test_complex_states_go_on_from_chunk_to_chunk(x, tmp_path):
    turn = jnp.exp(jnp.linspace(-0.5, -0.05, U) + 1j * jnp.linspace(0.1, 2.0, U))

    def rotating(xs):
        def step(h, x):
            h = turn * h + x @ W
            return h, h.real

        return jax.lax.scan(step, jnp.full((B, U), 1j, "complex64"), xs)[1]

    whole = es.record(rotating, x)["scan_0"].to_dataset()
    cut = es.record(rotating, x, store=tmp_path / "t.zarr", chunk=40, memory=LITTLE)["scan_0"]
    assert set(whole.data_vars) == {"h_real", "h_imag", "initial_h_real", "initial_h_imag"}
    xr.testing.assert_allclose(cut.to_dataset().drop_attrs(), whole.drop_attrs(), atol=1e-6)
