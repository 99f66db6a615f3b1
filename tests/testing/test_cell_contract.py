"""Every built-in cell passes `CellContract`, and each of its tests can fail."""

from dataclasses import dataclass, fields, replace
from typing import ClassVar

import numpy as np
import pytest

import oracles
from everystate.cells import GRU, LSTM, Cell, SimpleRNN
from everystate.cells.activations import sigmoid
from everystate.cells.base import split
from everystate.cells.scan import linear_scan
from everystate.errors import WeightsError
from everystate.testing import CellContract

ORDERS = {LSTM: "ifgo", GRU: "rzn", SimpleRNN: "h"}
STEPS = {LSTM: oracles.lstm_step, GRU: oracles.gru_step, SimpleRNN: oracles.simple_rnn_step}
P = 2
"""Projected units."""


def variants(cell):
    return {field.name: getattr(cell, field.name) for field in fields(cell)}


class OfOurs(CellContract):
    """The oracle of the tests, for the families that it knows."""

    def oracle(self, w, x, state):
        order = ORDERS[type(self.cell)]
        gates = oracles.gates(order, w["W"], w["R"], w.get("b"), w.get("b_R"))
        extra = {}
        if isinstance(self.cell, LSTM):
            extra = {"projection": w.get("projection")}
            if "peephole" in w:
                extra["peephole"] = dict(zip("ifo", w["peephole"], strict=True))
        return STEPS[type(self.cell)](x, state, gates=gates, **variants(self.cell), **extra)


class TestLSTM(OfOurs):
    cell = LSTM()


class TestLSTMOfTensorFlow(OfOurs):
    cell = LSTM(forget_bias=1.0, cell_clip=0.6, projection_clip=0.5)

    def weights(self):
        rng, units = np.random.default_rng(3), self.sizes[3]
        return replace(
            super().weights(),
            R=rng.normal(0, 0.8, (4 * units, P)),
            peephole=rng.normal(0, 0.9, (3, units)),
            projection=rng.normal(0, 0.9, (P, units)),
        )


class TestLSTMOfONNX(OfOurs):
    cell = LSTM(
        activation="softsign",
        recurrent_activation="hard_sigmoid_onnx(0.3, 0.4)",
        gate_clip=0.9,
    )


class TestGRU(OfOurs):
    cell = GRU()


class TestGRUThatResetsFirst(OfOurs):
    cell = GRU(reset="before", update="writes", gate_clip=1.5)


class TestSimpleRNN(OfOurs):
    cell = SimpleRNN("leaky_relu(0.1)")


class TestSimpleRNNWithABound(OfOurs):
    cell = SimpleRNN(gate_clip=1.2)


@dataclass(frozen=True)
class Leaky(Cell):
    """A cell of one's own: two gates, a memory, and an output that squashes it."""

    states: ClassVar[tuple[str, ...]] = ("h", "m")
    gates: ClassVar[tuple[str, ...]] = ("k", "u")
    memory: ClassVar[tuple[str, ...]] = ("m",)

    def evolve(self, w, a_x, a_h, before):
        k, u = split(a_x + a_h, 2)
        k = sigmoid(k)
        m = linear_scan(k, (1.0 - k) * u, before["m"])
        return {"h": m / (1.0 + abs(m)), "m": m, "k": k, "u": u}


class TestACellOfOnesOwn(CellContract):
    cell = Leaky()

    def oracle(self, w, x, state):
        k, u = np.split(w["W"] @ x + w["b"] + w["R"] @ state["h"] + w["b_R"], 2)
        k = oracles.sigmoid(k)
        m = k * state["m"] + (1.0 - k) * u
        return {"h": m / (1.0 + np.abs(m)), "m": m, "k": k, "u": u}


class Swapped(LSTM):
    def evolve(self, w, a_x, a_h, before):
        found = super().evolve(w, a_x, a_h, before)
        return {**found, "i": found["g"], "g": found["i"]}


class Deaf(LSTM):
    """An LSTM that does not hear its recurrent weights."""

    def from_state(self, w, h):
        return 0.0 * super().from_state(w, h)


class Wide(LSTM):
    def evolve(self, w, a_x, a_h, before):
        return {n: a.astype(np.float64) for n, a in super().evolve(w, a_x, a_h, before).items()}


class Nameless(LSTM):
    states = ("c", "h")


class Trusting(LSTM):
    def check(self, w, path="weights"):
        pass


class Apart(GRU):
    """A GRU that resets first, whose units cannot be evolved apart, though it says so."""

    unit_wise = True


class Hasty(LSTM):
    """An LSTM whose gates are others if they are asked for ahead."""

    def gates_at(self, w, a, out=None):
        return super().gates_at(w, 0.5 * a, out)


BROKEN = {
    "test_names": (Nameless(), AssertionError),
    "test_steps_are_the_oracles": (Swapped(), AssertionError),
    "test_all_steps_at_once_are_the_oracles": (Swapped(), AssertionError),
    "test_some_units_alone_are_as_among_all": (Apart(reset="before"), (AssertionError, ValueError)),
    "test_gates_ahead_are_the_gates": (Hasty(), AssertionError),
    "test_a_replay_is_verified_both_ways": (Swapped(), AssertionError),
    "test_the_dtype_stays": (Wide(), AssertionError),
    "test_misshapen_weights_are_refused": (Trusting(), pytest.fail.Exception),
}


@pytest.mark.parametrize("name", BROKEN)
def test_each_test_can_fail(name):
    cell, error = BROKEN[name]

    class OfABrokenCell(OfOurs):
        def oracle(self, w, x, state):
            family = next(kind for kind in ORDERS if isinstance(self.cell, kind))
            gates = oracles.gates(ORDERS[family], w["W"], w["R"], w["b"], w["b_R"])
            return STEPS[family](x, state, gates=gates, **variants(self.cell))

    contract = OfABrokenCell()
    contract.cell = cell
    with pytest.raises(error):
        getattr(contract, name)()


def test_data_that_prove_nothing_are_noticed():
    class Constant(TestLSTM):
        def weights(self):
            w = super().weights()
            return replace(w, **{name: 0.0 * a + 0.1 for name, a in w.items()})

    with pytest.raises(AssertionError, match="not noticed: gates i and f swapped"):
        Constant().test_faults_in_the_weights_are_noticed()


def test_weights_that_are_not_heard_are_noticed():
    class OfTheDeaf(TestLSTM):
        cell = Deaf()

        def expected(self, *, reverse=False):
            return self.stepped() if not reverse else super().expected(reverse=reverse)

    with pytest.raises(AssertionError, match="not noticed: R turned"):
        OfTheDeaf().test_faults_in_the_weights_are_noticed()


def test_a_replay_that_forgives_is_noticed(monkeypatch):
    from everystate.recording import verify

    monkeypatch.setattr(verify, "TOLERANCE", {"float64": 1e9})
    with pytest.raises(AssertionError, match="the replay did not notice"):
        TestLSTM().test_a_wrong_output_is_refused()


def test_the_tests_that_can_fail_are_all_there_are():
    shown = {
        "test_faults_in_the_weights_are_noticed",
        "test_a_wrong_output_is_refused",
        *BROKEN,
    }
    assert shown == {name for name in dir(CellContract) if name.startswith("test_")}
    assert issubclass(WeightsError, ValueError)
