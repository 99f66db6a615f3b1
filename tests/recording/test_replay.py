"""Replay against the oracles: every variant, direction, length, library and block size."""

import tracemalloc
from contextlib import nullcontext
from dataclasses import replace

import numpy as np
import pytest

import cases
import mutations
import oracles
from everystate.errors import WeightsError
from everystate.recording import replay as module
from everystate.recording import stretches
from everystate.recording.replay import replay
from everystate.recording.selection import Select
from everystate.recording.verify import Verification
from observed import Counting, counting, observed, stepwise

pytestmark = pytest.mark.filterwarnings("error")

LAYERS = {
    "lstm": ("lstm", {}),
    "lstm peepholes": ("lstm", {"peephole": True, "forget_bias": 1.0}),
    "lstm projection": ("lstm", {"projected": cases.P}),
    "lstm all": (
        "lstm",
        {"peephole": True, "projected": cases.P, "cell_clip": 0.4, "projection_clip": 0.3},
    ),
    "lstm keras 2": ("lstm", {"recurrent_activation": "hard_sigmoid_keras2"}),
    "gru after": ("gru", {}),
    "gru before": ("gru", {"reset": "before", "update": "writes"}),
    "simple_rnn": ("simple_rnn", {"activation": "relu"}),
}
RAGGED = [cases.T, 0, 3]


def replayed(seen, select=None):
    return replay(seen, (select or Select()).plan(seen))


@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize("lengths", [None, RAGGED], ids=["full", "ragged"])
@pytest.mark.parametrize("reverse", [False, True], ids=["forward", "backward"])
def test_equals_the_oracle(asarray, layer, lengths, reverse):
    family, variant = LAYERS[layer]
    case = cases.case(family, **variant)
    seen = observed(case, lengths=lengths, reverse=reverse, asarray=asarray)
    recorded = replayed(seen)
    expected = case.expected(lengths=lengths, reverse=reverse)
    oracles.assert_close(recorded.variables, expected.values)
    oracles.assert_close(recorded.final, expected.final)
    oracles.assert_close(recorded.initial, case.initial)
    assert all(isinstance(a, np.ndarray) for a in recorded.variables.values())


@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize("lengths", [None, RAGGED], ids=["full", "ragged"])
@pytest.mark.parametrize("reverse", [False, True], ids=["forward", "backward"])
@pytest.mark.parametrize(
    "select",
    [Select(), Select(every=2, window=(1, 6)), Select(units=(3, 1))],
    ids=["all", "some steps", "some units"],
)
@pytest.mark.usefixtures("tiny_blocks")
def test_one_step_a_block_equals_the_oracle(layer, lengths, reverse, select):
    family, variant = LAYERS[layer]
    case = cases.case(family, **variant)
    seen = observed(case, lengths=lengths, reverse=reverse)
    recorded = replayed(seen, select)
    plan = select.plan(seen)
    for name, expected in case.expected(lengths=lengths, reverse=reverse).values.items():
        units = slice(None) if plan.units is None or seen.dim(name) != "unit" else plan.units
        some = expected[plan.steps.start : plan.steps.stop : plan.steps.step][..., units]
        oracles.assert_close({name: recorded.variables[name]}, {name: some})


@pytest.mark.parametrize("block_rows", [1, 6, 12])
def test_blocks_that_do_not_divide_the_steps(monkeypatch, block_rows):
    monkeypatch.setattr(stretches, "BLOCK_BYTES", 1)
    monkeypatch.setattr(stretches, "BLOCK_ROWS", block_rows)
    case = cases.case("lstm")
    recorded = replayed(counting(case))
    steps = max(1, block_rows // cases.B)
    assert Counting.evolved == [steps] * (cases.T // steps) + [cases.T % steps] * (
        cases.T % steps > 0
    )
    oracles.assert_close(recorded.variables, case.expected().values)


@pytest.mark.parametrize("family", cases.FAMILIES)
@pytest.mark.parametrize("sizes", [(1, 3, 2, 4), (4, 1, 2, 3), (1, 1, 2, 2), (3, 2, 1, 1)])
def test_single_steps_rows_and_units(asarray, family, sizes):
    case = cases.case(family, sizes=sizes)
    recorded = replayed(observed(case, asarray=asarray))
    oracles.assert_close(recorded.variables, case.expected().values)


@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize("select", [Select(), Select(every=3, units=(4, 0))], ids=["all", "some"])
def test_steps_that_start_from_states_of_their_own(layer, select):
    family, variant = LAYERS[layer]
    case = cases.case(family, **variant)
    seen, expected = stepwise(case)
    plan = select.plan(seen)
    recorded = replay(seen, plan)
    assert set(recorded.variables) == set(expected)
    for name, values in expected.items():
        units = slice(None) if plan.units is None or seen.dim(name) != "unit" else plan.units
        some = values[:: plan.steps.step][..., units]
        oracles.assert_close({name: recorded.variables[name]}, {name: some})


@pytest.mark.parametrize("lengths", [None, [cases.T, 2, 4]])
def test_steps_of_their_own_read_backwards(lengths):
    case = cases.case("lstm")
    seen, expected = stepwise(case, lengths=lengths, reverse=True)
    recorded = replayed(replace(seen, final={}))
    past = np.arange(cases.T)[:, None] >= (lengths or [cases.T])
    expected = {name: np.where(past[..., None], np.nan, a) for name, a in expected.items()}
    oracles.assert_close(recorded.variables, expected)


@pytest.mark.usefixtures("tiny_blocks")
def test_steps_that_start_from_states_of_their_own_in_several_blocks():
    case = cases.case("lstm", peephole=True)
    seen, expected = stepwise(case)
    oracles.assert_close(replayed(seen).variables, expected)


@pytest.mark.parametrize("family", ["lstm", "gru"])
@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("lengths", [None, RAGGED])
def test_gates_that_were_shown_are_kept_and_the_rest_computed_from_them(family, reverse, lengths):
    case = cases.case(family)
    expected = case.expected(lengths=lengths, reverse=reverse).values
    shown = {name: np.nan_to_num(expected[name]) for name in ("h", *case.cell.gates)}
    seen = observed(case, observed=shown, lengths=lengths, reverse=reverse, inputs=None)
    recorded = replayed(seen)
    oracles.assert_close(recorded.variables, expected)
    assert all(recorded.origins[gate] == "observed" for gate in case.cell.gates)
    assert recorded.origins.get("c", "replayed") == "replayed"


@pytest.mark.parametrize("family", cases.FAMILIES)
def test_the_comparison_notices_faults(family):
    case = cases.case(family)
    recorded = replayed(observed(case))
    for fault, wrong in mutations.of_values(case.expected().values):
        with mutations.must_be_noticed(fault):
            oracles.assert_close(recorded.variables, wrong, 1e-4)


def test_origins_tell_what_was_observed_and_what_replayed():
    recorded = replayed(observed(cases.case("lstm")), Select(variables=("h", "c", "f", "inputs")))
    assert recorded.origins == {
        "h": "observed",
        "c": "replayed",
        "f": "replayed",
        "inputs": "observed",
    }
    assert list(recorded.variables) == ["h", "c", "f", "inputs"]


def test_what_was_observed_is_recorded_bit_by_bit():
    seen = observed(cases.case("lstm"))
    recorded = replayed(seen, Select(variables=("h", "inputs")))
    np.testing.assert_array_equal(recorded.variables["h"], seen.observed["h"])
    np.testing.assert_array_equal(recorded.variables["inputs"], seen.inputs)


def test_nothing_recorded_shares_memory_with_the_framework(asarray):
    seen = observed(cases.case("lstm"), asarray=asarray)
    select = Select(variables=("states", "gates", "inputs"))
    recorded = replayed(seen, select)
    sources = [*seen.observed.values(), *seen.initial.values(), *seen.final.values(), seen.inputs]
    kept = [
        *recorded.variables.values(),
        *recorded.initial.values(),
        *recorded.final.values(),
    ]
    assert not any(np.shares_memory(a, np.asarray(b)) for a in kept for b in sources)


@pytest.mark.parametrize(
    ("select", "lengths", "copied"),
    [
        (Select(), None, False),
        (Select(), RAGGED, True),  # steps past the end become NaN
        (Select(every=2), None, True),  # a view would hold all steps
        (Select(units=(3, 1)), None, True),
        (Select(dtype="float32"), None, True),
    ],
)
def test_what_nobody_else_holds_is_copied_only_if_it_has_to_be(select, lengths, copied):
    seen = observed(cases.case("lstm"), lengths=lengths)
    theirs, before = seen.observed["h"], seen.observed["h"].copy()
    ours = replayed(replace(seen, unshared=["h"]), select).variables["h"]
    assert np.shares_memory(ours, theirs) != copied
    np.testing.assert_array_equal(theirs, before)
    assert not np.shares_memory(replayed(seen, select).variables["h"], theirs)


@pytest.mark.parametrize("lengths", [None, RAGGED])
@pytest.mark.parametrize("reverse", [False, True])
def test_nothing_recorded_holds_more_memory_than_it_needs(lengths, reverse):
    seen = observed(cases.case("lstm"), lengths=lengths, reverse=reverse)
    arrays = replayed(seen, Select(every=3, units=1)).variables.values()
    holders = {id(a if a.base is None else a.base): a if a.base is None else a.base for a in arrays}
    assert sum(a.nbytes for a in holders.values()) == sum(a.nbytes for a in arrays)


def test_observed_variables_alone_need_no_cell():
    case = cases.case("gru")
    seen = observed(case, cell=None, weights=None, inputs=None)
    recorded = replayed(seen)
    assert list(recorded.variables) == ["h"]
    np.testing.assert_array_equal(recorded.variables["h"], case.expected().values["h"])
    assert recorded.attrs == {}


def test_misshapen_weights_are_refused():
    case, other = cases.case("lstm"), cases.case("gru")
    with pytest.raises(WeightsError, match="encoder/rnn: W has 15 rows, not a multiple of the 4"):
        replayed(observed(case, weights=other.weights))


class TestWhatIsNotSelectedIsNotComputed:
    @pytest.mark.parametrize("family", cases.FAMILIES)
    @pytest.mark.parametrize("variables", ["h", "inputs", ("inputs", "h")])
    def test_what_was_observed_needs_no_replay(self, family, variables):
        replayed(counting(cases.case(family)), Select(variables=variables))
        assert Counting.products == []
        assert Counting.evolved == []

    @pytest.mark.parametrize(("family", "gates"), [("lstm", 4), ("gru", 3)])
    def test_units(self, family, gates):
        replayed(counting(cases.case(family)), Select(units=(1, 4)))
        assert Counting.products == [(cases.T, cases.B, gates * 2)]

    def test_steps_of_a_cell_without_memory(self):
        case = cases.case("gru", sizes=(40, 3, 4, 5))
        replayed(counting(case), Select(every=10, window=(5, 36)))
        assert sum(Counting.evolved) == 4  # 5, 15, 25, 35

    def test_steps_after_the_window_of_a_cell_with_memory(self):
        case = cases.case("lstm", sizes=(40, 3, 4, 5))
        replayed(counting(case), Select(every=10, window=(5, 16)))
        assert sum(Counting.evolved) == 16  # c needs all steps up to the last one wanted

    def test_steps_before_the_window_of_a_backward_layer(self):
        case = cases.case("lstm", sizes=(40, 3, 4, 5))
        replayed(counting(case, reverse=True), Select(window=(30, None)))
        assert sum(Counting.evolved) == 10

    def test_the_count_notices_when_all_is_selected(self):
        replayed(counting(cases.case("lstm")))
        assert Counting.products == [(cases.T, cases.B, 4 * cases.U)]


class TestWorkingMemory:
    @staticmethod
    def peak(steps):
        case = cases.case("lstm", sizes=(2, 2, 4, 64))
        rng = np.random.default_rng(0)
        h = rng.uniform(-1, 1, (steps, 2, 64))
        seen = observed(case, inputs=rng.normal(0, 1, (steps, 2, 4)), observed={"h": h}, final={})
        select = Select(variables="c", every=100)
        plan = select.plan(seen)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Verification, "compare", lambda *_: None)  # h is noise here
            tracemalloc.start()
            replay(seen, plan)
            _, peak = tracemalloc.get_traced_memory()
            tracemalloc.stop()
        return peak

    def test_does_not_grow_with_the_sequence(self, monkeypatch):
        monkeypatch.setattr(module, "workers", lambda: nullcontext(None))
        short, long = self.peak(4_000), self.peak(40_000)
        result = 40_000 // 100 * 2 * 64 * 8
        assert long < short + 2 * result

    def test_is_a_part_of_all_gates_with_any_number_of_workers(self):
        assert self.peak(40_000) < 40_000 * 2 * 4 * 64 * 8 / 10  # all gates at once

    def test_blocks_hold_at_most_what_was_agreed(self):
        case = cases.case("lstm", sizes=(4000, 2, 4, 64))
        replayed(counting(case), Select(variables="c", units=0))
        assert max(steps * batch for steps, batch, _ in Counting.products) <= 512
