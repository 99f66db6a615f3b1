"""Flat states, counted by the slope of tanh."""

import math

import numpy as np
import pytest

import mutations
from everystate.analysis.flatness import flatness


def oracle(rows, squash):
    flat = [abs(squash(v)) > 0.99 for row in rows for v in row]
    return sum(flat) / len(flat)


def test_shares_of_an_lstm_are_those_of_its_tanh(make_layer, valid):
    layer = make_layer("LSTM").assign(c=3 * make_layer("LSTM")["c"])
    found = flatness(layer)
    expected = [oracle(valid(layer["c"], u), math.tanh) for u in range(5)]
    assert found["share"].values == pytest.approx(expected)
    assert found.attrs["state"] == "c"
    with mutations.must_be_noticed("c itself for its tanh"):
        assert found["share"].values == pytest.approx(
            [oracle(valid(layer["c"], u), lambda c: c) for u in range(5)]
        )
    with mutations.must_be_noticed("padding counted"):
        full = layer.fillna(0.0)
        assert found["share"].values == pytest.approx(
            [oracle(valid(full["c"], u), math.tanh) for u in range(5)]
        )


def test_the_h_of_a_simple_rnn_is_squashed_already(make_layer, valid):
    layer = make_layer("SimpleRNN").assign(h=np.tanh(2 * make_layer("SimpleRNN")["h"]))
    expected = [oracle(valid(layer["h"], u), lambda h: h) for u in range(5)]
    assert flatness(layer)["share"].values == pytest.approx(expected)
    assert max(expected) > 0


def test_over_time(make_layer):
    layer = make_layer("LSTM", lengths=None)
    layer["c"][:] = 0.5
    layer["c"][:, 11:, :2] = -4.0
    assert flatness(layer).over_time.values.tolist() == [0.0] * 11 + [0.4] * 30


def test_what_is_not_squashed_is_not_flat(make_layer):
    assert not flatness(make_layer("GRU")).data_vars
    assert not flatness(make_layer("LSTM", activation="relu")).data_vars
    assert not flatness(make_layer("LSTM")[["h"]]).data_vars
    assert not flatness(make_layer("LSTM").assign_attrs(cell="mine")).data_vars
