"""`Select`: what each option takes, refuses and means, alone and together."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import cases
from everystate.errors import SelectionError, UnknownLayerError
from everystate.recording.observation import Observation
from everystate.recording.replay import replay
from everystate.recording.selection import Select
from observed import observed

PATHS = [
    "encoder/lstm/layer_0/forward",
    "encoder/lstm/layer_0/backward",
    "encoder/lstm/layer_1/forward",
    "encoder/lstm/layer_1/backward",
    "decoder/gru",
    "lstm2",
]


class TestLayers:
    @pytest.mark.parametrize(
        ("pattern", "taken"),
        [
            (None, PATHS),
            ("*", PATHS),
            ("encoder.*", PATHS[:4]),
            ("encoder/*", PATHS[:4]),
            ("encoder", PATHS[:4]),
            ("/encoder/lstm/", PATHS[:4]),
            ("encoder.lstm.layer_1", PATHS[2:4]),
            ("*/layer_1", PATHS[2:4]),
            ("*.layer_?.backward", [PATHS[1], PATHS[3]]),
            ("*/layer_[1-9]/forward", [PATHS[2]]),
            ("lstm", []),
            ("lstm2", ["lstm2"]),
            ("enc", []),
            ("Encoder", []),
            (("decoder", "lstm?"), PATHS[4:]),
            (["*/backward"], [PATHS[1], PATHS[3]]),
        ],
    )
    def test_patterns(self, pattern, taken):
        select = Select(layers=pattern)
        assert [path for path in PATHS if select.wants(path)] == taken

    def test_unknown_layers_are_refused_with_those_there_are(self):
        Select(layers=("encoder", "lstm2")).check_layers(PATHS)
        with pytest.raises(UnknownLayerError) as caught:
            Select(layers=("encoder", "lstm3")).check_layers(PATHS)
        assert str(caught.value) == (
            f"no recurrent layer matches 'lstm3'; the model has: {', '.join(PATHS)}."
        )

    def test_a_model_without_recurrent_layers(self):
        with pytest.raises(UnknownLayerError, match="the model has: none"):
            Select().check_layers([])


class TestRefused:
    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"every": 0}, "every=0: expected a whole number of steps, 1 or more"),
            ({"every": -2}, "every=-2"),
            ({"every": 2.0}, "every=2.0"),
            ({"every": True}, "every=True"),
            ({"every": None}, "every=None"),
            ({"dtype": "int8"}, "dtype='int8': expected one of float16, float32, float64"),
            ({"dtype": "nonsense"}, "dtype='nonsense'"),
            ({"dtype": complex}, "dtype=<class 'complex'>"),
            ({"window": 5}, r"window=5: expected \(start, stop\)"),
            ({"window": (1, 2, 3)}, r"window=\(1, 2, 3\)"),
            ({"window": "ab"}, "window='ab'"),
            ({"window": (0.5, 2)}, r"window=\(0.5, 2\)"),
            ({"window": slice(0, 9, 2)}, "a step belongs in every="),
            ({"layers": ()}, r"layers=\(\): expected one name or several"),
            ({"layers": 3}, "layers=3"),
            ({"variables": ()}, r"variables=\(\)"),
            ({"variables": ("h", 1)}, r"variables=\('h', 1\)"),
        ],
    )
    def test_options_that_cannot_mean_anything(self, options, message):
        with pytest.raises(SelectionError, match=message):
            Select(**options)

    @pytest.mark.parametrize(
        ("units", "message"),
        [
            (5, "encoder/rnn: units=5, but it has 5 units"),
            (-6, "units=-6, but it has 5 units"),
            ((0, 9), r"units=\(0, 9\)"),
            (slice(7, 9), "is none of its 5 units"),
            ([], r"units=\[\] is none of its 5 units"),
            (1.5, "units=1.5: expected whole numbers or a slice"),
            ([True, False, True, False, True], "expected whole numbers"),
            (["a"], "expected whole numbers"),
            ([[0, 1]], "expected whole numbers"),
        ],
    )
    def test_units_that_there_are_not(self, units, message):
        with pytest.raises(SelectionError, match=message):
            Select(units=units).plan(observed(cases.case("lstm")))

    def test_an_unknown_variable_with_those_there_are(self):
        with pytest.raises(SelectionError) as caught:
            Select(variables=("h", "q")).plan(observed(cases.case("gru")))
        assert str(caught.value) == (
            "encoder/rnn: no variable 'q'; there are states, gates, inputs, h, r, z, n."
        )


class TestVariables:
    @pytest.mark.parametrize(
        ("family", "asked", "chosen"),
        [
            ("lstm", ("states", "gates"), ("h", "c", "i", "f", "g", "o")),
            ("gru", ("states", "gates"), ("h", "r", "z", "n")),
            ("simple_rnn", ("states", "gates"), ("h",)),
            ("lstm", "gates", ("i", "f", "g", "o")),
            ("lstm", "c", ("c",)),
            ("lstm", ("o", "h"), ("o", "h")),
            ("lstm", ["h", "states", "h"], ("h", "c")),
            ("lstm", ("inputs", "h"), ("inputs", "h")),
            ("gru", ("h", "c", "f"), ("h",)),
            ("gru", "c", ()),
            ("simple_rnn", "gates", ()),
        ],
    )
    def test_names_and_groups(self, family, asked, chosen):
        assert Select(variables=asked).plan(observed(cases.case(family))).variables == chosen

    def test_the_default_is_all_states_and_gates(self):
        assert Select().plan(observed(cases.case("lstm"))).variables == LSTM_VARIABLES

    @pytest.mark.parametrize("missing", ["inputs", "weights", "cell"])
    def test_what_cannot_be_replayed_is_not_chosen(self, missing):
        seen = observed(cases.case("lstm"), **{missing: None})
        assert Select().plan(seen).variables == ("h",)
        assert Select(variables=("gates", "c")).plan(seen).variables == ()

    def test_inputs_that_were_not_shown_are_not_chosen(self):
        seen = observed(cases.case("lstm"), inputs=None)
        assert Select(variables=("h", "inputs")).plan(seen).variables == ("h",)


LSTM_VARIABLES = ("h", "c", "i", "f", "g", "o")


class TestUnits:
    @pytest.mark.parametrize(
        ("units", "chosen"),
        [
            (None, None),
            (2, [2]),
            (-1, [4]),
            ((3, 0), [3, 0]),
            ([-1, 1], [4, 1]),
            (np.array([1, 2], np.int8), [1, 2]),
            (range(3), [0, 1, 2]),
            (slice(None), [0, 1, 2, 3, 4]),
            (slice(-2, None), [3, 4]),
            (slice(None, None, 2), [0, 2, 4]),
        ],
    )
    def test_which(self, units, chosen):
        plan = Select(units=units).plan(observed(cases.case("lstm")))
        assert (None if plan.units is None else plan.units.tolist()) == chosen

    def test_a_projected_h_is_kept_whole(self):
        case = cases.case("lstm", projected=2)
        seen = observed(case)
        recorded = replay(seen, Select(units=(4, 1), variables=("h", "c", "o")).plan(seen))
        expected = case.expected().values
        np.testing.assert_array_equal(recorded.variables["h"], expected["h"])
        np.testing.assert_allclose(recorded.variables["c"], expected["c"][..., [4, 1]], rtol=1e-12)
        np.testing.assert_allclose(recorded.variables["o"], expected["o"][..., [4, 1]], rtol=1e-12)
        assert recorded.initial["h"].shape == (cases.B, 2)
        assert recorded.initial["c"].shape == (cases.B, 2)
        assert recorded.dims == {"h": "projected_unit", "c": "unit", "o": "unit"}

    def test_states_of_other_sizes_are_kept_whole(self):
        shown = {"a": np.ones((3, 2, 4)), "b": np.ones((3, 2, 6))}
        initial = {name: array[0] for name, array in shown.items()}
        seen = Observation("custom", shown, initial)
        recorded = replay(seen, Select(units=(3, 1)).plan(seen))
        assert recorded.variables["a"].shape == (3, 2, 2)
        assert recorded.variables["b"].shape == (3, 2, 6)
        assert recorded.dims == {"a": "unit", "b": "b_unit"}


class TestSteps:
    @pytest.mark.parametrize(
        ("options", "steps"),
        [
            ({}, [0, 1, 2, 3, 4, 5, 6]),
            ({"every": 3}, [0, 3, 6]),
            ({"every": 10}, [0]),
            ({"window": (2, 5)}, [2, 3, 4]),
            ({"window": (2, None), "every": 2}, [2, 4, 6]),
            ({"window": (None, 3)}, [0, 1, 2]),
            ({"window": (-3, None)}, [4, 5, 6]),
            ({"window": (None, -5)}, [0, 1]),
            ({"window": slice(1, 3)}, [1, 2]),
            ({"window": [5, 100]}, [5, 6]),
            ({"window": (np.int64(1), np.int32(2)), "every": np.int64(1)}, [1]),
            ({"window": (5, 5)}, []),
            ({"window": (6, 2)}, []),
            ({"window": (100, None)}, []),
        ],
    )
    def test_of_a_whole_sequence(self, options, steps):
        assert [*Select(**options).steps("rnn", 7)] == steps

    @settings(max_examples=200)
    @given(
        start=st.none() | st.integers(0, 30),
        stop=st.none() | st.integers(0, 30),
        every=st.integers(1, 9),
        chunks=st.lists(st.integers(1, 8), min_size=1, max_size=6),
    )
    def test_chunks_of_a_stream_have_together_what_the_whole_has(self, start, stop, every, chunks):
        select = Select(window=(start, stop), every=every)
        offsets = np.cumsum([0, *chunks])
        found = [
            offset + step
            for offset, count in zip(offsets, chunks, strict=False)
            for step in select.steps("rnn", count, int(offset))
        ]
        assert found == [*select.steps("rnn", int(offsets[-1]))]

    @pytest.mark.parametrize("window", [(-3, None), (None, -1), slice(-1, None)])
    def test_a_stream_has_no_end_to_count_from(self, window):
        with pytest.raises(SelectionError, match=r"rnn: window=.* counts from the end"):
            Select(window=window).steps("rnn", 7, 0)


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", np.float32, np.dtype("f2")])
def test_storage_dtype(dtype):
    case = cases.case("lstm")
    seen = observed(case)
    recorded = replay(seen, Select(dtype=dtype, variables=("states", "f", "inputs")).plan(seen))
    arrays = [*recorded.variables.values(), *recorded.initial.values()]
    assert {a.dtype for a in arrays} == {np.dtype(dtype)}
    np.testing.assert_allclose(recorded.variables["c"], case.expected().values["c"], rtol=1e-3)


def test_without_a_storage_dtype_values_keep_theirs():
    seen = observed(cases.case("lstm"), asarray=lambda a: np.array(a, "f4"), precision="float32")
    recorded = replay(seen, Select().plan(seen))
    assert {a.dtype for a in recorded.variables.values()} == {np.dtype("float32")}


lengths = st.none() | st.lists(st.integers(0, cases.T), min_size=cases.B, max_size=cases.B)
bound = st.none() | st.integers(-cases.T - 2, cases.T + 2)


@settings(max_examples=80, deadline=None)
@given(
    family=st.sampled_from(sorted(cases.FAMILIES)),
    lengths=lengths,
    reverse=st.booleans(),
    window=st.tuples(bound, bound),
    every=st.integers(1, cases.T + 1),
    units=st.none() | st.lists(st.integers(-cases.U, cases.U - 1), min_size=1, unique=True),
    dtype=st.sampled_from([None, "float64"]),
)
def test_any_combination_is_that_part_of_the_whole(
    family, lengths, reverse, window, every, units, dtype
):
    seen = observed(cases.case(family), lengths=lengths, reverse=reverse)
    select = Select(window=window, every=every, units=units, dtype=dtype)
    part = replay(seen, select.plan(seen))
    whole = replay(seen, Select().plan(seen))
    steps = slice(*window)
    columns = slice(None) if units is None else units
    for name, array in whole.variables.items():
        expected = array[steps][::every][..., columns]
        np.testing.assert_allclose(part.variables[name], expected, rtol=1e-12, atol=1e-14)
    np.testing.assert_array_equal(part.steps, np.arange(cases.T)[steps][::every])
