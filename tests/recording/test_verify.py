"""Verification: what differs is refused and named; NaN, infinity and rounding are told apart."""

import re
from dataclasses import replace

import numpy as np
import pytest

import cases
import oracles
from everystate.errors import InputTypeError, ReplayMismatchError
from everystate.recording import stretches
from everystate.recording.replay import replay
from everystate.recording.selection import Select
from everystate.recording.verify import TOLERANCE
from observed import observed, stepwise

RAGGED = [cases.T, 2, 4]


def replayed(seen, **select):
    return replay(seen, Select(**select).plan(seen))


def with_fault(seen, place, by=1e-3, variable="h"):
    shown = {name: np.array(a) for name, a in seen.observed.items()}
    shown[variable][place] += by
    return replace(seen, observed=shown)


def mismatch(seen, **select):
    with pytest.raises(ReplayMismatchError) as caught:
        replayed(seen, **select)
    return str(caught.value)


def test_a_right_replay_says_how_right_it_was():
    attrs = replayed(observed(cases.case("lstm"))).attrs
    assert set(attrs) == {"max_error_h", "max_error_c", "tolerance", "unverified_values"}
    assert attrs["tolerance"] == TOLERANCE["float64"]
    assert attrs["unverified_values"] == 0
    assert 0 < attrs["max_error_h"] < 1e-14
    assert 0 < attrs["max_error_c"] < 1e-14  # of the last state: the only c that was shown


def test_the_largest_error_is_kept_and_scaled():
    seen = observed(cases.case("gru"))
    attrs = replayed(with_fault(seen, (cases.T - 1, 1, 2), 3e-11)).attrs
    theirs = seen.observed["h"][-1, 1, 2]
    assert attrs["max_error_h"] == pytest.approx(3e-11 / (1 + abs(theirs)), rel=1e-3)


class TestTheMessageNames:
    def test_everything(self):
        message = mismatch(with_fault(observed(cases.case("lstm")), (6, 2, 3)))
        assert re.match(
            r"encoder/rnn: the replayed h differs from the framework's, first at step 6 \(row 2, "
            r"unit 3\): scaled error 0\.00\d+, expected at most 1e-10 for float64\. None of the "
            r"usual suspects .* makes it match; was the layer's forward changed\? Nothing of this "
            r"layer was stored; select variables=\('h',\) to record what the framework shows "
            r"without a replay\.$",
            message,
        )

    @pytest.mark.parametrize("place", [(6, 2, 3), (5, 0, 1)])
    @pytest.mark.usefixtures("tiny_blocks")
    def test_the_place_in_a_later_block(self, place):
        step, row, unit = place
        message = mismatch(with_fault(observed(cases.case("gru")), place))
        assert f"first at step {step} (row {row}, unit {unit})" in message

    def test_the_place_where_steps_are_strided(self):
        seen = with_fault(observed(cases.case("gru")), (6, 1, 4))
        assert "first at step 6 (row 1, unit 4)" in mismatch(seen, every=3)

    def test_the_unit_where_some_are_selected(self):
        seen = with_fault(observed(cases.case("lstm")), (6, 1, 4))
        assert "(row 1, unit 4)" in mismatch(seen, units=(0, 4))

    def test_the_place_in_time_of_a_backward_layer(self):
        seen = with_fault(observed(cases.case("lstm"), reverse=True), (0, 1, 4))
        assert "first at step 0 (row 1, unit 4)" in mismatch(seen)

    def test_the_place_in_time_of_a_ragged_backward_layer(self):
        seen = observed(cases.case("lstm"), reverse=True, lengths=RAGGED)
        assert "first at step 0 (row 2, unit 4)" in mismatch(with_fault(seen, (0, 2, 4)))

    @pytest.mark.parametrize("reverse", [False, True])
    def test_the_row_and_step_of_a_final_state(self, reverse):
        case = cases.case("lstm")
        seen = observed(case, lengths=[2, cases.T, 4], reverse=reverse)
        final = {name: a.copy() for name, a in seen.final.items()}
        final["c"][2, 3] += 1e-3
        message = mismatch(replace(seen, final=final))
        step = 0 if reverse else 3
        assert f"the replayed c differs from the framework's, first at step {step} " in message
        assert "(row 2, unit 3)" in message

    def test_a_state_shown_beside_h(self):
        seen, _ = stepwise(cases.case("lstm"))
        message = mismatch(with_fault(seen, (4, 1, 2), variable="c"))
        assert "the replayed c differs from the framework's, first at step 4 (row 1" in message

    def test_a_final_state_of_several_blocks(self, monkeypatch):
        monkeypatch.setattr(stretches, "BLOCK_BYTES", 1)
        monkeypatch.setattr(stretches, "BLOCK_ROWS", 2 * cases.B)
        seen = observed(cases.case("lstm"))
        final = {**seen.final, "c": seen.final["c"] + np.eye(cases.B, cases.U)[1] * 1e-3}
        assert "the replayed c" in mismatch(replace(seen, final=final))
        assert "first at step 6 (row 0, unit 1)" in mismatch(replace(seen, final=final))


class TestWhatIsCompared:
    def test_steps_past_the_end_are_not(self):
        seen = observed(cases.case("lstm"), lengths=RAGGED)
        assert replayed(with_fault(seen, (2, 1), 1e6)).attrs["max_error_h"] < 1e-14

    def test_the_last_valid_step_is(self):
        seen = observed(cases.case("lstm"), lengths=RAGGED)
        assert "first at step 1 (row 1" in mismatch(with_fault(seen, (1, 1)))

    def test_rows_of_no_length_have_no_final_state_to_compare(self):
        seen = observed(cases.case("lstm"), lengths=[0, 2, 4])
        final = {name: np.concatenate([a[:1] + 1.0, a[1:]]) for name, a in seen.final.items()}
        assert replayed(replace(seen, final=final)).attrs["max_error_c"] < 1e-14

    def test_every_step_every_row_and_every_unit_is(self):
        case = cases.case("lstm", sizes=(3, 2, 2, 3))
        for place in np.ndindex(3, 2, 3):
            step, row, unit = place
            message = mismatch(with_fault(observed(case), place))
            first = (step, row, unit)
            assert f"at step {first[0]} (row {first[1]}, unit {first[2]})" in message

    def test_units_that_are_not_selected_are_not(self):
        seen = with_fault(observed(cases.case("lstm")), (6, 1, 4))
        assert replayed(seen, units=(0, 3)).attrs["max_error_h"] < 1e-14


class TestPrecision:
    @pytest.mark.parametrize("precision", ["float64", "float32"])  # half: see test_rounding
    @pytest.mark.parametrize(("share", "passes"), [(0.5, True), (3.0, False)])
    def test_each_has_its_tolerance(self, precision, share, passes):
        tolerance = TOLERANCE[precision]
        case = cases.case("gru", scale=0.2)
        seen = observed(case, precision=precision)
        place = (cases.T - 1, 1, 2)
        at = seen.observed["h"][place]
        seen = with_fault(seen, place, np.sign(at) * share * tolerance * (1 + abs(at)))
        if passes:
            assert replayed(seen).attrs["tolerance"] == tolerance
        else:
            assert f"expected at most {tolerance:g} for {precision}" in mismatch(seen)

    def test_large_states_are_compared_in_proportion(self):
        case = cases.case("lstm", activation="linear", output_activation="linear")
        case = case.with_(x=case.x * 1e4)
        seen = observed(case)
        row, unit = np.unravel_index(np.abs(seen.observed["h"][-1]).argmax(), (cases.B, cases.U))
        assert np.abs(seen.observed["h"][-1, row, unit]) > 1e4
        assert replayed(with_fault(seen, (-1, row, unit), 1e-7)).attrs["max_error_h"] < 1e-11

    @pytest.mark.parametrize("precision", ["float16", "bfloat16"])
    @pytest.mark.parametrize("family", ["lstm", "gru"])
    def test_states_rounded_to_half_precision_at_each_step_pass(self, precision, family):
        case = cases.case(family, sizes=(60, 3, 4, 5), scale=0.4)
        seen = observed(case, precision=precision)
        shown = {name: _rounded(a, precision) for name, a in seen.observed.items()}
        recorded = replayed(replace(seen, observed=shown))
        assert recorded.attrs["max_error_h"] > 1e-5  # rounding is there, and allowed for
        oracles.assert_close(recorded.variables, case.expected().values, TOLERANCE[precision])

    def test_one_that_is_not_known_is_refused(self):
        seen = observed(cases.case("lstm"), precision="float8_e4m3fn")
        with pytest.raises(InputTypeError, match="encoder/rnn: computes in float8_e4m3fn"):
            replayed(seen)


def _rounded(a, precision):
    if precision == "float16":
        return a.astype(np.float16).astype(np.float64)
    bits = a.astype(np.float32).view(np.uint32)  # bfloat16: the upper half of a float32
    return ((bits + 0x8000) & 0xFFFF0000).astype(np.uint32).view(np.float32).astype(np.float64)


@pytest.mark.filterwarnings("error")
class TestNanAndInfinity:
    @pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
    @pytest.mark.parametrize("family", cases.FAMILIES)
    @pytest.mark.parametrize("reverse", [False, True])
    def test_in_the_input_are_recorded_as_the_framework_has_them(self, bad, family, reverse):
        case = cases.case(family)
        x = case.x.copy()
        x[3, 1, 0] = bad
        seen = _observed_with_odd_numbers(case.with_(x=x), reverse=reverse)
        recorded = replayed(seen)
        np.testing.assert_array_equal(recorded.variables["h"], seen.observed["h"])
        sound = [0, 2]
        clean = case.expected(reverse=reverse).values
        for name, values in recorded.variables.items():
            np.testing.assert_allclose(values[:, sound], clean[name][:, sound], rtol=1e-12)

    @pytest.mark.parametrize("bad", [np.nan, np.inf])
    def test_in_the_initial_state(self, bad):
        case = cases.case("lstm")
        initial = {name: a.copy() for name, a in case.initial.items()}
        initial["c"][2, 1] = bad
        seen = _observed_with_odd_numbers(case.with_(initial=initial))
        recorded = replayed(seen)
        np.testing.assert_array_equal(recorded.variables["h"], seen.observed["h"])
        assert not np.isfinite(recorded.variables["c"][:, 2, 1]).any()

    def test_in_the_weights(self):
        case = cases.case("lstm")
        gates = {**case.gates, "f": replace(case.gates["f"], b=np.full(cases.U, np.nan))}
        seen = _observed_with_odd_numbers(case.with_(gates=gates))
        assert np.isnan(replayed(seen).variables["c"]).all()

    def test_states_that_left_the_range_of_floats(self):
        case = cases.case("simple_rnn", activation="relu", sizes=(60, 3, 4, 5))
        gates = {"h": replace(case.gates["h"], R=np.abs(case.gates["h"].R) * 1e20)}
        seen = _observed_with_odd_numbers(case.with_(gates=gates))
        assert not np.isfinite(seen.observed["h"][-1]).any()
        np.testing.assert_array_equal(replayed(seen).variables["h"], seen.observed["h"])

    def test_states_that_left_it_in_another_way_are_not_verified(self):
        case = cases.case("gru")
        gates = {**case.gates, "z": replace(case.gates["z"], b=np.full(cases.U, np.nan))}
        seen = _observed_with_odd_numbers(case.with_(gates=gates))
        shown = {"h": np.full_like(seen.observed["h"], np.inf)}
        attrs = replayed(replace(seen, observed=shown, final={})).attrs
        assert attrs["unverified_values"] == cases.T * cases.B * cases.U

    def test_a_nan_of_the_replay_alone_is_a_mismatch(self):
        case = cases.case("lstm")
        seen = observed(case)
        weights = replace(seen.weights, b=np.where(np.arange(20) == 7, np.nan, seen.weights.b))
        message = mismatch(replace(seen, weights=weights))
        assert "in the framework, nan in the replay, and one alone is finite" in message
        assert "first at step 0 (row 0, unit 2)" in message

    def test_a_nan_of_the_framework_alone_is_a_mismatch(self):
        seen = with_fault(observed(cases.case("gru")), (6, 1, 2), np.nan)
        assert "first at step 6 (row 1, unit 2): nan in the framework, -0." in mismatch(seen)

    def test_a_row_with_nan_does_not_excuse_another(self):
        seen = _observed_with_odd_numbers(_with_nan(cases.case("gru"), (3, 1, 0)))
        shown = {"h": seen.observed["h"].copy()}
        shown["h"][6, 2, 0] = np.nan
        assert "first at step 6 (row 2, unit 0)" in mismatch(replace(seen, observed=shown))

    def test_nan_does_not_excuse_the_steps_before_it(self):
        seen = _observed_with_odd_numbers(_with_nan(cases.case("gru"), (3, 1, 0)))
        shown = {"h": seen.observed["h"].copy()}
        shown["h"][2, 1, 0] = np.nan
        assert "first at step 2 (row 1, unit 0)" in mismatch(replace(seen, observed=shown))

    def test_what_could_not_be_verified_is_counted(self):
        seen = _observed_with_odd_numbers(_with_nan(cases.case("gru"), (6, 1, 0)))
        shown = {"h": np.nan_to_num(seen.observed["h"], nan=0.25)}  # a kernel that swallows NaN
        attrs = replayed(replace(seen, observed=shown)).attrs
        assert attrs["unverified_values"] == cases.U

    def test_past_the_end_excuse_nothing(self):
        case = _with_nan(cases.case("gru"), (5, 1, 0))
        seen = _observed_with_odd_numbers(case, lengths=[7, 5, 7])
        shown = {"h": seen.observed["h"].copy()}
        shown["h"][4, 1, 0] = np.nan
        assert replayed(seen).attrs["unverified_values"] == 0
        assert "first at step 4 (row 1, unit 0)" in mismatch(replace(seen, observed=shown))


def _with_nan(case, place):
    x = case.x.copy()
    x[place] = np.nan
    return case.with_(x=x)


def _observed_with_odd_numbers(case, lengths=None, **options):
    with np.errstate(all="ignore"):
        expected = case.expected(lengths=lengths, **options)
        shown = np.array(expected.values["h"])
        return observed(case, lengths=lengths, observed={"h": shown}, **options)
