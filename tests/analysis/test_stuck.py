"""Gates that never do anything, built to be known."""

import numpy as np

import mutations
from everystate.analysis.stuck import stuck


def built(make_layer):
    """Unit 0: i shut; 1: f open; 2: o constant; 3: g at -1; 4: nothing."""
    layer = make_layer("LSTM", lengths=(41, 17, 30))
    for name in "ifgo":
        low = -0.8 if name == "g" else 0.2
        layer[name] = layer[name].clip(low, 0.8)
    for name, unit, value in (("i", 0, 0.02), ("f", 1, 0.98), ("o", 2, 0.4), ("g", 3, -0.97)):
        moving = value + (0.0 if name == "o" else 0.01) * np.sin(np.arange(41.0))
        layer[name][..., unit] = np.where(np.isnan(layer[name][..., unit]), np.nan, moving)
    return layer


def flags(found, how):
    return {n: np.flatnonzero(found[how].sel(variable=n)).tolist() for n in "ifgo"}


def test_each_way_of_being_stuck(make_layer):
    found = stuck(built(make_layer))
    assert flags(found, "shut") == {"i": [0], "f": [], "g": [3], "o": []}
    assert flags(found, "open") == {"i": [], "f": [1], "g": [], "o": []}
    assert flags(found, "constant") == {"i": [], "f": [], "g": [], "o": [2]}
    with mutations.must_be_noticed("padding counted as zeros"):
        assert flags(stuck(built(make_layer).fillna(0.0)), "open")["f"] == [1]
    with mutations.must_be_noticed("another edge"):
        assert flags(stuck(built(make_layer), edge=0.01), "shut")["i"] == [0]


def test_one_step_in_a_hundred_may_be_elsewhere(make_layer):
    layer = built(make_layer)  # 88 values of each unit
    layer["i"][0, 5, 0] = 0.5
    assert flags(stuck(layer, share=87 / 88), "shut")["i"] == [0]
    assert flags(stuck(layer, share=0.99), "shut")["i"] == []


def test_without_ends_a_gate_can_be_constant_only(make_layer):
    layer = built(make_layer).assign_attrs(activation="relu", recurrent_activation="relu")
    found = stuck(layer)
    assert not found.shut.any()
    assert not found.open.any()
    assert flags(found, "constant")["o"] == [2]
    some = stuck(built(make_layer).assign_attrs(activation="relu"))
    assert flags(some, "shut") == {"i": [0], "f": [], "g": [], "o": []}


def test_one_value_is_not_constant(make_layer):
    assert not stuck(make_layer("GRU").isel(time=[0], batch=[0])).constant.any()
