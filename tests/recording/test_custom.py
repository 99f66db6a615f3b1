"""A cell of one's own: unrolled and recorded, whatever its arrays and their structure."""

from functools import partial

import numpy as np
import pytest

import everystate as es
import mutations
import oracles
from everystate.errors import (
    InputError,
    InputTypeError,
    NothingRecordedError,
    UnsupportedModelError,
)
from everystate.testing import importorskip

T, B, D = 6, 3, 4
X = np.random.default_rng(0).normal(size=(T, B, D))
STATE = tuple(np.random.default_rng(1).normal(size=(2, B, D)))


def two_integrators(x, state):
    """A fast and a slow leaky integrator; the slow one reads the fast one."""
    fast, slow = state
    fast = 0.5 * fast + x
    return fast, 0.9 * slow + 0.1 * fast * fast


two_integrators.everystate_states = ("fast", "slow")


class Nested:
    """The same, as an object whose state is nested, and which returns an output."""

    everystate_states = ("slow", "fast")

    def __call__(self, x, state):
        fast, slow = two_integrators(x, (state["inner"][0]["v"], state["outer"]))
        return fast - slow, {"outer": slow, "inner": ({"v": fast},)}


class Named:
    """The same, in a mapping by the states' names, in another order."""

    everystate_states = ("fast", "slow")

    def __call__(self, x, state):
        fast, slow = two_integrators(x, (state["fast"], state["slow"]))
        return {"slow": slow, "fast": fast}


CELLS = {
    "function": (two_integrators, lambda f, s: (f, s)),
    "nested": (Nested(), lambda f, s: {"outer": s, "inner": ({"v": f},)}),
    "mapping": (Named(), lambda f, s: {"slow": s, "fast": f}),
}


def kind_name(cell):
    return type(cell).__name__.lower()


def expected(slow_of=0.9):
    """The same by hand, one element at a time."""
    found = {"fast": np.empty((T, B, D)), "slow": np.empty((T, B, D))}
    for place in np.ndindex(B, D):
        fast, slow = STATE[0][place], STATE[1][place]
        for t in range(T):
            fast = fast / 2 + X[(t, *place)]
            slow = slow * slow_of + fast**2 / 10
            found["fast"][(t, *place)], found["slow"][(t, *place)] = fast, slow
    return found


@pytest.mark.parametrize("kind", CELLS)
def test_unroll_on_numpy(kind):
    cell, pack = CELLS[kind]
    out = es.unroll(cell, X, pack(*STATE))
    wanted = expected()
    (states,) = out.states.values()
    oracles.assert_close(states, wanted)
    last = pack(wanted["fast"][-1], wanted["slow"][-1])
    assert type(out.final_state) is type(last)
    if kind == "nested":
        oracles.assert_close({"y": out.outputs}, {"y": wanted["fast"] - wanted["slow"]})
    else:
        first = cell.everystate_states[0]
        oracles.assert_close({"y": out.outputs}, {"y": wanted[first]})


@pytest.mark.parametrize("kind", CELLS)
def test_record_on_numpy(kind):
    cell, pack = CELLS[kind]
    trace = es.record(cell, X, pack(*STATE), select=es.Select(variables=("states", "inputs")))
    (leaf,) = trace.leaves
    assert leaf.path == {"function": "/two_integrators"}.get(
        kind, f"/{type(cell).__name__.lower()}"
    )
    shown = {name: leaf[name].values for name in ("fast", "slow", "inputs")}
    wanted = {name: a.swapaxes(0, 1) for name, a in {**expected(), "inputs": X}.items()}
    oracles.assert_close(shown, wanted)
    starts = {f"initial_{n}": leaf[f"initial_{n}"].values for n in ("fast", "slow")}
    oracles.assert_close(starts, {"initial_fast": STATE[0], "initial_slow": STATE[1]})
    with mutations.must_be_noticed("another time constant"):
        oracles.assert_close(shown, {n: a.swapaxes(0, 1) for n, a in expected(0.8).items()}, 1e-3)
    assert "slow" in str(es.summary(trace))


def test_calls_of_one_stream_are_joined():
    with es.recording(two_integrators, along="time") as recorder:
        state = STATE
        for chunk in np.split(X, [1, 4]):
            outputs, state = recorder.run(chunk, state)
    assert outputs.shape == (2, B, D)
    leaf = recorder.trace["two_integrators"]
    wanted = {name: a.swapaxes(0, 1) for name, a in expected().items()}
    oracles.assert_close({n: leaf[n].values for n in wanted}, wanted)


def in_place(x, state):
    """The two integrators, in the arrays that they are given."""
    fast, slow = state
    fast[:] = 0.5 * fast + x
    slow[:] = 0.9 * slow + 0.1 * fast * fast
    return fast, state


in_place.everystate_states = ("fast", "slow")


def test_a_cell_that_changes_its_state_in_place():
    trace = es.record(in_place, X, tuple(a.copy() for a in STATE))
    out = es.unroll(in_place, X, tuple(a.copy() for a in STATE))
    leaf, wanted = trace["in_place"], expected()
    for name, first in zip(("fast", "slow"), STATE, strict=True):
        shown = {
            "recorded": leaf[name].values.swapaxes(0, 1),
            "unrolled": out.states["in_place"][name],
        }
        oracles.assert_close(shown, dict.fromkeys(shown, wanted[name]))
        np.testing.assert_array_equal(leaf[f"initial_{name}"], first)
    oracles.assert_close({"outputs": out.outputs}, {"outputs": wanted["fast"]})


def test_a_part_of_it():
    select = es.Select(variables="slow", units=[2, 0], every=2)
    leaf = es.record(two_integrators, X, STATE, select=select)["two_integrators"]
    assert set(leaf.data_vars) == {"slow", "initial_fast", "initial_slow"}
    wanted = expected()["slow"].swapaxes(0, 1)[:, ::2, [2, 0]]
    oracles.assert_close({"slow": leaf.slow.values}, {"slow": wanted})


def test_partials_and_states_without_a_batch():
    def decay(rate, x, v):
        return rate * v + x

    cell = partial(decay, 0.5)
    cell.everystate_states = "v"
    trace = es.record(cell, X[:, 0], np.zeros(D))
    assert dict(trace["decay"].v.sizes) == {"batch": 1, "time": T, "unit": D}
    scalar = es.record(cell, X[:, 0, 0], np.array(1.0))
    assert dict(scalar["decay"].v.sizes) == {"batch": 1, "time": T, "unit": 1}
    assert dict(scalar["decay"].initial_v.sizes) == {"batch": 1, "unit": 1}


@pytest.mark.parametrize("kind", CELLS)
def test_gradients_in_torch_are_those_of_the_loop(kind):
    torch = importorskip("torch")
    function, pack = CELLS[kind]

    class Cell(torch.nn.Module):
        everystate_states = function.everystate_states

        def __init__(self):
            super().__init__()
            self.gain = torch.nn.Parameter(torch.tensor(0.7, dtype=torch.float64))

        def forward(self, x, state):
            return function(self.gain * x, state)

    cell = Cell()
    x = torch.from_numpy(X).requires_grad_()
    start = [torch.from_numpy(s.copy()).requires_grad_() for s in STATE]
    leaves = [x, *start, cell.gain]

    def by_hand():
        fast, slow, total = *start, 0.0
        for t in range(T):
            fast, slow = two_integrators(cell.gain * x[t], (fast, slow))
            total = total + (t + 1) * slow.square().sum() + fast.sum()
        return total

    out = es.unroll(cell, x, pack(*start))
    weights = torch.arange(1.0, T + 1, dtype=torch.float64)[:, None, None]
    ours = (weights * out.states.slow.square()).sum() + out.states.fast.sum()
    for a, b in zip(*(torch.autograd.grad(y, leaves) for y in (ours, by_hand())), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)
    assert out.states.initial_fast is start[0]


def test_gradients_in_jax_are_finite_differences():
    jax = importorskip("jax")
    check_grads = importorskip("jax.test_util").check_grads
    with jax.enable_x64(True):

        def total(x, fast, slow):
            out = es.unroll(two_integrators, x, (fast, slow))
            return out.states.slow.sum() + (out.states.fast**2).sum()

        arrays = [jax.numpy.asarray(a) for a in (X, *STATE)]
        check_grads(total, arrays, order=1)


class TestWrongCells:
    def test_as_many_names_as_arrays_are_asked_for(self):
        def odd(x, state):
            return x, x, x

        odd.everystate_states = ("a", "b")
        with pytest.raises(UnsupportedModelError, match=r"names 2 states \(a, b\).*3 arrays"):
            es.unroll(odd, X, STATE)

    @pytest.mark.parametrize(
        "names",
        [
            ("v", "v"),
            ("time", "v"),
            ("v", "inputs"),
            ("v", "initial_v"),
            ("v", 1),
            ("",),
            ("v", "a/b"),
        ],
    )
    def test_names_that_would_hide_something(self, names):
        def cell(x, state):
            return tuple(s + x for s in state)

        cell.everystate_states = names
        with pytest.raises(UnsupportedModelError, match=r"everystate_states = \(.*different texts"):
            es.record(cell, X, STATE)

    def test_shapes_that_change_from_step_to_step(self):
        def grows(x, v):
            return np.concatenate([v, x], axis=-1)

        grows.everystate_states = ("v",)
        with pytest.raises(
            InputError, match=r"grows: v has shape \(3, 8\) at step 0 and \(3, 12\)"
        ):
            es.record(grows, X, STATE[0])

    def test_no_steps(self):
        with pytest.raises(InputError, match=r"two_integrators: got an input of shape \(0, 3\)"):
            es.unroll(two_integrators, np.empty((0, 3)), STATE)
        with pytest.raises(InputError, match="two_integrators: got an input of shape"):
            es.unroll(two_integrators, np.float64(3.0), STATE)

    @pytest.mark.parametrize("verb", [es.record, es.unroll])
    def test_no_state_where_one_is_needed(self, verb):
        told = r"two_integrators: got no initial state.*its arrays are fast, slow"
        with pytest.raises(InputError, match=told) as caught:
            verb(two_integrators, X)
        assert isinstance(caught.value.__cause__, TypeError)

    def test_no_state_of_a_torch_cell(self):
        torch = importorskip("torch")

        class Leaky(torch.nn.Module):
            everystate_states = ("v",)

            def forward(self, x, v):
                return 0.5 * v + x

        with pytest.raises(InputError, match=r"leaky: got no initial state.*arrays are v"):
            es.unroll(Leaky(), torch.ones(T, B, D))

    def test_more_inputs(self):
        with pytest.raises(
            InputError, match=r"got 3 inputs, expected x, or x and the state.*tuple"
        ):
            es.record(two_integrators, X, *STATE)

    def test_whole_numbers(self):
        def count(x, n):
            return n + 1

        count.everystate_states = ("n",)
        with pytest.raises(InputTypeError, match="count: n has dtype int64, expected floating"):
            es.record(count, X, np.zeros((B, 1), int))

    def test_a_class_is_no_cell(self):
        with pytest.raises(UnsupportedModelError, match=r"got the class Nested"):
            es.record(Nested, X, STATE)

    def test_steps_that_the_user_takes_alone_are_not_seen(self):
        with es.recording(two_integrators) as recorder:
            two_integrators(X[0], STATE)
        with pytest.raises(NothingRecordedError):
            recorder.trace  # noqa: B018
