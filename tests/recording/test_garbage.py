"""Traces that were dropped are freed while others are recorded, however few objects they are."""

import gc
import weakref

import numpy as np
import pytest

import everystate as es
import mutations
from everystate.recording import garbage

X = np.random.default_rng(0).normal(size=(500, 2, 3))


def leaky(x, v):
    return 0.9 * v + x


leaky.everystate_states = ("v",)


@pytest.fixture(autouse=True)
def _only_when_it_is_asked_to():
    """The collector as in a process with so many objects that it never looks at all of them."""
    gc.collect()
    thresholds = gc.get_threshold()
    gc.set_threshold(1_000_000_000)
    yield
    gc.set_threshold(*thresholds)


def alive(count):
    """Return how many of the traces of a loop are in memory after it."""
    traces = []
    for _ in range(count):
        trace = es.record(leaky, X, np.zeros((2, 3)))
        traces.append(weakref.ref(trace))
    assert trace is traces[-1]()
    return sum(found() is not None for found in traces)


def test_a_loop_holds_no_more_than_may_wait(monkeypatch):
    size = es.record(leaky, X, np.zeros((2, 3))).nbytes
    gc.collect()
    with mutations.must_be_noticed("no limit"):
        assert alive(20) <= 6
    monkeypatch.setattr(garbage, "LIMIT", 4 * size)
    gc.collect()
    assert alive(20) <= 6


def test_a_collector_that_is_switched_off_is_left_alone(monkeypatch):
    monkeypatch.setattr(garbage, "LIMIT", 0)
    gc.disable()
    try:
        assert alive(5) == 5
    finally:
        gc.enable()


def test_what_the_collector_has_seen_by_itself_is_not_counted(monkeypatch):
    monkeypatch.setattr(garbage, "LIMIT", 1)
    assert es.record(leaky, X, np.zeros((2, 3))).nbytes > 1
    gc.collect()
    before = gc.get_stats()[-1]["collections"]
    garbage.give_back()
    assert gc.get_stats()[-1]["collections"] == before
