"""What `Cell` and `Weights` promise apart from the equations."""

from dataclasses import FrozenInstanceError, replace

import numpy as np
import pytest

import cases
from everystate.cells import GRU, LSTM, SimpleRNN, Weights
from everystate.cells.activations import activation
from everystate.cells.base import split
from everystate.errors import WeightsError


@pytest.mark.parametrize(
    ("cell", "variables", "memory"),
    [
        (LSTM(), ("h", "c", "i", "f", "g", "o"), ("c",)),
        (GRU(), ("h", "r", "z", "n"), ()),
        (SimpleRNN(), ("h",), ()),
    ],
)
def test_names(cell, variables, memory):
    assert cell.variables == variables
    assert cell.memory == memory


@pytest.mark.parametrize("family", cases.FAMILIES)
def test_units_are_counted_from_the_weights(family):
    case = cases.case(family)
    assert case.cell.units(case.weights) == cases.U


def test_units_of_a_projected_lstm_are_those_of_c():
    case = cases.case("lstm", projected=cases.P)
    assert case.cell.units(case.weights) == cases.U


def test_weights_list_what_is_there():
    assert [name for name, _ in Weights(W=np.ones((4, 2)), R=np.ones((4, 1))).items()] == ["W", "R"]


def test_with_changes_a_copy():
    cell = LSTM()
    assert cell.with_(forget_bias=1.0) == LSTM(forget_bias=1.0)
    assert cell == LSTM()
    with pytest.raises(FrozenInstanceError):
        cell.forget_bias = 1.0


@pytest.mark.parametrize("family", cases.FAMILIES)
@pytest.mark.parametrize("units", [[3], [4, 0], [1, 2, 3]])
def test_units_alone_are_what_they_are_among_all(family, units):
    case = cases.case(family, peephole=family == "lstm")
    cell, w = case.cell, case.weights
    some = cell.take_units(w, np.array(units))
    a_x, a_h = cell.from_input(w, case.x), cell.from_state(w, case.expected().values["h"])
    taken = cell.from_input(some, case.x), cell.from_state(some, case.expected().values["h"])
    before = {name: case.initial[name] for name in cell.memory}
    before["h"] = case.expected().values["h"]
    among_all = cell.evolve(w, a_x, a_h, before)
    alone = cell.evolve(some, *taken, {name: a[..., units] for name, a in before.items()})
    for name in cell.variables:
        np.testing.assert_allclose(alone[name], among_all[name][..., units], rtol=1e-12)


def test_only_a_reset_before_the_product_needs_all_units():
    assert GRU().unit_wise
    assert LSTM().unit_wise
    assert SimpleRNN().unit_wise
    assert not GRU(reset="before").unit_wise


@pytest.mark.parametrize("family", cases.FAMILIES)
def test_right_weights_pass_the_check(family):
    case = cases.case(family, peephole=family == "lstm", projected=2 if family == "lstm" else None)
    case.cell.check(case.weights, "rnn")


@pytest.mark.parametrize(
    ("name", "shape", "message"),
    [
        ("W", (21, 4), "encoder/lstm: W has 21 rows, not a multiple of the 4 gates of LSTM"),
        ("W", (20,), r"encoder/lstm: W has shape \(20,\), expected \(gates \* units, features\)"),
        ("R", (20, 4), r"encoder/lstm: R has shape \(20, 4\), expected \(20, 5\) for 5 units"),
        ("R", (16, 5), r"R has shape \(16, 5\), expected \(20, 5\)"),
        ("b", (5,), r"b has shape \(5,\), expected \(20,\)"),
        ("b_R", (20, 1), r"b_R has shape \(20, 1\), expected \(20,\)"),
        ("peephole", (3, 4), r"peephole has shape \(3, 4\), expected \(3, 5\)"),
        ("projection", (5, 2), r"R has shape \(20, 2\), expected \(20, 5\)"),
        ("projection", (2,), r"projection has shape \(2,\), expected \(2, 5\)"),
    ],
)
def test_misshapen_weights_are_refused(name, shape, message):
    case = cases.case("lstm", peephole=True, projected=2 if name == "projection" else None)
    with pytest.raises(WeightsError, match=message):
        case.cell.check(replace(case.weights, **{name: np.ones(shape)}), "encoder/lstm")


def test_an_unknown_activation_is_refused_with_those_there_are():
    case = cases.case("simple_rnn")
    a_x = case.cell.from_input(case.weights, case.x[0])
    with pytest.raises(WeightsError, match=r"unknown activation 'swish'; there are tanh, sigmoid"):
        SimpleRNN(activation="swish").step(case.weights, a_x, case.initial)
    assert activation("relu")(np.array(-1.0)) == 0.0


def test_split_is_a_view_of_equal_parts():
    a = np.arange(12.0).reshape(2, 6)
    parts = split(a, 3)
    np.testing.assert_array_equal(np.concatenate(parts, axis=-1), a)
    assert all(np.shares_memory(part, a) for part in parts)
