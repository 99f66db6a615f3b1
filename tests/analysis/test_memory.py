"""Half-lives: from known decay, and against a plain median."""

import math
import statistics

import numpy as np
import pytest

import mutations
from everystate.analysis.memory import half_life


def oracle(rows, kept=lambda f: f):
    return math.log(2) / -math.log(statistics.median(kept(f) for row in rows for f in row))


def check(found, expected):
    assert found.half_life.values == pytest.approx(expected, rel=1e-9)


def clipped(layer, gate):
    """The layer without exact 0 and 1, whose half-lives are no numbers."""
    return layer.assign({gate: layer[gate].clip(1e-6, 1 - 1e-6)})


def test_lstm_agrees_with_a_plain_median(make_layer, valid):
    layer = clipped(make_layer("LSTM"), "f")
    units = range(5)
    check(half_life(layer), [oracle(valid(layer["f"], u)) for u in units])
    with mutations.must_be_noticed("input gate taken for the forget gate"):
        check(half_life(layer), [oracle(valid(layer["i"].clip(1e-6), u)) for u in units])
    with mutations.must_be_noticed("mean for the median"):
        check(half_life(layer), math.log(2) / -np.log(layer["f"].mean(["batch", "time"]).values))
    with mutations.must_be_noticed("mean of the logarithms for the median"):
        check(half_life(layer), math.log(2) / -np.log(layer["f"]).mean(["batch", "time"]).values)
    with mutations.must_be_noticed("median of row medians"):
        rows = layer["f"].median("time").median("batch").values
        check(half_life(layer), math.log(2) / -np.log(rows))
    with mutations.must_be_noticed("padding counted as zeros"):
        check(half_life(layer.fillna(0.0)), [oracle(valid(layer["f"], u)) for u in units])
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


def test_a_start_and_a_closed_gate_do_not_decide(make_layer):
    layer = make_layer("LSTM", lengths=None)
    layer["f"][:] = 0.97
    layer["f"][:, :9] = 0.2
    layer["f"][:, 30] = 0.0
    check(half_life(layer), [math.log(2) / -math.log(0.97)] * 5)
    layer["f"][:, :22] = 0.2  # now most of the 41 steps
    with mutations.must_be_noticed("a gate that is mostly closed"):
        check(half_life(layer), [math.log(2) / -math.log(0.97)] * 5)


def test_a_stride_does_not_change_the_unit_of_time(make_layer):
    layer = make_layer("LSTM", lengths=None)
    layer["f"][:] = 0.97
    strided = layer.isel(time=slice(None, None, 10))
    check(half_life(strided), half_life(layer).half_life.values)


def test_gates_at_their_ends(make_layer):
    layer = make_layer("LSTM")
    layer["f"][..., 0] = 1.0
    layer["f"][..., 1] = 0.0
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


def decay(rows, kept=lambda f: f):
    """After how many steps a half is left, at the pace of the whole: by multiplying it out."""
    left, steps = 1.0, 0
    for f in (kept(f) for row in rows for f in row):
        left, steps = left * f, steps + 1
    return math.log(2) * steps / -math.log(left)


def test_the_average_is_what_truly_remains(make_layer, valid):
    layer = make_layer("LSTM").assign(f=make_layer("LSTM")["f"].clip(0.1, 0.999))
    ours = half_life(layer).average.values
    expected = [decay(valid(layer["f"], u)) for u in range(5)]
    assert ours == pytest.approx(expected, rel=1e-9)
    by_mean = math.log(2) / -np.log(layer["f"].mean(["batch", "time"]).values)
    assert (ours < by_mean).all()  # the bias of averaging: the mean gate promises too much
    with mutations.must_be_noticed("mean gate"):
        assert ours == pytest.approx(by_mean, rel=1e-9)
    with mutations.must_be_noticed("padding counted"):
        padded = layer.fillna(0.5)
        assert ours == pytest.approx([decay(valid(padded["f"], u)) for u in range(5)], rel=1e-9)


def test_the_average_of_a_gru_is_that_of_what_it_keeps(make_layer, valid):
    layer = make_layer("GRU", update="writes")
    layer = layer.assign(z=layer["z"].clip(0.1, 0.9))
    expected = [decay(valid(layer["z"], u), lambda z: 1 - z) for u in range(5)]
    assert half_life(layer).average.values == pytest.approx(expected, rel=1e-9)


def test_one_closed_step_decides_the_average_and_not_the_half_life(make_layer):
    layer = make_layer("LSTM", lengths=None)
    layer["f"][:] = 0.97
    layer["f"][0, 30, :2] = 0.0
    layer["f"][..., 4] = 1.0
    found = half_life(layer)
    assert found.average.values[:2].tolist() == [0.0, 0.0]
    assert found.average.values[2] == pytest.approx(math.log(2) / -math.log(0.97))
    assert found.average.values[4] == math.inf
    assert found.half_life.values[:4] == pytest.approx([math.log(2) / -math.log(0.97)] * 4)
