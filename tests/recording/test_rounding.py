"""Half precision: rounding passes, a wrong reading does not, however small its effect."""

from dataclasses import replace

import numpy as np
import pytest

import cases
import oracles
from everystate.cells import Weights
from everystate.errors import ReplayMismatchError
from everystate.recording.replay import replay
from everystate.recording.rounding import LIMIT, error_over_rounding
from everystate.recording.selection import Select
from observed import observed
from oracles import Gate

HALF = ("float16", "bfloat16")
SIZES = {"small": (20, 3, 4, 5), "long": (300, 2, 4, 6), "one step": (1, 3, 4, 16)}


def rounded(a, precision):
    if precision == "float16":
        return np.asarray(a, np.float16).astype(np.float64)
    bits = np.asarray(a, np.float32).view(np.uint32)  # bfloat16: the upper half of a float32
    bits = (bits + 0x7FFF + ((bits >> 16) & 1)) & 0xFFFF0000
    return bits.astype(np.uint32).view(np.float32).astype(np.float64)


def half(family, precision, sizes, scale=0.5, seed=0, **variants):
    """What a kernel of half precision shows: weights, input and each step's states are rounded."""
    case = cases.case(family, sizes=sizes, scale=scale, seed=seed, **variants)
    gates = {
        name: Gate(*(rounded(a, precision) for a in (g.W, g.R, g.b, g.b_R)))
        for name, g in case.gates.items()
    }
    case = case.with_(
        gates=gates,
        x=rounded(case.x, precision),
        initial={n: rounded(a, precision) for n, a in case.initial.items()},
    )
    states, steps = case.initial, []
    for t in range(len(case.x)):
        step = case.with_(x=case.x[t : t + 1], initial=states).expected()
        states = {name: rounded(a, precision) for name, a in step.final.items()}
        steps.append(states["h"])
    seen = observed(case, precision=precision)
    return case, replace(seen, observed={"h": np.stack(steps)}, final=states)


def recorded(seen):
    return replay(seen, Select().plan(seen))


@pytest.mark.parametrize("sizes", SIZES)
@pytest.mark.parametrize("scale", [0.1, 0.5, 2.0])
@pytest.mark.parametrize("precision", HALF)
@pytest.mark.parametrize("family", ["lstm", "gru"])
def test_rounding_at_each_step_passes(family, precision, scale, sizes):
    for seed in range(3):
        _, seen = half(family, precision, SIZES[sizes], scale, seed)
        attrs = recorded(seen).attrs
        assert 0.0 < attrs["error_over_rounding"] <= 0.7 * LIMIT
        assert attrs["max_error_h"] > 1e-6  # rounding is there, and allowed for


@pytest.mark.parametrize("precision", HALF)
@pytest.mark.parametrize("scale", [0.1, 0.5, 2.0])
def test_a_wrong_reading_does_not(scale, precision):
    """Though where the weights are small its error is below any tolerance for single values."""
    case, seen = half("gru", precision, SIZES["small"], scale)
    w = case.weights
    units = w.W.shape[0] // 3
    rows = np.r_[units : 2 * units, :units, 2 * units : 3 * units]
    wrong = {
        "stored in the order z r n": Weights(
            W=w.W[rows], R=w.R[rows], b=w.b[rows], b_R=w.b_R[rows]
        ),
        "input bias": replace(w, b=None),
    }
    for cause, weights in wrong.items():
        with pytest.raises(
            ReplayMismatchError, match=f"times what rounding to {precision}"
        ) as info:
            recorded(replace(seen, weights=weights))
        assert "input bias" in cause or f"it does match with the gates {cause}" in str(info.value)


def test_a_reset_read_before_the_product_is_named():
    _, seen = half("gru", "bfloat16", SIZES["long"])
    with pytest.raises(ReplayMismatchError, match=r"it does match with reset='after'\."):
        recorded(replace(seen, cell=seen.cell.with_(reset="before")))


def test_what_no_reading_explains_says_so():
    _, seen = half("lstm", "float16", SIZES["small"])
    seen = replace(seen, inputs=2.0 * seen.inputs)
    with pytest.raises(ReplayMismatchError, match="None of the usual suspects"):
        recorded(seen)


@pytest.mark.parametrize("reverse", [False, True])
def test_only_valid_steps_count(reverse):
    """Past a row's end there may be anything, also NaN."""
    case = cases.case("gru", sizes=(9, 3, 4, 5))
    seen = observed(case, precision="float16", lengths=[4, 9, 1], reverse=reverse)
    assert recorded(seen).attrs["error_over_rounding"] < 1e-6
    x = np.where((np.arange(9)[:, None] < [4, 9, 1])[:, :, None], seen.inputs, np.nan)
    assert recorded(replace(seen, inputs=x)).attrs["error_over_rounding"] < 1e-6


def test_nan_in_the_input_is_set_aside():
    case, seen = half("lstm", "bfloat16", SIZES["small"])
    x = seen.inputs.copy()
    x[3, 1] = np.nan
    h = seen.observed["h"].copy()
    h[3:, 1] = np.nan
    final = {n: np.where(np.arange(3)[:, None] == 1, np.nan, a) for n, a in seen.final.items()}
    attrs = recorded(replace(seen, inputs=x, observed={"h": h}, final=final)).attrs
    assert 0.0 < attrs["error_over_rounding"] < LIMIT
    assert case.x.shape == x.shape


def test_other_precisions_have_no_such_attribute():
    seen = observed(cases.case("gru"), precision="float32")
    assert "error_over_rounding" not in recorded(seen).attrs


def test_the_yardstick_is_the_same_each_time():
    _, seen = half("gru", "bfloat16", SIZES["small"])
    assert error_over_rounding(seen) == error_over_rounding(seen)
    oracles.assert_close(recorded(seen).variables, recorded(seen).variables, 0.0)
