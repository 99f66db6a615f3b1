"""The trace: dimensions, coordinates, labels, attributes and paths of schema 1."""

import json
import re
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from typing import ClassVar

import numpy as np
import pandas as pd
import pytest
import xarray as xr

import cases
import oracles
from everystate.cells import GRU, Weights
from everystate.errors import InputError
from everystate.recording.observation import Observation
from everystate.recording.replay import replay
from everystate.recording.selection import Select
from everystate.recording.trace import build_trace, weights_digest
from observed import observed


def recorded(case=None, select=None, **options):
    seen = observed(case or cases.case("lstm"), **options)
    return replay(seen, (select or Select()).plan(seen))


def leaf(*layers, **options):
    layers = layers or (recorded(),)
    return build_trace(layers, model="Net", **options)[layers[0].path]


class TestVariables:
    def test_dims_and_values(self):
        case = cases.case("lstm")
        found = leaf(recorded(case, Select(variables=("states", "gates", "inputs"))))
        assert {str(name): array.dims for name, array in found.data_vars.items()} == {
            **dict.fromkeys("hcifgo", ("batch", "time", "unit")),
            "inputs": ("batch", "time", "feature"),
            "initial_h": ("batch", "unit"),
            "initial_c": ("batch", "unit"),
        }
        assert dict(found.sizes) == {"batch": 3, "time": 7, "unit": 5, "feature": 4}
        expected = case.expected().values
        ours = {name: found[name].transpose("time", "batch", "unit").values for name in expected}
        oracles.assert_close(ours, expected)
        np.testing.assert_array_equal(found.initial_c, case.initial["c"])

    def test_a_projected_h_has_a_dimension_of_its_own(self):
        found = leaf(recorded(cases.case("lstm", projected=2), Select(units=(4, 1))))
        assert found.h.dims == ("batch", "time", "projected_unit")
        assert found.initial_h.dims == ("batch", "projected_unit")
        assert found.projected_unit.values.tolist() == [0, 1]
        assert found.unit.values.tolist() == [4, 1]
        assert found.initial_c.shape == (3, 2)

    def test_states_of_a_custom_cell_keep_their_names_and_sizes(self):
        shown = {"state_0": np.ones((3, 2, 4)), "slow": np.ones((3, 2, 6))}
        seen = Observation("a/custom", shown, {name: a[0] for name, a in shown.items()})
        found = leaf(replay(seen, Select().plan(seen)))
        assert found.state_0.dims == ("batch", "time", "unit")
        assert found.slow.dims == ("batch", "time", "slow_unit")
        assert found.initial_slow.attrs["long_name"] == "initial slow"
        assert "cell" not in found.attrs

    def test_storage_is_a_view_of_what_was_recorded(self):
        layer = recorded()
        assert np.shares_memory(leaf(layer).c.values, layer.variables["c"])

    def test_attributes(self):
        found = leaf(recorded(select=Select(variables=("h", "c", "f", "inputs"))))
        assert found.h.attrs == {"long_name": "hidden state", "units": "1", "origin": "observed"}
        assert found.c.attrs == {"long_name": "cell state", "units": "1", "origin": "replayed"}
        assert found.f.attrs["long_name"] == "forget gate"
        assert found.inputs.attrs["origin"] == "observed"
        assert found.initial_c.attrs == {
            "long_name": "cell state before the first step",
            "units": "1",
            "origin": "observed",
        }


DAYS = np.array(["2026-01-01", "2026-01-04", "2026-01-07"], "M8[us]")


class TestCoordinates:
    def test_default_to_counting(self):
        found = leaf(recorded(select=Select(every=2, window=(1, None), units=(-1, 0))))
        assert found.time.values.tolist() == [1, 3, 5]
        assert found.batch.values.tolist() == [0, 1, 2]
        assert found.unit.values.tolist() == [4, 0]
        assert "length" not in found.coords

    def test_lengths(self):
        found = leaf(recorded(lengths=[7, 0, 3]))
        assert found.length.dims == ("batch",)
        assert found.length.values.tolist() == [7, 0, 3]
        assert found.length.attrs["long_name"] == "number of valid steps of the sequence"
        past = np.arange(7) >= found.length.values[:, None]
        assert np.isnan(found.c.values[past]).all()
        assert np.isfinite(found.c.values[~past]).all()

    @pytest.mark.parametrize(
        ("time", "kind", "stored"),
        [
            ([0.5, 1.0, 1.5, 2.0, 2.5, 3.0, 3.5], "f", [0.5, 2.0, 3.5]),
            (np.arange(10, 17, dtype="i2"), "i", [10, 13, 16]),
            (pd.Series(range(7)) * 2, "i", [0, 6, 12]),
            (tuple("abcdefg"), "U", ["a", "d", "g"]),
            (np.array(list("abcdefg"), dtype=object), "U", ["a", "d", "g"]),
            ([datetime(2026, 1, day) for day in range(1, 8)], "M", DAYS),
            ([date(2026, 1, day) for day in range(1, 8)], "M", DAYS),
            (np.arange("2026-01-01", "2026-01-08", dtype="M8[D]"), "M", DAYS),
            (pd.date_range("2026-01-01", periods=7), "M", DAYS),
            (np.arange(7).astype("m8[s]"), "m", np.array([0, 3, 6], "m8[s]")),
        ],
        ids=str,
    )
    def test_labels_of_time(self, time, kind, stored):
        found = leaf(recorded(select=Select(every=3)), time=time)
        assert found.time.dtype.kind == kind
        assert np.array_equal(found.time.values, np.asarray(stored))
        np.testing.assert_array_equal(found.c.sel(time=found.time[1]), found.c[:, 1])
        assert found.step.dims == ("time",)
        assert found.step.values.tolist() == [0, 3, 6]

    def test_without_labels_time_itself_is_the_step(self):
        assert "step" not in leaf(recorded(select=Select(every=3))).coords

    def test_labels_of_batch(self):
        found = leaf(batch=["x", "y", "z"])
        np.testing.assert_array_equal(found.h.sel(batch="y"), found.h[:, :][1])

    @pytest.mark.parametrize(
        ("labels", "message"),
        [
            ({"time": range(6)}, r"encoder/rnn: time= has shape \(6,\), but there are 7 to label"),
            ({"time": np.zeros((7, 1))}, r"time= has shape \(7, 1\), but there are 7"),
            ({"time": 3}, r"time= has shape \(\), but there are 7"),
            ({"batch": ["a"]}, r"batch= has shape \(1,\), but there are 3 to label"),
            ({"time": [datetime(2026, 1, 1, tzinfo=UTC)] * 7}, "datetimes without a time zone"),
            ({"time": pd.period_range("2026", periods=7, freq="D")}, "got Period"),
            ({"time": ["a", 1, None, "b", "c", "d", "e"]}, "got NoneType, int, str"),
            ({"time": [object()] * 7}, "must hold numbers, strings, or datetimes"),
            ({"time": object()}, "got object"),
            ({"batch": [[1, 2], [3], [4]]}, "got lists of different lengths"),
            ({"batch": []}, r"batch= has shape \(0,\)"),
        ],
    )
    def test_labels_that_do_not_fit_are_refused(self, labels, message):
        with pytest.raises(InputError, match=message):
            leaf(**labels)


HALF = np.float32(0.5)


@dataclass(frozen=True)
class OddGRU(GRU):
    """A cell with variants of kinds that not every file format has."""

    gated: bool = True
    scales: tuple[int, ...] = (1, 2)
    share: np.float32 = HALF
    nothing: str | None = None
    gates: ClassVar[tuple[str, ...]] = GRU.gates


class TestLeafAttributes:
    def test_say_what_was_recorded_and_how_well(self):
        case = cases.case("lstm", forget_bias=1.0, cell_clip=3.0)
        attrs = leaf(
            recorded(
                case, reverse=True, attrs={"module": "LSTM", "framework_gate_order": "i f g o"}
            )
        ).attrs
        assert 0 < attrs.pop("max_error_h") < 1e-14
        assert 0 < attrs.pop("max_error_c") < 1e-14
        assert re.fullmatch("[0-9a-f]{64}", attrs.pop("weights_sha256"))
        assert attrs == {
            "cell": "LSTM",
            "activation": "tanh",
            "recurrent_activation": "sigmoid",
            "output_activation": "tanh",
            "forget_bias": 1.0,
            "cell_clip": 3.0,
            "direction": "backward",
            "precision": "float64",
            "module": "LSTM",
            "framework_gate_order": "i f g o",
            "tolerance": 1e-10,
            "unverified_values": 0,
        }

    def test_are_text_or_numbers_that_any_file_holds(self):
        case = cases.case("gru")
        layer = recorded(case, cell=OddGRU(), attrs={"mode": np.int64(3), "fast": np.bool_(True)})
        attrs = leaf(layer).attrs
        assert (attrs["gated"], attrs["scales"], attrs["share"]) == (1, "(1, 2)", 0.5)
        assert (attrs["mode"], attrs["fast"]) == (3, 1)
        assert "nothing" not in attrs
        assert {type(value) for value in attrs.values()} <= {str, int, float}
        json.dumps(attrs)


class TestRoot:
    def test_attributes(self):
        trace = build_trace([recorded()], model="Net", frameworks=["numpy", "not-installed"])
        attrs = trace.attrs
        created = datetime.fromisoformat(attrs.pop("created"))
        assert abs(datetime.now(UTC) - created) < timedelta(minutes=1)
        assert attrs.pop("everystate_version")
        assert attrs == {
            "everystate_schema": 1,
            "complete": 1,
            "model": "Net",
            "numpy_version": np.__version__,
        }

    def test_is_a_tree_with_one_leaf_a_layer(self):
        trace = build_trace([recorded(path="a/b"), recorded(path="c")], model="Net")
        assert isinstance(trace, xr.DataTree)
        assert {node.path for node in trace.leaves} == {"/a/b", "/c"}


class TestPaths:
    @pytest.mark.parametrize("order", [(0, 1), (1, 0)])
    def test_a_layer_inside_another_keeps_its_place(self, order):
        long = cases.case("gru", sizes=(9, 2, 3, 4))
        both = [recorded(path="rnn"), recorded(long, path="rnn/inner")]
        trace = build_trace([both[k] for k in order], model="Net")
        assert {node.path for node in trace.leaves} == {"/rnn/cell", "/rnn/inner"}
        assert trace["rnn/cell"].attrs["cell"] == "LSTM"
        assert trace["rnn/inner"].sizes["time"] == 9

    def test_a_layer_whose_inner_layer_is_called_cell(self):
        small = cases.case("gru", sizes=(2, 2, 3, 4))
        layers = [recorded(path="rnn"), recorded(small, path="rnn/cell")]
        trace = build_trace(layers, model="Net")
        assert {node.path for node in trace.leaves} == {"/rnn/cell_", "/rnn/cell"}
        assert trace["rnn/cell"].sizes["time"] == 2
        assert trace["rnn/cell_"].sizes["time"] == 7

    def test_a_name_that_begins_alike_is_not_inside(self):
        trace = build_trace([recorded(path="rnn"), recorded(path="rnn2")], model="Net")
        assert {node.path for node in trace.leaves} == {"/rnn", "/rnn2"}


class TestDigest:
    def test_changes_with_every_weight_and_name(self):
        weights = cases.case("lstm", peephole=True, projected=2).weights
        digests = {weights_digest(weights)}
        for name, array in weights.items():
            changed = array.copy()
            changed.flat[-1] += 1e-9
            digests.add(weights_digest(replace(weights, **{name: changed})))
        digests.add(weights_digest(replace(weights, b=weights.b_R, b_R=weights.b)))
        digests.add(weights_digest(replace(weights, b=None)))
        assert len(digests) == 1 + 6 + 2

    def test_does_not_depend_on_library_or_memory_layout(self, asarray):
        weights = cases.case("gru").weights
        other = Weights(**{name: asarray(a) for name, a in weights.items()})
        fortran = Weights(**{name: np.asfortranarray(a) for name, a in weights.items()})
        assert weights_digest(other) == weights_digest(weights) == weights_digest(fortran)
