"""Spans: results are the oracle's and stay where they are computed; threads share no memory."""

import threading
from dataclasses import dataclass

import numpy as np
import pytest

import cases
import oracles
from everystate.cells import LSTM
from everystate.recording.replay import replay
from everystate.recording.selection import Select
from everystate.recording.spans import Scratch, can_be_spanned
from observed import observed


@dataclass(frozen=True)
class Noting(LSTM):
    """An LSTM that notes where its gates are to be put."""

    def gates_at(self, w, a, out=None):
        if out is not None:
            PLACES.append(out)
        return super().gates_at(w, a, out)


PLACES = []


def recorded(seen, select):
    PLACES.clear()
    return replay(seen, select.plan(seen)).variables


def stay(variables):
    return {
        any(np.shares_memory(variables[name], place[name]) for place in PLACES)
        for name in variables
        if name in LSTM.gates
    }


@pytest.mark.usefixtures("tiny_blocks")
@pytest.mark.parametrize(
    ("select", "reverse", "expected"),
    [
        (Select(), False, {True}),
        (Select(), True, {True}),
        (Select(units=(3, 1)), False, {True}),
        (Select(window=(0, 3)), False, {True}),
        (Select(every=2), False, {False}),
        (Select(window=(2, 5)), False, {True}),
        (Select(dtype="float32"), False, {False}),
        (Select(variables=("c", "h")), False, set()),
    ],
)
def test_gates_stay_where_they_are_computed_if_they_can(select, reverse, expected):
    case = cases.case("lstm")
    seen = observed(case, cell=Noting(), reverse=reverse)
    found = recorded(seen, select)
    assert stay(found) == expected
    assert len(PLACES) == (cases.T if select.window is None else select.window[1])
    plan = select.plan(seen)
    for name, a in case.expected(reverse=reverse).values.items():
        if name in found:
            some = a[plan.steps.start : plan.steps.stop : plan.steps.step]
            some = some if plan.units is None else some[..., plan.units]
            oracles.assert_close({name: found[name]}, {name: some}, 1e-7 if select.dtype else 1e-12)


@pytest.mark.usefixtures("tiny_blocks")
def test_units_in_another_order_are_chosen_where_all_have_to_be_computed():
    case = cases.case("lstm", projected=cases.P)
    units = [*range(cases.U)][::-1]
    found = recorded(observed(case), Select(units=units))
    expected = case.expected().values
    assert {"c", *LSTM.gates} <= {*found}
    for name in ("c", *LSTM.gates):
        oracles.assert_close({name: found[name]}, {name: expected[name][..., units]})


def test_peepholes_need_the_scan_first():
    assert can_be_spanned(observed(cases.case("lstm")))
    assert can_be_spanned(observed(cases.case("gru")))
    assert not can_be_spanned(observed(cases.case("lstm", peephole=True)))


def test_memory_is_used_again_by_the_same_thread_alone():
    scratch, dtype = Scratch(), np.dtype("float32")
    first = scratch("a", (3, 4), dtype)
    assert first.shape == (3, 4)
    assert first.dtype == dtype
    assert np.shares_memory(first, scratch("a", (2, 5), dtype))
    assert not np.shares_memory(first, scratch("b", (3, 4), dtype))
    others = []
    thread = threading.Thread(target=lambda: others.append(scratch("a", (3, 4), dtype)))
    thread.start()
    thread.join()
    assert not np.shares_memory(first, others[0])
