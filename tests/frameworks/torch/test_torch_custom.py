"""Custom step modules: states as a tensor, a tuple, a dict, or nested."""

import numpy as np
import pytest

from everystate.testing import importorskip

torch = importorskip("torch")

from torch import nn

import everystate as es
import oracles
import torch_reference as ref
from everystate.errors import UnsupportedModelError

T, B, D, H = 6, 3, 4, 5


class Step(nn.Module):
    """Two leaky integrators, ``a`` and ``b``; each test gives them another structure."""

    everystate_states = ("a", "b")

    def __init__(self, pack, unpack):
        super().__init__()
        self.map = ref.randomise(nn.Linear(D, H, dtype=torch.float64))
        self.pack, self.unpack = pack, unpack

    def forward(self, x, state):
        a, b = self.unpack(state)
        a = 0.5 * a + self.map(x)
        b = 0.9 * b + a.square()
        return self.pack(a, b)


STRUCTURES = {
    "tuple": (lambda a, b: (a, b), lambda s: s),
    "list": (lambda a, b: [a, b], lambda s: s),
    "dict": (lambda a, b: {"a": a, "b": b}, lambda s: (s["a"], s["b"])),
    "dict_in_another_order": (lambda a, b: {"b": b, "a": a}, lambda s: (s["a"], s["b"])),
    "nested": (lambda a, b: ((a,), {"inner": [b]}), lambda s: (s[0][0], s[1]["inner"][0])),
}


def expected(x, a, b, weight, bias):
    """The same in NumPy."""
    found = {"a": [], "b": []}
    for x_t in x:
        a = 0.5 * a + x_t @ weight.T + bias
        b = 0.9 * b + a**2
        found["a"].append(a)
        found["b"].append(b)
    return {name: np.stack(values) for name, values in found.items()}


@pytest.mark.parametrize("with_output", [False, True], ids=["state", "output_and_state"])
@pytest.mark.parametrize("structure", STRUCTURES)
def test_any_structure_of_states(structure, with_output):
    pack, unpack = STRUCTURES[structure]
    cell = Step((lambda a, b: (a + b, pack(a, b))) if with_output else pack, unpack)
    x, a, b = ref.random(T, B, D, seed=1), *ref.random(2, B, H, seed=2)
    state = pack(a, b)
    with es.recording(nn.Sequential(cell)) as recorder:
        for x_t in x:
            state = cell(x_t, state)
            state = state[1] if with_output else state
    leaf = recorder.trace["0"]
    own = [ref.numpy(p) for p in cell.map.parameters()]
    wanted = expected(ref.numpy(x), ref.numpy(a), ref.numpy(b), *own)
    oracles.assert_close(ref.values(leaf), wanted)
    oracles.assert_close(
        {n: leaf[f"initial_{n}"].values for n in "ab"}, {"a": ref.numpy(a), "b": ref.numpy(b)}
    )
    assert set(leaf.data_vars) == {"a", "b", "initial_a", "initial_b"}
    assert {leaf[n].attrs["origin"] for n in "ab"} == {"observed"}
    assert leaf.attrs["module"] == "Step"


class Single(nn.Module):
    everystate_states = "v"

    def forward(self, x, v=None):
        return x if v is None else 0.9 * v + x


def test_one_tensor_and_no_initial_state():
    cell, v = Single(), None
    x = ref.random(T, B, D, seed=1)
    with es.recording(cell, select=es.Select(variables=("v", "inputs"), every=2)) as recorder:
        for x_t in x:
            v = cell(x_t, v)
    leaf, state, found = recorder.trace["single"], 0.0, []
    for x_t in ref.numpy(x):
        state = 0.9 * state + x_t
        found.append(state)
    oracles.assert_close(ref.values(leaf), {"v": np.stack(found)[::2], "inputs": ref.numpy(x)[::2]})
    assert "initial_v" not in leaf


def test_named_on_the_instance():
    cell = nn.GRUCell(D, H, dtype=torch.float64)
    cell.everystate_states = ("memory",)
    with es.recording(cell) as recorder:
        cell(ref.random(B, D, seed=1), ref.random(B, H, seed=2))
    assert set(recorder.trace["grucell"].data_vars) == {"memory", "initial_memory"}


def test_states_of_further_dimensions_are_flattened():
    class Grid(nn.Module):
        everystate_states = ("m",)

        def forward(self, x, m):
            return 0.5 * m + x

    cell, m = Grid(), torch.zeros(B, 2, 3, dtype=torch.float64)
    x = ref.random(T, B, 2, 3, seed=1)
    with es.recording(cell) as recorder:
        for x_t in x:
            m = cell(x_t, m)
    last = recorder.trace["grid"].m.isel(time=-1).values
    oracles.assert_close({"m": last}, {"m": ref.numpy(m).reshape(B, 6)})


def test_a_cell_within_a_custom_cell_is_recorded_beside_it():
    class Outer(nn.Module):
        everystate_states = ("h",)

        def __init__(self):
            super().__init__()
            self.inner = ref.randomise(nn.GRUCell(D, H, dtype=torch.float64))

        def forward(self, x, h):
            return self.inner(x, h)

    model = nn.ModuleDict({"outer": Outer()})
    h = torch.zeros(B, H, dtype=torch.float64)
    with es.recording(model) as recorder:
        for x_t in ref.random(T, B, D, seed=1):
            h = model["outer"](x_t, h)
    trace = recorder.trace
    assert {n.path for n in trace.leaves} == {"/outer/cell", "/outer/inner"}
    assert np.array_equal(trace["outer/cell"].h.values, trace["outer/inner"].h.values)


def test_as_many_names_as_tensors_are_asked_for():
    cell = Step(lambda a, b: (a, b, a + b), lambda s: s[:2])
    state = ref.random(2, B, H, seed=2)
    with (
        pytest.raises(UnsupportedModelError, match=r"names 2 states \(a, b\).*gave 3 arrays"),
        es.recording(cell),
    ):
        cell(ref.random(B, D, seed=1), (state[0], state[1]))


class InPlace(nn.Module):
    """One leaky integrator, in the tensors that it is given."""

    everystate_states = ("v",)

    def forward(self, x, v):
        v.mul_(0.5).add_(x)
        x.zero_()
        return v


def test_a_cell_that_changes_what_it_is_given_in_place():
    cell, x, first = InPlace(), ref.random(T, B, D, seed=1), ref.random(B, D, seed=2)
    with es.recording(cell, select=es.Select(variables=("states", "inputs"))) as rec:
        v = first.clone()
        for x_t in x.clone():
            v = cell(x_t, v)
    state, wanted = ref.numpy(first), []
    for x_t in ref.numpy(x):
        state = 0.5 * state + x_t
        wanted.append(state)
    leaf = rec.trace["inplace"]
    oracles.assert_close(ref.values(leaf), {"v": np.stack(wanted), "inputs": ref.numpy(x)})
    np.testing.assert_array_equal(leaf.initial_v, ref.numpy(first))
    assert leaf.attrs["edited_steps"] == 0
    out = es.unroll(cell, x.clone(), first.clone())
    oracles.assert_close({"v": ref.numpy(out.states["inplace"].v)}, {"v": np.stack(wanted)})


class Apart(nn.Module):
    """States as arguments of their own: ``cell(x, a, b)``."""

    everystate_states = ("a", "b")

    def __init__(self, with_output):
        super().__init__()
        self.map = ref.randomise(nn.Linear(D, H, dtype=torch.float64))
        self.with_output = with_output

    def forward(self, x, a, b):
        a = 0.5 * a + self.map(x)
        b = 0.9 * b + a.square()
        return (a - b, a, b) if self.with_output else (a, b)


@pytest.mark.parametrize("with_output", [False, True], ids=["states", "output_and_states"])
@pytest.mark.parametrize("by_name", [False, True])
def test_states_as_arguments_of_their_own(with_output, by_name):
    cell, x = Apart(with_output), ref.random(T, B, D, seed=1, dtype=torch.float64)
    first = [ref.random(B, H, seed=s, dtype=torch.float64) for s in (2, 3)]
    with es.recording(cell) as rec:
        a, b = first
        for x_t in x:
            stepped = cell(x_t, b=b, a=a) if by_name else cell(x_t, a, b)
            a, b = stepped[-2:]
    weights = [p.detach().numpy() for p in (cell.map.weight, cell.map.bias)]
    want = expected(x.numpy(), *(s.numpy() for s in first), *weights)
    leaf, out = rec.trace["apart"], es.unroll(cell, x, tuple(first))
    for name in ("a", "b"):
        np.testing.assert_allclose(leaf[name].transpose("time", ...), want[name], rtol=1e-12)
        np.testing.assert_allclose(out.states["apart"][name].detach(), want[name], rtol=1e-12)
        np.testing.assert_array_equal(leaf[f"initial_{name}"], first["ab".index(name)])
    assert (leaf.attrs["edited_steps"], leaf.attrs["precision"]) == (0, "float64")
    output = want["a"] - want["b"] if with_output else want["a"]
    np.testing.assert_allclose(out.outputs.detach(), output, rtol=1e-12)


def test_three_arrays_of_a_cell_with_one_state_argument_are_not_guessed():
    class Unclear(nn.Module):
        everystate_states = ("a", "b")

        def forward(self, x, state):
            a, b = state
            return a, b, x

    cell = Unclear()
    state = (torch.zeros(B, D), torch.zeros(B, D))
    with pytest.raises(UnsupportedModelError, match="gave 3 arrays"), es.recording(cell):
        cell(torch.zeros(B, D), state)


class Masked(Apart):
    """All states in one argument, and another argument that is none."""

    def forward(self, x, state, mask):
        a, b = 2 * [torch.zeros(B, H, dtype=x.dtype)] if state is None else state
        stepped = super().forward(x, a, b)
        return tuple(mask * s for s in stepped)


@pytest.mark.parametrize("given", [False, True])
def test_another_argument_beside_the_state_is_no_state(given):
    cell, x = Masked(with_output=False), ref.random(T, B, D, seed=1, dtype=torch.float64)
    first = tuple(ref.random(B, H, seed=s, dtype=torch.float64) for s in (2, 3))
    mask, state = torch.ones(B, 1, dtype=torch.float64), first if given else None
    with es.recording(cell) as rec:
        for x_t in x:
            state = cell(x_t, state, mask)
    begun = first if given else (torch.zeros(B, H),) * 2
    weights = [p.detach().numpy() for p in (cell.map.weight, cell.map.bias)]
    want = expected(x.numpy(), *(s.numpy() for s in begun), *weights)
    for name in ("a", "b"):
        found = rec.trace["masked"][name].transpose("time", ...)
        np.testing.assert_allclose(found, want[name], rtol=1e-12)
