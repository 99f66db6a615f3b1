"""Half-lives: from known decay, and against plain sums."""

import math

import numpy as np
import pytest

import mutations
from everystate.analysis.memory import half_life


def oracle(rows, kept=lambda f: f):
    values = [kept(f) for row in rows for f in row]
    return math.log(2) / -(sum(math.log(f) for f in values) / len(values))


def check(found, expected):
    assert found.half_life.values == pytest.approx(expected, rel=1e-9)


def clipped(layer, gate):
    """The layer without exact 0 and 1, for which the sums above have no logarithm."""
    return layer.assign({gate: layer[gate].clip(1e-6, 1 - 1e-6)})


def test_lstm_agrees_with_plain_sums(make_layer, valid):
    layer = clipped(make_layer("LSTM"), "f")
    units = range(5)
    check(half_life(layer), [oracle(valid(layer["f"], u)) for u in units])
    with mutations.must_be_noticed("input gate taken for the forget gate"):
        check(half_life(layer), [oracle(valid(layer["i"].clip(1e-6), u)) for u in units])
    with mutations.must_be_noticed("logarithm of the mean for the mean of the logarithms"):
        means = layer["f"].mean(["batch", "time"]).values
        check(half_life(layer), math.log(2) / -np.log(means))
    with mutations.must_be_noticed("mean of row means"):
        rows = np.log(layer["f"]).mean("time").mean("batch").values
        check(half_life(layer), math.log(2) / -rows)
    with mutations.must_be_noticed("time constant for half-life"):
        check(half_life(layer), [oracle(valid(layer["f"], u)) / math.log(2) for u in units])


@pytest.mark.parametrize("update", ["keeps", "writes"])
def test_gru_keeps_or_writes(make_layer, valid, update):
    layer = clipped(make_layer("GRU", update=update), "z")
    share = {"keeps": lambda z: z, "writes": lambda z: 1.0 - z}
    other = {"keeps": "writes", "writes": "keeps"}[update]
    check(half_life(layer), [oracle(valid(layer["z"], u), share[update]) for u in range(5)])
    with mutations.must_be_noticed("the other convention"):
        check(half_life(layer), [oracle(valid(layer["z"], u), share[other]) for u in range(5)])


def test_what_a_unit_holds_is_halved_after_its_half_life(make_layer):
    layer = make_layer("LSTM", lengths=None)
    rng = np.random.default_rng(5)
    f = rng.uniform(0.9, 1.0, size=5)
    layer["f"][:] = f
    for unit, steps in enumerate(half_life(layer).half_life.values):
        assert f[unit] ** steps == pytest.approx(0.5, rel=1e-9)


def test_fluctuating_gates_hold_shorter_than_their_mean_says(make_layer):
    layer = clipped(make_layer("LSTM"), "f")
    of_mean = math.log(2) / -np.log(layer["f"].mean(["batch", "time"]).values)
    assert (half_life(layer).half_life.values < of_mean).all()


def test_a_stride_does_not_change_the_unit_of_time(make_layer):
    layer = make_layer("LSTM", lengths=None)
    layer["f"][:] = 0.97
    strided = layer.isel(time=slice(None, None, 10))
    check(half_life(strided), half_life(layer).half_life.values)


def test_gates_at_their_ends(make_layer):
    layer = make_layer("LSTM")
    layer["f"][..., 0] = 1.0
    layer["f"][..., 1] = 0.9
    layer["f"][0, 3, 1] = 0.0
    layer["f"][..., 2] = np.nan
    layer["f"][..., 3] = -0.5  # an unbounded activation: the sign turns, the size is halved
    layer["f"][..., 4] = 1.5
    found = half_life(layer).half_life.values
    assert found[[0, 1, 3, 4]].tolist() == [math.inf, 0.0, pytest.approx(1.0), math.inf]
    assert math.isnan(found[2])


@pytest.mark.parametrize(("dtype", "longest"), [("float16", 1419), ("float32", 11_629_079)])
def test_the_longest_half_life_that_a_precision_can_tell(make_layer, dtype, longest):
    layer = make_layer("LSTM", lengths=None)[["f"]].astype(dtype)
    layer["f"][:] = np.nextafter(np.array(1, dtype), np.array(0, dtype))
    assert half_life(layer).half_life.values == pytest.approx([longest] * 5, rel=1e-3)


@pytest.mark.parametrize("cell", ["LSTM", "GRU", "SimpleRNN"])
def test_without_the_gate_there_is_no_half_life(make_layer, cell):
    assert not half_life(make_layer(cell)[["h"]]).data_vars
