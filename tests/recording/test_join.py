"""Joining calls: along batch with padding, along time as a stream; what does not fit is refused."""

import numpy as np
import pytest

import cases
import oracles
from everystate.errors import JoinError
from everystate.recording.join import join
from everystate.recording.replay import replay
from everystate.recording.selection import Select
from observed import observed


def part(case, select=None, offset=None, **options):
    seen = observed(case, **options)
    return replay(seen, (select or Select()).plan(seen, offset))


def chunks(case, *lengths):
    """Cut a case in time, each chunk starting from the state the one before ended with."""
    state, start = case.initial, 0
    for length in lengths:
        chunk = case.with_(x=case.x[start : start + length], initial=state)
        yield chunk
        state, start = chunk.expected().final, start + length


class TestAlongBatch:
    def test_rows_follow_one_another(self):
        a, b = cases.case("lstm", seed=1), cases.case("lstm", seed=1)
        b = b.with_(x=b.x[:, :2] + 0.5, initial={n: s[:2] for n, s in b.initial.items()})
        joined = join([part(a), part(b)], "batch")
        for name in joined.variables:
            both = [a.expected().values[name], b.expected().values[name]]
            oracles.assert_close(
                {name: joined.variables[name]}, {name: np.concatenate(both, axis=1)}
            )
        oracles.assert_close(
            joined.final,
            {n: np.concatenate([a.expected().final[n], b.expected().final[n]]) for n in "hc"},
        )
        assert joined.initial["c"].shape == (cases.B + 2, cases.U)
        assert joined.lengths is None

    @pytest.mark.parametrize("order", [(0, 1), (1, 0)])
    def test_shorter_calls_are_padded_with_nan_and_get_a_length(self, order):
        case = cases.case("gru")
        both = [case, case.with_(x=case.x[:4])]
        joined = join([part(both[k]) for k in order], "batch")
        lengths = [[cases.T, 4][k] for k in order]
        assert joined.lengths.tolist() == [n for n in lengths for _ in range(cases.B)]
        assert joined.length == cases.T
        for row, length in enumerate(joined.lengths):
            h = joined.variables["h"][:, row]
            assert np.isnan(h[length:]).all()
            np.testing.assert_array_equal(h[:length], case.expected().values["h"][:length, row % 3])

    def test_ragged_calls_keep_their_lengths(self):
        case = cases.case("gru")
        joined = join([part(case, lengths=[7, 0, 3]), part(case)], "batch")
        assert joined.lengths.tolist() == [7, 0, 3, 7, 7, 7]

    def test_with_every_and_a_window(self):
        case = cases.case("gru")
        select = Select(every=2, window=(1, None))
        joined = join([part(case, select), part(case.with_(x=case.x[:4]), select)], "batch")
        assert joined.steps.tolist() == [1, 3, 5]
        assert np.isnan(joined.variables["h"][2, 3:]).all()
        assert np.isfinite(joined.variables["h"][:2]).all()

    def test_steps_that_differ_are_refused(self):
        case = cases.case("gru")
        select = Select(window=(-2, None))
        with pytest.raises(JoinError, match=r"call 1 recorded steps \[2, 3\], another"):
            join([part(case, select), part(case.with_(x=case.x[:4]), select)], "batch")

    def test_the_largest_errors_are_kept_and_unverified_values_summed(self):
        parts = [part(cases.case("gru")) for _ in range(3)]
        for k, p in enumerate(parts):
            p.attrs |= {"max_error_h": [1e-9, 3e-9, 2e-9][k], "unverified_values": k}
        attrs = join(parts, "batch").attrs
        assert (attrs["max_error_h"], attrs["unverified_values"]) == (3e-9, 3)


class TestAlongTime:
    @pytest.mark.parametrize("family", cases.FAMILIES)
    def test_a_stream_equals_the_whole(self, family):
        case = cases.case(family)
        joined = join([part(chunk) for chunk in chunks(case, 3, 1, 3)], "time")
        oracles.assert_close(joined.variables, case.expected().values)
        oracles.assert_close(joined.final, case.expected().final)
        oracles.assert_close(joined.initial, case.initial)
        assert joined.steps.tolist() == [*range(cases.T)]
        assert joined.length == cases.T
        assert "state_resets" not in joined.attrs

    def test_calls_that_start_afresh_are_noted(self):
        case = cases.case("lstm")
        first, second, third = chunks(case, 3, 2, 2)
        again = second.with_(initial=case.initial)
        joined = join([part(first), part(again), part(third)], "time")
        assert joined.attrs["state_resets"] == "3, 5"

    def test_the_last_call_may_be_ragged(self):
        first, second = chunks(cases.case("gru"), 3, 4)
        joined = join([part(first), part(second, lengths=[4, 0, 2])], "time")
        assert joined.lengths.tolist() == [7, 3, 5]

    def test_an_earlier_call_may_not_be_ragged(self):
        first, second = chunks(cases.case("gru"), 3, 4)
        with pytest.raises(JoinError, match="call 0 has rows shorter than its 3 steps"):
            join([part(first, lengths=[3, 3, 1]), part(second)], "time")

    def test_rows_that_differ_are_refused(self):
        case = cases.case("gru")
        fewer = case.with_(x=case.x[:, :2], initial={n: s[:2] for n, s in case.initial.items()})
        with pytest.raises(JoinError, match=r"calls with \[3, 2\] rows cannot be joined"):
            join([part(case), part(fewer)], "time")


@pytest.mark.parametrize("along", ["batch", "time"])
class TestEither:
    def test_one_call_is_itself(self, along):
        one = part(cases.case("lstm"))
        assert join([one], along) is one

    def test_other_sizes_are_refused(self, along):
        other = cases.case("lstm", sizes=(cases.T, cases.B, cases.D, cases.U + 1))
        with pytest.raises(JoinError) as caught:
            join([part(cases.case("lstm")), part(other)], along)
        assert str(caught.value) == (
            "encoder/rnn: call 1 has h of shape (time, batch, ...) = (7, 3, 6), the first call "
            "(7, 3, 5); their units must be the same to join them. Record them in two separate "
            "blocks."
        )

    def test_other_variables_are_refused(self, along):
        parts = [part(cases.case("lstm")), part(cases.case("gru"))]
        with pytest.raises(JoinError, match=r"call 1 has c of shape \(time, batch, ...\) = None"):
            join(parts, along)

    def test_the_parts_stay_as_they_were(self, along):
        parts = [part(cases.case("gru")) for _ in range(2)]
        before = [(p.steps.tolist(), dict(p.attrs), p.variables["h"].shape) for p in parts]
        join(parts, along)
        assert before == [(p.steps.tolist(), p.attrs, p.variables["h"].shape) for p in parts]
