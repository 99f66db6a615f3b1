"""`Recorder`: runs, shared layers, streams, chunks, warnings, and what it refuses."""

import warnings
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import cases
import oracles
from everystate.errors import (
    EverystateWarning,
    InputError,
    JoinError,
    NothingRecordedError,
    ReplayMismatchError,
    SelectionError,
)
from everystate.recording import recorder as recorder_module
from everystate.recording.recorder import Recorder
from everystate.recording.selection import Select
from observed import Counting, counting, observed

pytestmark = pytest.mark.filterwarnings("error")


def recorder(along="batch", labels=(None, None), **select):
    return Recorder("Model", "torch", Select(**select), along, labels)


def run(rec, *observations):
    """One call of the whole model."""
    rec.begin_run()
    for seen in observations:
        rec.observe(seen)
    rec.end_run()


def values(leaf):
    """The variables of a leaf as the oracle has them: time-major arrays."""
    return {
        str(name): np.swapaxes(array.values, 0, 1)
        for name, array in leaf.data_vars.items()
        if not str(name).startswith("initial_")
    }


def chunks(case, lengths):
    """Cut a case in time, each chunk starting from the state the one before ended with."""
    state, start = case.initial, 0
    for length in lengths:
        chunk = case.with_(x=case.x[start : start + length], initial=state)
        yield chunk
        state, start = chunk.expected().final, start + length


class TestRuns:
    def test_one_run(self):
        rec, case = recorder(), cases.case("lstm")
        run(rec, observed(case))
        oracles.assert_close(values(rec.trace["encoder/rnn"]), case.expected().values)

    def test_layers_are_leaves(self):
        rec = recorder()
        run(
            rec,
            observed(cases.case("lstm"), path="a/lstm"),
            observed(cases.case("gru"), path="b"),
        )
        assert {leaf.path for leaf in rec.trace.leaves} == {"/a/lstm", "/b"}

    def test_several_runs_are_joined_along_batch(self):
        rec, case = recorder(), cases.case("lstm")
        for _ in range(3):
            run(rec, observed(case))
        assert dict(rec.trace["encoder/rnn"].c.sizes) == {"batch": 9, "time": 7, "unit": 5}

    def test_layers_called_without_the_model_make_runs_of_their_own(self):
        rec, case = recorder(), cases.case("gru")
        for path in ("a", "b", "a", "b"):
            rec.observe(observed(case, path=path))
        assert rec.trace["a"].sizes["batch"] == rec.trace["b"].sizes["batch"] == 6

    def test_a_layer_called_twice_in_a_run_has_two_leaves(self):
        rec = recorder()
        first = cases.case("gru", seed=1)
        second = first.with_(x=cases.case("gru", seed=2).x)
        for _ in range(2):
            run(rec, observed(first), observed(second))
        assert [leaf.path for leaf in rec.trace.leaves] == [
            "/encoder/rnn/call_0",
            "/encoder/rnn/call_1",
        ]
        for k, case in enumerate((first, second)):
            leaf = rec.trace[f"encoder/rnn/call_{k}"]
            oracles.assert_close(
                values(leaf.isel(batch=slice(3))), case.expected().values, tolerance=1e-10
            )
            assert leaf.sizes["batch"] == 6

    def test_runs_that_call_a_layer_once_and_twice_do_not_mix(self):
        rec, case = recorder(), cases.case("gru")
        run(rec, observed(case))
        run(rec, observed(case), observed(case))
        sizes = {leaf.path: leaf.sizes["batch"] for leaf in rec.trace.leaves}
        assert sizes == {"/encoder/rnn/call_0": 6, "/encoder/rnn/call_1": 3}

    def test_the_trace_can_be_had_before_the_end(self):
        rec, case = recorder(), cases.case("gru")
        run(rec, observed(case))
        before = rec.trace
        run(rec, observed(case))
        assert before["encoder/rnn"].sizes["batch"] == 3
        assert rec.trace["encoder/rnn"].sizes["batch"] == 6

    def test_repr(self):
        rec = recorder()
        run(rec, observed(cases.case("gru"), path="a"), observed(cases.case("gru"), path="b/c"))
        assert repr(rec) == "<Recorder of Model: calls of a (1), b/c (1)>"

    def test_joining_calls_that_do_not_fit(self):
        rec = recorder()
        run(rec, observed(cases.case("gru")))
        run(rec, observed(cases.case("gru", sizes=(7, 3, 4, 6))))
        with pytest.raises(JoinError, match="encoder/rnn: call 1 has h of shape"):
            _ = rec.trace


class TestSelection:
    def test_layers_that_are_not_wanted_are_not_computed(self):
        rec = recorder(layers="decoder")
        rec.observe(counting(cases.case("lstm"), path="encoder/lstm"))
        assert Counting.products == []
        rec.observe(counting(cases.case("lstm"), path="decoder/lstm"))
        assert len(Counting.products) == 1
        assert [leaf.path for leaf in rec.trace.leaves] == ["/decoder/lstm"]

    def test_a_layer_without_the_variables_is_left_out(self):
        rec = recorder(variables="c")
        run(
            rec,
            observed(cases.case("lstm"), path="lstm"),
            observed(cases.case("gru"), path="gru"),
        )
        assert [leaf.path for leaf in rec.trace.leaves] == ["/lstm"]

    def test_no_layer_has_the_variables(self):
        rec = recorder(variables=("c", "f"))
        run(rec, observed(cases.case("gru"), path="b"), observed(cases.case("gru"), path="a"))
        with pytest.raises(NothingRecordedError) as caught:
            _ = rec.trace
        assert str(caught.value) == (
            "none of the layers called has any of variables=('c', 'f'): a has h, r, z, n; b has h, "
            "r, z, n. Leave variables= out for all there are."
        )

    @pytest.mark.parametrize("along", ["batch", "time"])
    def test_a_window_that_no_call_reaches(self, along):
        rec = recorder(along, window=(50, 60))
        run(rec, observed(cases.case("gru")))
        with pytest.raises(SelectionError) as caught:
            _ = rec.trace
        assert str(caught.value) == ("encoder/rnn: window=(50, 60) holds none of the 7 steps.")

    def test_a_window_that_only_the_longer_call_reaches(self):
        rec, case = recorder(window=(5, None)), cases.case("gru")
        run(rec, observed(case.with_(x=case.x[:4])))
        run(rec, observed(case))
        leaf = rec.trace["encoder/rnn"]
        assert leaf.length.values.tolist() == [4, 4, 4, 7, 7, 7]
        assert leaf.time.values.tolist() == [5, 6]
        assert np.isnan(leaf.h[:3]).all()


class TestStreams:
    @settings(max_examples=60, deadline=None)
    @given(
        family=st.sampled_from(sorted(cases.FAMILIES)),
        lengths=st.lists(st.integers(1, 6), min_size=1, max_size=5),
        start=st.none() | st.integers(0, 12),
        stop=st.none() | st.integers(13, 40),
        every=st.integers(1, 7),
        units=st.none() | st.just((3, 0)),
    )
    def test_equal_the_same_selection_of_the_whole(
        self, family, lengths, start, stop, every, units
    ):
        steps = sum(lengths)
        case = cases.case(family, sizes=(steps, 2, 3, 4))
        select = {"window": (start, stop), "every": every, "units": units}
        stream, whole = recorder("time", **select), recorder(**select)
        for chunk in chunks(case, lengths):
            run(stream, observed(chunk))
        run(whole, observed(case))
        if (start or 0) >= steps:
            with pytest.raises(SelectionError):
                _ = stream.trace
            return
        ours, theirs = (rec.trace["encoder/rnn"] for rec in (stream, whole))
        np.testing.assert_array_equal(ours.time, theirs.time)
        for name in theirs.data_vars:
            np.testing.assert_allclose(ours[name], theirs[name], rtol=1e-9, atol=1e-12)

    def test_the_comparison_would_notice_a_shift(self):
        case = cases.case("gru")
        stream, whole = recorder("time", every=2), recorder(every=2)
        for chunk in chunks(case, (3, 4)):
            run(stream, observed(chunk))
        run(whole, observed(case.with_(x=np.roll(case.x, 1, axis=0))))
        assert not np.allclose(stream.trace["encoder/rnn"].h, whole.trace["encoder/rnn"].h)

    def test_a_shared_layer_has_a_stream_for_each_call(self):
        rec = recorder("time", every=2, window=(1, None))
        first = cases.case("gru", seed=1)
        second = first.with_(x=cases.case("gru", seed=2).x)
        pairs = zip(chunks(first, (3, 4)), chunks(second, (3, 4)), strict=True)
        for a, b in pairs:
            run(rec, observed(a), observed(b))
        for k, case in enumerate((first, second)):
            leaf = rec.trace[f"encoder/rnn/call_{k}"]
            assert leaf.time.values.tolist() == [1, 3, 5]
            expected = {name: a[1::2] for name, a in case.expected().values.items()}
            oracles.assert_close(values(leaf), expected)

    def test_states_that_were_not_passed_on_are_reported(self):
        rec, case = recorder("time"), cases.case("gru")
        first, second = chunks(case, (3, 4))
        run(rec, observed(first))
        run(rec, observed(second.with_(initial=case.initial)))
        message = "encoder/rnn: calls joined along time do not start from the state .* at steps 3"
        with pytest.warns(EverystateWarning, match=message):
            _ = rec.trace

    def test_a_window_counted_from_the_end_is_refused(self):
        rec = recorder("time", window=(-2, None))
        with pytest.raises(SelectionError, match="counts from the end, which a stream does not"):
            rec.observe(observed(cases.case("gru")))

    def test_labels_are_of_the_whole_stream(self):
        rec = recorder("time", labels=(np.arange(7) * 0.5, ["a", "b", "c"]), every=3)
        for chunk in chunks(cases.case("gru"), (2, 5)):
            run(rec, observed(chunk))
        leaf = rec.trace["encoder/rnn"]
        assert leaf.time.values.tolist() == [0.0, 1.5, 3.0]
        assert leaf.batch.values.tolist() == ["a", "b", "c"]

    def test_only_batch_and_time_can_be_joined_along(self):
        with pytest.raises(SelectionError, match="along='units': expected 'batch' or 'time'"):
            recorder("units")


class TestChunks:
    """A framework module may hand a sequence over in parts."""

    @pytest.mark.parametrize("along", ["batch", "time"])
    @pytest.mark.parametrize("whole", [None, 7])
    @pytest.mark.parametrize("select", [{}, {"every": 2}, {"window": (1, 6), "every": 3}])
    def test_are_one_sequence(self, along, whole, select):
        case = cases.case("lstm")
        rec, at_once = recorder(along, **select), recorder(**select)
        rec.begin_run()
        for k, chunk in enumerate(chunks(case, (2, 1, 4))):
            rec.observe(observed(chunk, whole=whole), goes_on=k > 0)
        rec.end_run()
        run(at_once, observed(case))
        ours, theirs = rec.trace["encoder/rnn"], at_once.trace["encoder/rnn"]
        np.testing.assert_array_equal(ours.time, theirs.time)
        for name in theirs.data_vars:
            np.testing.assert_allclose(ours[name], theirs[name], rtol=1e-9)
        assert ours.attrs["max_error_h"] < 1e-14

    def test_that_start_from_an_edited_state_are_still_one_sequence(self):
        first, second = chunks(cases.case("gru"), (3, 4))
        edited = second.with_(initial={"h": second.initial["h"] * 0.5})
        rec = recorder()
        rec.observe(observed(first))
        rec.observe(observed(edited), goes_on=True)
        assert "state_resets" not in rec.trace["encoder/rnn"].attrs  # and no warning

    def test_of_several_runs_are_joined_along_time(self):
        case = cases.case("gru", sizes=(10, 3, 4, 5))
        rec = recorder("time", every=3)
        a, b, c, d = chunks(case, (2, 3, 1, 4))
        for first, second, whole in ((a, b, 5), (c, d, 5)):
            rec.begin_run()
            rec.observe(observed(first, whole=whole))
            rec.observe(observed(second, whole=whole), goes_on=True)
            rec.end_run()
        leaf = rec.trace["encoder/rnn"]
        assert leaf.time.values.tolist() == [0, 3, 6, 9]
        expected = {name: array[::3] for name, array in case.expected().values.items()}
        oracles.assert_close(values(leaf), expected)

    def test_of_a_layer_go_on_after_another_layer_began_a_run(self):
        case = cases.case("gru")
        rec = recorder()
        first, second = chunks(case, (3, 4))
        rec.observe(observed(first, path="a"))
        rec.observe(observed(case, path="b"))
        rec.observe(observed(case, path="b"))
        rec.observe(observed(second, path="a"), goes_on=True)
        oracles.assert_close(values(rec.trace["a"]), case.expected().values)
        assert rec.trace["b"].sizes["batch"] == 6


class TestRefused:
    def test_nothing_recorded(self):
        with pytest.raises(NothingRecordedError) as caught:
            _ = recorder().trace
        assert str(caught.value) == (
            "no recurrent layer of Model was called while recording. Call the model inside the "
            "block, and as a whole: a forward method called directly is not seen. A function, or a "
            "model that is a file, is called by the recorder: rec.run(x)."
        )

    def test_a_run_without_a_recurrent_layer(self):
        rec = recorder()
        run(rec)
        with pytest.raises(NothingRecordedError, match="no recurrent layer of Model was called"):
            _ = rec.trace

    @pytest.mark.parametrize(("steps", "batch"), [(0, 3), (7, 0), (0, 0)])
    def test_empty_time_or_batch(self, steps, batch):
        case = cases.case("lstm")
        seen = observed(
            case,
            observed={"h": np.ones((steps, batch, 5))},
            initial={name: np.ones((batch, 5)) for name in "hc"},
            final={},
            inputs=np.ones((steps, batch, 4)),
        )
        message = f"encoder/rnn: got {steps} time steps of {batch} rows, expected 1 or more"
        with pytest.raises(InputError, match=message):
            recorder().observe(seen)

    def test_a_mismatch_leaves_what_was_recorded_before(self):
        rec, case = recorder(), cases.case("gru")
        run(rec, observed(case))
        wrong = observed(case, weights=replace(case.weights, b=None))
        rec.begin_run()
        with pytest.raises(ReplayMismatchError, match="the replayed h differs"):
            rec.observe(wrong)
        assert rec.trace["encoder/rnn"].sizes["batch"] == 3


class TestWarnings:
    @pytest.mark.parametrize("bad", [np.nan, np.inf])
    @pytest.mark.parametrize("select", [{}, {"variables": "inputs"}, {"dtype": "float16"}])
    def test_nan_and_infinity_are_recorded_and_reported(self, bad, select):
        case = cases.case("gru")
        x = case.x.copy()
        x[3, 1, 0] = bad
        with np.errstate(all="ignore"):
            shown = case.with_(x=x).expected().values["h"]
            seen = observed(case.with_(x=x), observed={"h": shown}, final={})
        rec = recorder(**select)
        run(rec, seen)
        with pytest.warns(EverystateWarning, match="NaN or infinite values in its input") as caught:
            trace = rec.trace
        assert len(caught) == 1
        assert caught[0].filename == __file__
        leaf = trace["encoder/rnn"]
        assert all(np.isfinite(array.values[[0, 2]]).all() for array in leaf.data_vars.values())
        if "h" in leaf:
            np.testing.assert_array_equal(leaf.h.values[1], shown[:, 1].astype(leaf.h.dtype))
        else:
            assert leaf.inputs.values[1, 3, 0] == pytest.approx(bad, nan_ok=True)

    def test_the_states_that_it_reached_are_named(self):
        case = cases.case("gru")
        x = case.x.copy()
        x[3, 1, 0] = np.nan
        rec = recorder(variables=("h", "z", "inputs"))
        run(rec, observed(case.with_(x=x), observed={"h": case.with_(x=x).expected().values["h"]}))
        with pytest.warns(EverystateWarning) as caught:
            _ = rec.trace
        assert [str(warning.message) for warning in caught] == [
            "encoder/rnn: NaN or infinite values in its input, h, z, recorded as they are."
        ]

    def test_padding_is_not_reported(self):
        rec = recorder()
        run(rec, observed(cases.case("lstm"), lengths=[7, 0, 3]))
        assert np.isnan(rec.trace["encoder/rnn"].h.values[1]).all()

    def test_large_values_are_not_reported(self):
        case = cases.case("gru")
        big = {"h": np.full((7, 3, 5), 6e4, np.float16)}
        rec = recorder(variables="h")
        run(rec, observed(case, observed=big, final={}, precision="float16"))
        assert np.isfinite(rec.trace["encoder/rnn"].h).all()

    def test_nan_in_a_padded_leaf_is_still_found(self):
        case = cases.case("gru")
        shown = case.expected(lengths=[7, 2, 3]).values["h"].copy()
        shown[1, 1, 0] = np.nan
        rec = recorder(variables="h")
        run(rec, observed(case, observed={"h": shown}, lengths=[7, 2, 3]))
        with pytest.warns(EverystateWarning, match="rnn: NaN or infinite values in h, recorded"):
            _ = rec.trace


class TestWeights:
    def test_that_change_between_calls_are_told(self):
        rec, case = recorder(), cases.case("gru")
        run(rec, observed(case))
        run(rec, observed(case))
        assert rec.trace["encoder/rnn"].attrs["weights_changed"] == 0
        seen = observed(cases.case("gru", seed=2))
        run(rec, seen)
        with pytest.warns(EverystateWarning, match="weights changed between the calls"):
            trace = rec.trace
        assert trace["encoder/rnn"].attrs["weights_changed"] == 1

    def test_that_change_between_steps_of_one_sequence_are_told(self):
        """A cell that learns as it goes hands over its steps each time its weights change."""
        rec, case = recorder(), cases.case("gru")
        first, later = chunks(case, [3, 4])
        rec.observe(observed(first))
        trained = later.with_(gates=cases.case("gru", seed=2).gates)
        rec.observe(observed(trained), goes_on=True)
        with pytest.warns(EverystateWarning, match="weights changed between the calls"):
            assert rec.trace["encoder/rnn"].attrs["weights_changed"] == 1

    def test_are_digested_when_first_seen(self):
        case = cases.case("gru")
        rec, undisturbed = recorder(), recorder()
        seen = observed(case)
        run(rec, seen)
        run(undisturbed, observed(case))
        seen.weights.W[:] += 1.0  # an optimiser's step, in place
        trace = rec.trace
        digest = trace["encoder/rnn"].attrs["weights_sha256"]
        assert digest == undisturbed.trace["encoder/rnn"].attrs["weights_sha256"]

    def test_are_digested_once_a_layer_for_every_leaf(self, monkeypatch):
        digested = []
        digest = recorder_module.weights_digest

        def counted(weights):
            digested.append(weights)
            return digest(weights)

        monkeypatch.setattr(recorder_module, "weights_digest", counted)
        rec = recorder()
        for _ in range(2):
            run(rec, observed(cases.case("gru")), observed(cases.case("gru")))
        found = {leaf.attrs["weights_sha256"] for leaf in rec.trace.leaves}
        assert len(digested) == 1
        assert len(found) == 1

    def test_are_not_held(self):
        rec = recorder()
        run(rec, observed(cases.case("gru")))
        (sequences,) = rec._runs[0].values()
        assert sequences[0][0].seen.weights is None


def test_no_warning_for_a_plain_recording():
    rec = recorder()
    run(rec, observed(cases.case("lstm")))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        _ = rec.trace
    assert caught == []


def test_inputs_that_were_asked_for_and_not_shown_are_told():
    rec = recorder(variables=("states", "inputs"))
    rec.observe(observed(cases.case("lstm"), inputs=None, weights=None))
    with pytest.warns(
        EverystateWarning, match="encoder/rnn: inputs were asked for, but .* model of torch"
    ):
        assert "inputs" not in rec.trace["encoder/rnn"]
