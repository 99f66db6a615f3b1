"""Every cell and variant, alone and combined, against the float64 oracles: values and gradients."""

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import cases
import mutations
import oracles
from everystate.cells import GRU, LSTM, Cell, SimpleRNN, Weights
from everystate.cells.activations import ACTIVATIONS
from everystate.cells.lstm import clip
from everystate.testing import importorskip

P = cases.P
LSTM_VARIANTS: dict[str, dict[str, Any]] = {
    "plain": {},
    "no biases": {"biases": (False, False)},
    "one bias": {"biases": (True, False)},
    "forget bias": {"forget_bias": 1.0},
    "peepholes": {"peephole": True},
    "projection": {"projected": P},
    "cell clip": {"cell_clip": 0.4},
    "projection and its clip": {"projected": P, "projection_clip": 0.3},
    "peepholes and cell clip": {"peephole": True, "cell_clip": 0.4},
    "gate clip": {"gate_clip": 0.5},
    "coupled": {"coupled": True},
    "all of ONNX": {"peephole": True, "gate_clip": 0.5, "coupled": True},
    "all of TensorFlow 1": {
        "peephole": True,
        "cell_clip": 0.4,
        "projected": P,
        "projection_clip": 0.3,
        "forget_bias": 1.0,
    },
}
GRU_VARIANTS: dict[str, dict[str, Any]] = {
    f"{reset} {update} {biases}": {"reset": reset, "update": update, "biases": biases}
    for reset in ("after", "before")
    for update in ("keeps", "writes")
    for biases in ((True, True), (True, False), (False, False))
}
GRU_VARIANTS["gate clip after"] = {"gate_clip": 0.5}
GRU_VARIANTS["gate clip before"] = {"gate_clip": 0.5, "reset": "before"}
RNN_VARIANTS: dict[str, dict[str, Any]] = {
    "gate clip": {"gate_clip": 0.5},
    "tanh": {},
    "relu": {"activation": "relu"},
    "no biases": {"biases": (False, False)},
}
STRUCTURES = [
    *(pytest.param("lstm", variant, id=f"lstm {name}") for name, variant in LSTM_VARIANTS.items()),
    *(pytest.param("gru", variant, id=f"gru {name}") for name, variant in GRU_VARIANTS.items()),
    *(pytest.param("simple_rnn", v, id=f"simple_rnn {name}") for name, v in RNN_VARIANTS.items()),
]
OF_EACH_ACTIVATION = [
    pytest.param(family, {field: name, "scale": 0.3}, id=f"{family} {field}={name}")
    for family, (cell, _, _) in cases.FAMILIES.items()
    for field in (f.name for f in fields(cell) if f.name.endswith("activation"))
    for name in ACTIVATIONS
]


@dataclass(frozen=True)
class Arrays:
    """A case in the arrays of one library."""

    weights: Weights
    x: Any
    initial: dict[str, Any]


def in_library(case: cases.Case, asarray: Callable[[np.ndarray], Any]) -> Arrays:
    weights = Weights(**{name: asarray(a) for name, a in case.weights.items()})
    return Arrays(weights, asarray(case.x), {k: asarray(a) for k, a in case.initial.items()})


def stepped(cell: Cell, arrays: Arrays) -> dict[str, np.ndarray]:
    """What `Cell.step` makes of a sequence, each step from the state after the one before."""
    a_x = cell.from_input(arrays.weights, arrays.x)
    state, steps = arrays.initial, []
    for t in range(arrays.x.shape[0]):
        steps.append(cell.step(arrays.weights, a_x[t], state))
        state = {name: steps[-1][name] for name in cell.states}
    return {name: np.stack([np.asarray(step[name]) for step in steps]) for name in cell.variables}


def evolved(cell: Cell, arrays: Arrays, h: Any) -> dict[str, np.ndarray]:
    """What `Cell.evolve` makes of a sequence whose `h` before each step is known."""
    w = arrays.weights
    before = {**arrays.initial, "h": h}
    values = cell.evolve(w, cell.from_input(w, arrays.x), cell.from_state(w, h), before)
    return {name: np.asarray(a) for name, a in values.items()}


def h_before(case: cases.Case, expected: oracles.Unrolled) -> np.ndarray:
    return np.concatenate([case.initial["h"][None], expected.values["h"][:-1]])


@pytest.mark.parametrize(("family", "variant"), STRUCTURES)
def test_steps_equal_the_oracle(library, family, variant):
    case = cases.case(family, **variant)
    ours = stepped(case.cell, in_library(case, library.asarray))
    assert tuple(ours) == case.cell.variables
    oracles.assert_close(ours, case.expected().values, library.tolerance)


@pytest.mark.parametrize(("family", "variant"), OF_EACH_ACTIVATION)
def test_every_activation_in_every_place_equals_the_oracle(family, variant):
    case = cases.case(family, **variant)
    ours = stepped(case.cell, in_library(case, np.asarray))
    oracles.assert_close(ours, case.expected().values, 1e-13)


@pytest.mark.parametrize(("family", "variant"), STRUCTURES)
def test_all_steps_at_once_equal_the_oracle(library, family, variant):
    case = cases.case(family, seed=1, **variant)
    expected = case.expected()
    h = library.asarray(h_before(case, expected))
    ours = evolved(case.cell, in_library(case, library.asarray), h)
    oracles.assert_close(ours, expected.values, library.tolerance)


@pytest.mark.parametrize("family", cases.FAMILIES)
def test_results_have_the_dtype_of_the_arguments(library, family):
    case = cases.case(family)
    arrays = in_library(case, library.asarray)
    a_x = case.cell.from_input(arrays.weights, arrays.x)
    after = case.cell.step(arrays.weights, a_x[0], arrays.initial)
    assert {a.dtype for a in after.values()} == {arrays.x.dtype}
    assert {type(a) for a in after.values()} == {type(arrays.x)}


activations = st.sampled_from(sorted(ACTIVATIONS))
bounds = st.none() | st.floats(0.05, 2.0)
lstms = st.fixed_dictionaries(
    {
        "activation": activations,
        "recurrent_activation": activations,
        "output_activation": activations,
        "forget_bias": st.floats(-2.0, 2.0),
        "cell_clip": bounds,
        "projection_clip": bounds,
        "peephole": st.booleans(),
        "projected": st.none() | st.integers(1, 7),
        "biases": st.tuples(st.booleans(), st.booleans()),
    }
)
grus = st.fixed_dictionaries(
    {
        "reset": st.sampled_from(["after", "before"]),
        "update": st.sampled_from(["keeps", "writes"]),
        "activation": activations,
        "recurrent_activation": activations,
        "biases": st.tuples(st.booleans(), st.booleans()),
    }
)
rnns = st.fixed_dictionaries(
    {"activation": activations, "biases": st.tuples(st.booleans(), st.booleans())}
)
layers = st.one_of(
    st.tuples(st.just("lstm"), lstms),
    st.tuples(st.just("gru"), grus),
    st.tuples(st.just("simple_rnn"), rnns),
)
sizes = st.tuples(*[st.integers(1, 4)] * 4)


@settings(max_examples=60, deadline=None)
@given(layer=layers, sizes=sizes, seed=st.integers(0, 99))
def test_any_combination_equals_the_oracle(layer, sizes, seed):
    family, variant = layer
    case = cases.case(family, seed=seed, sizes=sizes, **variant)
    expected = case.expected().values
    if max(np.abs(a).max() for a in expected.values()) > 1e6:
        return  # unbounded activations grow without end, and rounding with them
    arrays = in_library(case, np.asarray)
    oracles.assert_close(stepped(case.cell, arrays), expected, 1e-9)
    oracles.assert_close(
        evolved(case.cell, arrays, h_before(case, case.expected())), expected, 1e-9
    )


class TestFaultsAreNoticed:
    """Each fault in cell, weights or results must break the comparison above."""

    @pytest.mark.parametrize("family", cases.FAMILIES)
    def test_wrong_reading_of_the_weights(self, family):
        case = cases.case(family)
        ours = stepped(case.cell, in_library(case, np.asarray))
        faults = dict(mutations.of_gates(case.gates))
        assert len(faults) >= 4
        for fault, gates in faults.items():
            with mutations.must_be_noticed(fault):
                oracles.assert_close(ours, case.expected(gates=gates).values, 1e-4)

    @pytest.mark.parametrize("family", cases.FAMILIES)
    def test_wrong_results(self, family):
        case = cases.case(family)
        ours = stepped(case.cell, in_library(case, np.asarray))
        for fault, values in mutations.of_values(case.expected().values):
            with mutations.must_be_noticed(fault):
                oracles.assert_close(ours, values, 1e-4)

    @pytest.mark.parametrize(
        ("cell", "wrong"),
        [
            (GRU(), GRU(reset="before")),
            (GRU(reset="before"), GRU()),
            (GRU(), GRU(update="writes")),
            (LSTM(), LSTM(forget_bias=1.0)),
            (LSTM(), LSTM(cell_clip=0.4)),
            (LSTM(recurrent_activation="hard_sigmoid"), LSTM(recurrent_activation="sigmoid")),
            (
                LSTM(recurrent_activation="hard_sigmoid"),
                LSTM(recurrent_activation="hard_sigmoid_keras2"),
            ),
            (LSTM(), LSTM(output_activation="linear")),
            (SimpleRNN(), SimpleRNN(activation="relu")),
            (LSTM(gate_clip=0.5), LSTM(cell_clip=0.5)),
            (LSTM(coupled=True), LSTM()),
            (GRU(gate_clip=0.5), GRU()),
            (SimpleRNN(gate_clip=0.5), SimpleRNN()),
            (SimpleRNN("leaky_relu(0.3)"), SimpleRNN("leaky_relu(0.1)")),
        ],
    )
    def test_wrong_variant(self, cell, wrong):
        family = next(name for name, (kind, _, _) in cases.FAMILIES.items() if type(cell) is kind)
        variants = {f.name: getattr(cell, f.name) for f in fields(cell)}
        case = cases.case(family, **variants)
        arrays = in_library(case, np.asarray)
        oracles.assert_close(stepped(cell, arrays), case.expected().values)
        with mutations.must_be_noticed(f"{wrong} for {cell}"):
            oracles.assert_close(stepped(wrong, arrays), case.expected().values, 1e-4)

    def test_cell_clip_after_the_output(self):
        class ClipsLate(LSTM):
            def evolve(self, w, a_x, a_h, before):
                values = LSTM().evolve(w, a_x, a_h, before)
                return {**values, "c": clip(values["c"], self.cell_clip)}

        case = cases.case("lstm", cell_clip=0.4)
        with mutations.must_be_noticed("cell clip after the output"):
            ours = stepped(ClipsLate(**case.variants), in_library(case, np.asarray))
            oracles.assert_close(ours, case.expected().values, 1e-4)

    def test_projection_clip_before_the_projection(self):
        class ClipsBeforeProjection(LSTM):
            def expose(self, w, gates, states, out=None):
                h = gates["o"] * np.tanh(states["c"])
                return clip(h, self.projection_clip) @ w.projection.T

        case = cases.case("lstm", projected=P, projection_clip=0.3)
        with mutations.must_be_noticed("projection clip before the projection"):
            ours = stepped(ClipsBeforeProjection(**case.variants), in_library(case, np.asarray))
            oracles.assert_close(ours, case.expected().values, 1e-4)

    def test_peepholes_in_another_order_or_from_another_step(self):
        case = cases.case("lstm", peephole=True)
        p = case.peephole
        ours = stepped(case.cell, in_library(case, np.asarray))
        for fault, wrong in {
            "i and f swapped": {**p, "i": p["f"], "f": p["i"]},
            "f and o swapped": {**p, "f": p["o"], "o": p["f"]},
            "dropped": None,
        }.items():
            with mutations.must_be_noticed(f"peepholes: {fault}"):
                oracles.assert_close(ours, case.with_(peephole=wrong).expected().values, 1e-4)


SMOOTH = [
    pytest.param("lstm", LSTM_VARIANTS["plain"], id="lstm"),
    pytest.param("lstm", {**LSTM_VARIANTS["all of TensorFlow 1"]}, id="lstm all"),
    pytest.param("lstm", {"cell_clip": 0.4}, id="lstm cell clip"),
    pytest.param("gru", {}, id="gru after"),
    pytest.param("gru", {"reset": "before", "update": "writes"}, id="gru before"),
    pytest.param("simple_rnn", {}, id="simple_rnn"),
]


IN_TORCH_ONLY = ("lstm", "lstm cell clip")  # "lstm all" has both, and JAX compiles for long


@pytest.mark.parametrize(("family", "variant"), SMOOTH)
def test_gradients_in_torch_equal_finite_differences(family, variant):
    torch = importorskip("torch")
    case = cases.case(family, sizes=(3, 2, 2, 3), **variant)
    leaves, values = _function_of_leaves(case, torch.from_numpy)
    for leaf in leaves:
        leaf.requires_grad_()
    assert torch.autograd.gradcheck(values, leaves, check_forward_ad=True)


@pytest.mark.parametrize(("family", "variant"), [p for p in SMOOTH if p.id not in IN_TORCH_ONLY])
def test_gradients_in_jax_equal_finite_differences(family, variant):
    jax = importorskip("jax")
    check_grads = importorskip("jax.test_util").check_grads
    case = cases.case(family, sizes=(3, 2, 2, 3), **variant)
    with jax.enable_x64(True):
        leaves, values = _function_of_leaves(case, jax.numpy.asarray)
        check_grads(jax.jit(values), leaves, order=1)


def _function_of_leaves(case: cases.Case, asarray: Callable) -> tuple[tuple, Callable]:
    """Return weights, input and states as leaves, and the function from them to all values."""
    arrays = in_library(case, asarray)
    names = [name for name, _ in arrays.weights.items()]
    h = asarray(h_before(case, case.expected()))
    memory = case.cell.memory
    leaves = (
        *(a for _, a in arrays.weights.items()),
        arrays.x,
        h,
        *(arrays.initial[name] for name in memory),
    )

    def values(*leaves):
        w = replace(arrays.weights, **dict(zip(names, leaves, strict=False)))
        x, h, *state = leaves[len(names) :]
        before = {**dict(zip(memory, state, strict=True)), "h": h}
        cell = case.cell
        after = cell.evolve(w, cell.from_input(w, x), cell.from_state(w, h), before)
        return tuple(after[name] for name in cell.variables)

    return leaves, values


def test_a_wrong_gradient_is_noticed():
    torch = importorskip("torch")
    case = cases.case("lstm", sizes=(3, 2, 2, 3))
    leaves, values = _function_of_leaves(case, torch.from_numpy)
    for leaf in leaves:
        leaf.requires_grad_()

    class Wrong(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x.clone()

        @staticmethod
        def backward(ctx, grad):
            return grad.flip(0)

    with pytest.raises(RuntimeError, match="Jacobian mismatch"):
        torch.autograd.gradcheck(lambda *a: tuple(Wrong.apply(v) for v in values(*a)), leaves)
