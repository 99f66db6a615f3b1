"""Gates overheard in a loop in Python: taken only if the equations say the same."""

import numpy as np
import pytest

from everystate.testing import importorskip

keras = importorskip("keras")

import everystate as es
import keras_reference as ref
from everystate.cells import LSTM, Weights
from everystate.frameworks.keras import overhearing
from everystate.recording.observation import Observation

B, T, D, H = 3, 5, 4, 6


def observation(swapped=()):
    """Return an LSTM's run by the oracle, two variables exchanged if told to."""
    layer = keras.layers.LSTM(H)
    layer.build((B, T, D))
    ref.randomise(layer)
    x = ref.random(B, T, D, seed=1, dtype="float64")
    found = {n: np.swapaxes(a, 0, 1) for n, a in ref.layer(layer.cell, x).items() if "_" not in n}
    if swapped:
        a, b = swapped
        found = {**found, a: found[b], b: found[a]}
    kernel, recurrent, bias = (ref.numpy(w) for w in layer.weights)
    start = {"h": np.zeros((B, H)), "c": np.zeros((B, H))}
    weights = Weights(kernel.T, recurrent.T, bias)
    return Observation("lstm", found, start, inputs=x.swapaxes(0, 1), cell=LSTM(), weights=weights)


def test_what_reads_otherwise_is_noticed():
    assert overhearing.as_the_equations(observation())
    for pair in (("i", "f"), ("i", "o"), ("f", "o"), ("i", "g"), ("h", "c")):
        assert not overhearing.as_the_equations(observation(pair)), pair


@pytest.mark.skipif(keras.backend.backend() != "torch", reason="PyTorch's loop is in Python")
@pytest.mark.parametrize("backwards", [False, True])
def test_overheard_gates_are_the_oracles(monkeypatch, backwards):
    layer = keras.layers.LSTM(H, go_backwards=backwards)
    layer.build((B, T, D))
    ref.randomise(layer)
    x = ref.random(B, T, D, seed=1)
    expected = ref.layer(layer.cell, x, backwards=backwards)
    leaf = es.record(layer, x)["lstm"]
    assert leaf.i.attrs["origin"] == leaf.c.attrs["origin"] == "observed"
    ref.assert_leaf(leaf, expected)
    alone = es.record(layer, x, select=es.Select(variables="c"))["lstm"]
    assert alone.c.attrs["origin"] == "observed"
    ref.assert_leaf(alone, {n: expected[n] for n in ("c", "initial_h", "initial_c")})
    monkeypatch.setattr(overhearing, "TOLERANCE", -1.0)  # nothing is as the equations say
    leaf = es.record(layer, x)["lstm"]
    assert leaf.i.attrs["origin"] == leaf.c.attrs["origin"] == "replayed"
    ref.assert_leaf(leaf, expected)
