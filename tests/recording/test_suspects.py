"""The probable cause: each usual suspect is recognised, and none is accused without proof."""

from dataclasses import replace
from itertools import permutations

import numpy as np
import pytest

import cases
import oracles
from everystate.cells import Weights
from everystate.errors import ReplayMismatchError
from everystate.recording import stretches
from everystate.recording.replay import replay
from everystate.recording.selection import Select
from observed import observed, stepwise

SIZES = (12, 3, 4, 5)


def cause(seen):
    with pytest.raises(ReplayMismatchError) as caught:
        replay(seen, Select().plan(seen))
    return str(caught.value).partition(" for float64. ")[2].partition(" Nothing of this layer")[0]


def stored(case, order):
    """The weights of a framework that stores the gates in `order`, taken for canonical."""
    arrays = oracles.stacked(case.gates, order)
    return replace(case.weights, **{n: a for n, a in arrays.items() if a.any()})


@pytest.mark.parametrize("order", list(permutations("ifgo"))[1:])
@pytest.mark.parametrize("reverse", [False, True])
def test_permuted_gates_of_an_lstm(order, reverse):
    case = cases.case("lstm", sizes=SIZES)
    seen = observed(case, weights=stored(case, order), reverse=reverse, lengths=[12, 3, 7])
    reading = f"the gates stored in the order {' '.join(order)}"
    assert cause(seen) == f"Probable cause: it does match with {reading}."


@pytest.mark.parametrize("order", list(permutations("rzn"))[1:])
def test_permuted_gates_of_a_gru(order):
    case = cases.case("gru", sizes=SIZES)
    seen = observed(case, weights=stored(case, order))
    assert f"the gates stored in the order {' '.join(order)}." in cause(seen)


@pytest.mark.parametrize("order", list(permutations("ifo"))[1:])
def test_permuted_peepholes(order):
    case = cases.case("lstm", sizes=SIZES, peephole=True)
    peephole = np.stack([case.peephole[gate] for gate in order])
    seen = observed(case, weights=replace(case.weights, peephole=peephole))
    assert f"the peepholes stored in the order {' '.join(order)}." in cause(seen)


@pytest.mark.parametrize(
    ("family", "truth", "taken_for", "reading"),
    [
        (
            "lstm",
            {"recurrent_activation": "hard_sigmoid"},
            {"recurrent_activation": "sigmoid"},
            "recurrent_activation='hard_sigmoid'",
        ),
        (
            "lstm",
            {"recurrent_activation": "hard_sigmoid_keras2"},
            {"recurrent_activation": "hard_sigmoid"},
            "recurrent_activation='hard_sigmoid_keras2'",
        ),
        (
            "gru",
            {"recurrent_activation": "hard_sigmoid_keras2"},
            {},
            "recurrent_activation='hard_sigmoid_keras2'",
        ),
        ("gru", {"activation": "relu", "scale": 0.3}, {}, "activation='relu'"),
        ("lstm", {"activation": "linear", "scale": 0.3}, {}, "activation='linear'"),
        ("lstm", {"output_activation": "linear"}, {}, "output_activation='linear'"),
        (
            "lstm",
            {"activation": "relu", "output_activation": "relu", "scale": 0.3},
            {},
            "activation=output_activation='relu'",
        ),
        ("lstm", {"forget_bias": 1.0}, {}, "forget_bias=1.0"),
        ("lstm", {}, {"forget_bias": 1.0}, "forget_bias=0.0"),
        ("lstm", {}, {"cell_clip": 0.3}, "cell_clip=None"),
        ("lstm", {"cell_clip": 3.0, "forget_bias": 9.0}, {"forget_bias": 9.0}, "cell_clip=3.0"),
        ("gru", {"reset": "before"}, {}, "reset='before'"),
        ("gru", {}, {"reset": "before"}, "reset='after'"),
        ("gru", {"update": "writes"}, {}, "update='writes'"),
        ("gru", {"update": "keeps"}, {"update": "writes"}, "update='keeps'"),
    ],
)
def test_another_variant(family, truth, taken_for, reading):
    case = cases.case(family, sizes=(60, 3, 4, 5), **truth)
    wrong = type(case.cell)(**taken_for)
    assert cause(observed(case, cell=wrong)) == (f"Probable cause: it does match with {reading}.")


@pytest.mark.parametrize("family", ["lstm", "gru"])
@pytest.mark.parametrize(
    ("bias", "biases", "reading"),
    [
        ("b", (False, True), "the input bias left out"),
        ("b_R", (True, False), "the recurrent bias left out"),
    ],
)
def test_a_bias_that_the_framework_does_not_use(family, bias, biases, reading):
    case = cases.case(family, sizes=SIZES, biases=biases)
    extra = np.random.default_rng(9).normal(0, 1, case.weights.W.shape[0])
    seen = observed(case, weights=replace(case.weights, **{bias: extra}))
    assert f"it does match with {reading}." in cause(seen)


def test_a_candidate_bias_that_the_reset_does_not_reach():
    case = cases.case("gru", sizes=SIZES, biases=(True, False))
    b = case.weights.b
    weights = replace(case.weights, b=0.25 * b, b_R=0.75 * b)
    assert "both biases on the input side." in cause(observed(case, weights=weights))


def test_no_peepholes():
    case = cases.case("lstm", sizes=SIZES)
    peephole = np.random.default_rng(9).normal(0, 1, (3, 5))
    seen = observed(case, weights=replace(case.weights, peephole=peephole))
    assert "it does match with no peepholes." in cause(seen)


def test_where_several_match_the_best_is_named():
    case = cases.case("lstm", sizes=SIZES, recurrent_activation="hard_sigmoid_keras2")
    wrong = type(case.cell)(recurrent_activation="relu")
    seen = observed(case, cell=wrong, precision="bfloat16")
    with pytest.raises(
        ReplayMismatchError, match="with recurrent_activation='hard_sigmoid_keras2'"
    ):
        replay(seen, Select().plan(seen))


def test_steps_with_states_of_their_own():
    case = cases.case("lstm", sizes=SIZES)
    seen, _ = stepwise(case, weights=stored(case, "igfo"))
    assert "the gates stored in the order i g f o." in cause(seen)


def test_foreign_weights_match_no_suspect():
    case = cases.case("lstm", sizes=SIZES)
    random = Weights(
        *(np.random.default_rng(9).normal(0, 1, a.shape) for a in (case.weights.W, case.weights.R))
    )
    assert cause(observed(case, weights=random)).startswith("None of the usual suspects")


HINT = "dropout was active between the layers"


def test_a_hint_of_the_framework_comes_where_no_suspect_matches():
    case = cases.case("lstm", sizes=SIZES)
    dropped = observed(case, inputs=case.x * (np.arange(4) > 1), hints=(HINT,))
    assert cause(dropped) == f"Probable cause: {HINT}."


def test_a_suspect_that_matches_comes_before_a_hint():
    case = cases.case("lstm", sizes=SIZES)
    seen = observed(case, weights=stored(case, "igfo"), hints=(HINT,))
    assert "the order i g f o" in cause(seen)


@pytest.mark.parametrize("family", ["lstm", "gru"])
def test_a_late_fault_is_not_blamed_on_a_reading_that_changes_nothing_before(family):
    case = cases.case(family, sizes=(200, 2, 3, 4))
    seen = observed(case)
    shown = seen.observed["h"].copy()
    shown[150, 1, 2] += 0.5
    assert cause(replace(seen, observed={"h": shown})).startswith("None of the usual suspects")


@pytest.mark.usefixtures("tiny_blocks")
def test_a_cause_that_shows_late_is_found():
    case = cases.case("lstm", sizes=(150, 1, 2, 3), cell_clip=3.0, forget_bias=9.0, scale=0.05)
    seen = observed(case, cell=type(case.cell)(forget_bias=9.0))
    first = int(np.argmax(np.abs(case.expected().values["c"]).max(axis=(1, 2)) >= 3.0))
    assert first > 20
    assert cause(seen) == "Probable cause: it does match with cell_clip=3.0."


def test_a_wrong_final_state_is_not_blamed_on_what_h_cannot_show():
    seen = observed(cases.case("lstm", sizes=SIZES))
    final = {**seen.final, "c": seen.final["c"] + 0.1}
    assert cause(replace(seen, final=final)).startswith("None of the usual suspects")


def test_a_suspect_that_ends_in_nan_does_not_match():
    case = cases.case("lstm", sizes=SIZES)
    x = case.x * 1e200
    with np.errstate(all="ignore"):
        seen = observed(case.with_(x=x), weights=stored(case, "igfo"))
        message = cause(seen)
    assert "activation='linear'" not in message
    assert "activation='relu'" not in message


def test_the_search_works_in_blocks(monkeypatch):
    case = cases.case("lstm", sizes=(64, 2, 3, 4))
    seen = observed(case, weights=stored(case, "igfo"))
    monkeypatch.setattr(stretches, "BLOCK_BYTES", 1)
    monkeypatch.setattr(stretches, "BLOCK_ROWS", 8)
    assert "the order i g f o" in cause(seen)
