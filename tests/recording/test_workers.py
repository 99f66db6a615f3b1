"""Workers: what threads compute ahead is what one thread computes, and all is left as it was."""

import threading
import time
from dataclasses import replace

import numpy as np
import pytest
from threadpoolctl import threadpool_limits

import cases
import mutations
import oracles
from everystate.cells import GRU, LSTM
from everystate.cells.base import Cell
from everystate.errors import ReplayMismatchError
from everystate.recording import spans, stretches
from everystate.recording import workers as module
from everystate.recording.replay import replay
from everystate.recording.selection import Select
from everystate.recording.workers import Workers, workers
from observed import CountingLSTM, observed

pytestmark = pytest.mark.filterwarnings("error")


def allowed():
    return {library.num_threads for library in module._products().libraries.lib_controllers}


@pytest.fixture
def three():
    """Let products use three threads, whatever the environment says."""
    with threadpool_limits(3, "blas"):
        yield


@pytest.fixture
def small_blocks(monkeypatch):
    monkeypatch.setattr(spans, "BLOCKS", 1)
    monkeypatch.setattr(stretches, "BLOCK_BYTES", 1)
    monkeypatch.setattr(stretches, "BLOCK_ROWS", 2 * cases.B)


def recorded(seen, **select):
    return replay(seen, Select(**select).plan(seen))


@pytest.mark.parametrize(
    ("family", "variant"),
    [
        ("lstm", {}),
        ("lstm", {"peephole": True}),
        ("lstm", {"projected": cases.P}),
        ("gru", {"reset": "before"}),
        ("gru", {"reset": "after"}),
    ],
)
@pytest.mark.parametrize("lengths", [None, [3, cases.T, 5]])
def test_the_oracles_values_with_three_threads(three, small_blocks, family, variant, lengths):
    used = []

    class Noted(Workers):
        def each(self, compute, blocks):
            used.append(self.count)
            return super().each(compute, blocks)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "Workers", Noted)
        case = cases.case(family, **variant)
        found = recorded(observed(case, lengths=lengths, reverse=True))
    assert {*used} == ({3} if "peephole" not in variant else set())
    oracles.assert_close(found.variables, case.expected(lengths=lengths, reverse=True).values)


def test_bits_are_those_of_one_thread(three, small_blocks, monkeypatch):
    seen = observed(cases.case("lstm"))
    several = recorded(seen).variables
    monkeypatch.setattr(module, "MOST", 1)
    for name, a in recorded(seen).variables.items():
        np.testing.assert_array_equal(several[name], a)


@pytest.mark.parametrize("step", range(cases.T))
def test_a_fault_at_any_step_is_found(three, small_blocks, step):
    seen = observed(cases.case("lstm"))
    h = seen.observed["h"].copy()
    h[step, 1, 2] += 1e-3
    with pytest.raises(ReplayMismatchError, match=rf"step {step} \(row 1, unit 2\)"):
        recorded(replace(seen, observed={"h": h}))
    assert allowed() == {3}


def test_gates_swapped_are_found(three, small_blocks):
    case = cases.case("lstm")
    wrong = list(mutations.of_gates(case.gates))
    for fault, gates in wrong:
        seen = replace(observed(case), weights=case.with_(gates=gates).weights)
        try:
            recorded(seen)
        except ReplayMismatchError:
            continue
        pytest.fail(f"not found: {fault}")
    assert len(wrong) > 10


def test_results_come_in_order(three):
    def compute(k):
        time.sleep(0.002 * (k % 3))
        return k * k, threading.current_thread().name

    with workers() as threads:
        assert allowed() == {1}
        results, names = zip(*threads.each(compute, range(20)), strict=True)
    assert results == tuple(k * k for k in range(20))
    assert len({*names}) == 3
    assert allowed() == {3}


def test_an_error_is_the_callers_and_no_thread_stays(three):
    def compute(k):
        return 1 // (3 - k)

    with pytest.raises(ZeroDivisionError), workers() as threads:
        threads.each(compute, range(9))
    assert allowed() == {3}
    assert not [t for t in threading.enumerate() if t.name.startswith("everystate")]


def test_an_index_error_is_no_end_of_the_blocks(three):
    def compute(k):
        return [7][k]

    with pytest.raises(IndexError), workers() as threads:
        threads.each(compute, range(6))


def test_recordings_that_overlap_give_back_what_there_was(three):
    first, second = workers(), workers()
    assert first.__enter__().count == second.__enter__().count == 3
    first.__exit__(None, None, None)
    assert allowed() == {1}
    second.__exit__(None, None, None)
    assert allowed() == {3}


def test_many_threads_are_a_few_workers():
    with threadpool_limits(module.MOST + 3, "blas"), workers() as threads:
        assert threads.count == module.MOST


def test_one_thread_is_no_worker():
    with threadpool_limits(1, "blas"), workers() as threads:
        assert threads is None


def test_a_replaced_equation_takes_no_gates_ahead():
    class Other(LSTM):
        def evolve(self, w, a_x, a_h, before):
            return super().evolve(w, a_x, a_h, before)

    class Both(Other):
        def gates_at(self, w, a, out=None):
            return None

    class Rounding(LSTM):
        def from_input(self, w, x):
            return super().from_input(w, x.round(3))

    assert Other.gates_at is Cell.gates_at
    assert Rounding.gates_at is Cell.gates_at
    assert CountingLSTM.gates_at is Cell.gates_at
    assert GRU.gates_at is Cell.gates_at
    assert Both.gates_at is not Cell.gates_at
    assert LSTM.gates_at is not Cell.gates_at
