"""Diagnosis: a healthy trace has nothing to say, and each planted fault is found as itself."""

import json
import sys
import tracemalloc

import numpy as np
import pytest
import xarray as xr

import everystate as es
import mutations
from everystate.analysis import case
from everystate.analysis.diagnose import checks
from everystate.analysis.finding import PlotName
from everystate.analysis.layer import recorded
from everystate.analysis.limits import Thresholds
from everystate.errors import InputError, InputTypeError, SelectionError, TraceFormatError
from everystate.testing import importorskip

B, T, U = 2, 600, 10
DIMS = ("batch", "time", "unit")
TRAINED = 48


def healthy(cell="LSTM", seed=0, **attrs):
    """A layer with nothing wrong: gates that move in their middle, states that forget in steps."""
    rng = np.random.default_rng(seed)
    gates = {"LSTM": "ifgo", "GRU": "rzn", "SimpleRNN": ""}[cell]
    data = {name: rng.beta(4, 3, size=(B, T, U)) for name in gates}
    data |= {name: 2 * data[name] - 1 for name in "gn" if name in data}
    for name in {"LSTM": "hc", "GRU": "h", "SimpleRNN": "h"}[cell]:
        state = rng.normal(size=(B, T, U))
        for t in range(1, T):
            state[:, t] = 0.7 * state[:, t - 1] + 0.4 * state[:, t]
        data[name] = state if name == "c" else np.tanh(0.5 * state)
    coords = {"batch": ["a", "b"], "time": np.arange(T), "unit": np.arange(U) + 100}
    attrs = {"cell": cell, "direction": "forward", **attrs}
    return xr.Dataset({n: (DIMS, v) for n, v in data.items()}, coords, attrs)


def trace_of(layer, path="encoder/lstm"):
    root = xr.Dataset(attrs={"everystate_schema": 1})
    return xr.DataTree.from_dict({"/": root, f"/{path}": layer})


def diagnose(layer, baseline=None, **options):
    normal = None if baseline is None else trace_of(baseline)
    return es.diagnose(trace_of(layer), normal, **{"trained_on": TRAINED, **options})


def found(layer, kind, **options):
    """The findings of one kind, warnings and worse; nothing else may be as bad."""
    bad = diagnose(layer, **options).at_least("warning")
    assert {f.kind for f in bad} == {kind}
    return bad


# Nothing wrong


@pytest.mark.parametrize("cell", ["LSTM", "GRU", "SimpleRNN"])
def test_a_healthy_layer_has_nothing_to_say(cell):
    assert [str(f) for f in diagnose(healthy(cell)).at_least("warning")] == []
    assert diagnose(healthy(cell), healthy(cell, seed=1)).at_least("warning") == ()
    backward = healthy(cell, direction="backward")
    assert diagnose(backward).at_least("warning") == ()


@pytest.mark.parametrize("slow", [False, True])
@pytest.mark.parametrize("kind", ["LSTM", "GRU", "RNN"])
def test_a_fresh_network_has_nothing_to_say(kind, slow):
    torch = importorskip("torch")
    torch.manual_seed(3)
    layer = getattr(torch.nn, kind)(4, 24, batch_first=True)
    x = torch.randn(3, 700, 4)
    if slow:
        x = 0.1 * x + torch.sin(torch.arange(700.0)[:, None] * torch.tensor([0.05, 0.1, 0.2, 0.3]))
    trace = es.record(layer, x)
    assert [str(f) for f in es.diagnose(trace, trained_on=TRAINED).at_least("warning")] == []


# Each fault as itself


def test_values_that_are_not_finite():
    layer = healthy()
    layer["c"][1, 301, 4] = np.nan
    layer["f"][0, 400, :] = np.inf
    (finding,) = found(layer, "not-finite")
    assert finding.severity == "error"
    assert finding.message == (
        "11 values of f, c are NaN or infinite; the first is c at step 301, unit 104, row b."
    )
    assert finding.evidence["counts"] == {"f": 10, "c": 1}
    assert finding.plot.window == (301, 301)
    assert (finding.plot.variable, finding.plot.units, finding.plot.row) == ("c", (104,), "b")


def test_padding_is_no_fault():
    layer = healthy().assign_coords(length=("batch", [T, 400]))
    for name in recorded(layer):
        layer[name][1, 400:] = np.nan
    assert diagnose(layer).at_least("warning") == ()
    layer["h"][1, 399, 0] = np.nan
    assert diagnose(layer)[0].kind == "not-finite"


def growing(direction="forward"):
    layer = healthy(direction=direction)
    ramp = np.maximum(0.0, np.arange(T) - 100) * 0.004
    layer["c"][1, :, 7] += ramp if direction == "forward" else ramp[::-1]
    layer["c"][1, :, 2] -= 2 * (ramp if direction == "forward" else ramp[::-1])
    return layer


@pytest.mark.parametrize("direction", ["forward", "backward"])
def test_a_state_that_keeps_growing(direction):
    (finding,) = found(growing(direction), "growing-state", thresholds=Thresholds(growth=1.3))
    assert "the mean |c| is at most" in finding.message
    assert "it still grows, to" in finding.message
    assert "So in 1 of 2 rows." in finding.message
    assert finding.evidence["units"][:2] == (102, 107)
    assert finding.evidence["row"] == "b"
    assert finding.evidence["trend"] >= 0.9
    first, last = finding.plot.window
    assert (last, first)[direction == "backward"] in (0, T - 1)
    assert first < last
    other = "backward" if direction == "forward" else "forward"
    turned = growing(direction).assign_attrs(direction=other)
    with mutations.must_be_noticed("time turned round"):
        found(turned, "growing-state", thresholds=Thresholds(growth=1.3))


def test_only_units_that_grow_themselves_are_named():
    layer = healthy()
    layer["c"][..., [2, 9]] = 0.2 * layer["c"][..., [2, 9]] + 5.0  # large, and stay as they are
    layer["c"][..., 5] += np.maximum(0.0, np.arange(T) - 60) * 0.05
    (finding,) = (f for f in diagnose(layer, trained_on=None) if f.kind == "growing-state")
    assert finding.evidence["units"] == (105,)
    assert finding.message.split(" So in ")[0].endswith("It is largest in unit 105.")
    with mutations.must_be_noticed("another unit grows"):
        turned = layer.isel(unit=[9, *range(9)]).assign_coords(unit=layer.unit)
        (finding,) = (f for f in diagnose(turned, trained_on=None) if f.kind == "growing-state")
        assert finding.evidence["units"] == (105,)


def test_growth_beyond_the_length_trained_on():
    layer = healthy()
    late = 6 * layer["c"][:, 150:]
    layer["c"][:, 150:] = late.clip(-2.5, 2.5)  # out of the flat part of tanh
    (finding,) = found(layer, "growing-state")
    assert "still grows" not in finding.message
    assert "beyond all of the training from its step" in finding.message
    reached = abs(layer["c"].values).mean(-1)[:, :TRAINED].max(axis=1)
    row = "ab".index(finding.evidence["row"])
    assert finding.evidence["reached"] == pytest.approx(reached[row])
    assert diagnose(layer, trained_on=None).at_least("warning") == ()  # unknown, not judged


def shut(gate, value, units=slice(None), since=0, layer=None):
    layer = healthy() if layer is None else layer
    jitter = 0.01 * np.sin(np.arange(T - since))[:, None]
    layer[gate][:, since:, units] = value + jitter
    return layer


def test_output_gates_that_shut_at_a_step():
    layer = shut("o", 0.02, units=slice(0, 4), since=300)
    (finding,) = found(layer, "saturated-gates")
    start = finding.evidence["from"]
    assert start == 300
    share = finding.evidence["share"]
    assert share == pytest.approx(0.4)
    assert finding.message == (
        f"{100 * share:.0f} % of the output gates o are below 0.05 from step {start} on: they show "
        "the rest of the model nothing."
    )
    assert finding.evidence["units"] == (100, 101, 102, 103)
    assert finding.plot.window == (start, T - 1)
    with mutations.must_be_noticed("shut before, not after"):
        found(layer.roll(time=150), "saturated-gates")
        assert diagnose(layer.roll(time=150))[0].evidence["from"] == start


def test_a_backward_layer_shuts_in_the_order_it_reads():
    layer = shut("o", 0.02, units=slice(0, 4), since=300)
    turned = layer.isel(time=slice(None, None, -1)).assign_coords(time=np.arange(T))
    (finding,) = found(turned.assign_attrs(direction="backward"), "saturated-gates")
    assert finding.evidence["from"] == 299
    assert "on backwards, as it reads" in finding.message
    assert finding.plot.window == (0, finding.evidence["from"])


def test_candidates_at_both_ends():
    layer = healthy()
    layer["g"][..., :6] = np.where(layer["g"][..., :6] > 0, 0.97, -0.97)
    (finding,) = found(layer, "saturated-gates")
    assert "60 % of the candidates g are below -0.95 or above 0.95:" in finding.message


@pytest.mark.parametrize(("update", "value"), [("keeps", 0.98), ("writes", 0.02)])
def test_a_gru_that_writes_nothing(update, value):
    layer = shut("z", value, slice(0, 5), layer=healthy("GRU", update=update))
    bad = diagnose(layer, trained_on=None, thresholds=Thresholds(stuck=1.0)).at_least("warning")
    assert {f.kind for f in bad} <= {"saturated-gates", "stuck-gates"}
    finding = bad[0]
    assert (finding.kind, finding.evidence["gate"]) == ("saturated-gates", "z")
    assert "they take in nothing" in finding.message
    other = {"keeps": "writes", "writes": "keeps"}[update]
    with mutations.must_be_noticed("the other convention"):
        turned = diagnose(layer.assign_attrs(update=other), trained_on=None)
        assert turned.at_least("warning")[0].kind == "saturated-gates"


def test_open_forget_gates_are_worth_knowing_only():
    layer = shut("f", 0.98, units=slice(0, 5))
    for finding in diagnose(layer, trained_on=None):
        assert finding.severity == "info"
    kinds = [f.kind for f in diagnose(layer, trained_on=None)]
    assert kinds == ["saturated-gates", "stuck-gates"]
    # Beside a baseline that has none of it, it is a change.
    beside = diagnose(layer, healthy(seed=1), trained_on=None)
    assert "saturated-gates" in {f.kind for f in beside.at_least("warning")}


def test_stuck_gates():
    layer = shut("i", 0.01, units=slice(2, 4))  # 20 % of the units: too few for the whole gate
    (finding,) = found(layer, "stuck-gates")
    assert finding.message == (
        "the input gate i of 2 of 10 units is always shut: units 102 and 103."
    )
    layer = healthy()
    layer["o"][..., 5] = 0.4
    layer["o"][..., 9] = 0.6
    (finding,) = found(layer, "stuck-gates")
    assert finding.message.endswith("10 units is always the same: units 105 and 109.")
    few = shut("i", 0.01, units=slice(2, 3))
    assert diagnose(few, thresholds=Thresholds(units=0.2))[0].severity == "info"


def test_units_that_never_move():
    layer = healthy()
    layer["h"][..., [1, 6]] = 0.25
    (finding,) = found(layer, "still-units")
    assert finding.evidence["units"] == (101, 106)
    assert "2 of 10 units never move: the h of units 101 and 106" in finding.message
    finding = diagnose(layer, thresholds=Thresholds(units=0.3))[1]
    assert (finding.kind, finding.severity) == ("still-units", "info")


def test_a_memory_beyond_the_training():
    layer = healthy()
    layer["f"][..., 3] = 0.9998 + 1e-5 * np.sin(np.arange(T))
    bad = diagnose(layer).at_least("warning")
    finding = bad[0]
    assert {f.kind for f in bad} == {"memory"}
    assert finding.evidence["half_life"] == pytest.approx(np.log(2) / 2e-4, rel=1e-3)
    assert finding.message.startswith(
        "unit 103 has a half-life of 3,466 steps, the training windows were 48:"
    )
    assert finding.plot.name == "half_life"
    layer["f"][..., 3] = 1.0
    assert "unit 103 has an endless half-life" in diagnose(layer).at_least("warning")[0].message
    assert diagnose(layer, trained_on=None).at_least("warning") == ()
    assert diagnose(layer, trained_on=10**6).at_least("warning")[0].evidence["half_life"] == np.inf
    with mutations.must_be_noticed("input gate for forget gate"):
        swapped = layer.rename(f="i", i="f")
        found(swapped, "memory")


def test_a_memory_much_shorter_than_the_training_is_worth_knowing():
    (finding,) = diagnose(healthy(), trained_on=1000)
    assert (finding.kind, finding.severity) == ("memory", "info")
    assert "no half-life is longer than" in finding.message


def test_a_flat_state():
    layer = healthy()
    layer["c"][:, :, :6] = 4.0 + layer["c"][:, :, :6]
    layer["c"][:, :, :6] = layer["c"][:, :, :6].clip(2.8, 5.0)
    (finding,) = found(layer, "flat-state")
    assert "60 % of tanh(c) are within 0.01 of -1 or 1:" in finding.message
    assert sorted(finding.evidence["units"]) == [100, 101, 102, 103, 104, 105]


def test_units_that_are_alike():
    importorskip("scipy")
    layer = healthy()
    for unit in (1, 4, 5):
        layer["h"][..., unit] = -0.5 * layer["h"][..., 8]
    finding = diagnose(layer)[-1]
    assert (finding.kind, finding.severity) == ("alike-units", "info")
    assert finding.evidence["spare"] == 3
    assert finding.evidence["largest"] == (101, 104, 105, 108)
    assert "3 of 10 units say what others say: their h is alike" in finding.message
    beside = diagnose(layer, healthy(seed=1)).at_least("warning")
    assert [f.kind for f in beside] == ["alike-units"]


def test_a_change_of_level():
    importorskip("ruptures")
    layer = healthy()
    layer["c"][1, 350:, 6] += 2.0
    finding = diagnose(layer, thresholds=Thresholds(growth=3.0, excess=5.0))[-1]
    assert (finding.kind, finding.severity) == ("level-changes", "info")
    assert abs(finding.evidence["at"][0] - 350) <= 2 * finding.evidence["exact_to_recorded_steps"]
    assert finding.evidence["units"] == (106,)
    assert finding.plot.row == "b"


def test_a_straight_ramp_is_no_change_of_level():
    importorskip("ruptures")
    layer = healthy()
    layer["c"][..., 6] += 0.02 * np.arange(T)
    kinds = {f.kind for f in diagnose(layer, trained_on=None)}
    assert "growing-state" in kinds
    assert "level-changes" not in kinds


def test_values_out_of_the_range_of_a_baseline():
    layer, baseline = healthy(), healthy(seed=1)
    low, high = baseline["c"].min(["batch", "time"]), baseline["c"].max(["batch", "time"])
    layer["c"] = layer["c"].clip(low, high)
    layer["c"][:, 400:, 2:5] = (high + 0.5 * (high - low)).values[2:5]
    # It grows by itself too; what matters here is the range.
    bad = diagnose(layer, baseline, trained_on=None).at_least("warning")
    finding = next(f for f in bad if f.kind == "out-of-range")
    assert finding.evidence["share"] == pytest.approx(3 * 200 / (U * T))
    assert finding.evidence["first"] == 400
    assert set(finding.evidence["units"]) == {102, 103, 104}
    assert "10 % of c are beyond what they reach in the baseline" in finding.message
    assert "out-of-range" not in {f.kind for f in diagnose(layer)}


def test_what_the_recording_says_of_itself():
    layer = healthy(weights_changed=3, edited_steps=2)
    mild = diagnose(layer, trained_on=None)
    assert [(f.kind, f.severity) for f in mild] == [("recording", "warning"), ("recording", "info")]
    assert "the weights changed while it was recorded (3 of the calls" in mild[0].message


def test_epochs_are_judged_one_at_a_time(tmp_path):
    layers = [healthy(seed=seed) for seed in (0, 1)]
    trace = trace_of(xr.concat(layers, "epoch", combine_attrs="override"))
    one = trace_of(layers[1])
    calls = [lambda t: es.diagnose(t), lambda t: es.diagnose(one, t), lambda t: es.summary(t)]
    for call in calls:
        with pytest.raises(InputError, match=r"'epoch' of 2, .* trace\.isel\(epoch=-1\)"):
            call(trace)
    assert es.diagnose(trace.isel(epoch=-1)).to_dict() == es.diagnose(one).to_dict()
    importorskip("bokeh")
    with pytest.raises(InputError, match=r"trace\.isel\(epoch=-1\)"):
        es.report(trace, tmp_path / "run.html", findings=())
    assert es.report(trace.isel(epoch=-1), tmp_path / "run.html").stat().st_size


# Beside a baseline


def test_what_is_usual_in_the_baseline_is_no_fault():
    def odd(seed):
        layer = healthy(seed=seed)
        shut("o", 0.02, slice(0, 5), layer=layer)
        layer["h"][..., [5, 6]] = 0.25
        return layer

    alone = {f.kind for f in diagnose(odd(0)).at_least("warning")}
    assert alone == {"saturated-gates", "stuck-gates", "still-units"}
    assert diagnose(odd(0), odd(1)).at_least("warning") == ()
    beside = {f.kind for f in diagnose(odd(0), healthy(seed=1)).at_least("warning")}
    assert beside >= {"saturated-gates", "stuck-gates", "still-units"}


def test_a_single_unit_that_is_stuck_or_still_is_a_warning_if_it_is_new():
    def broken(units, seed=0):
        layer = shut("i", 0.01, units, layer=healthy(seed=seed))
        layer["h"][..., units] = 0.25
        return layer

    few = {"thresholds": Thresholds(units=0.5)}
    assert diagnose(broken([3]), **few).at_least("warning") == ()
    bad = diagnose(broken([3]), healthy(seed=1), **few).at_least("warning")
    assert [(f.kind, f.evidence["new"]) for f in bad] == [
        ("stuck-gates", (103,)),
        ("still-units", (103,)),
    ]
    assert diagnose(broken([3]), broken([3], seed=1), **few).at_least("warning") == ()
    bad = diagnose(broken([3, 7]), broken([3], seed=1), **few).at_least("warning")
    gate, unit = (f for f in bad if "new" in f.evidence)
    assert gate.message.endswith("units 103 and 107. Not so in the baseline: unit 107.")
    assert unit.message.endswith("Not so in the baseline: unit 107.")
    swapped = (
        broken([3], seed=1).isel(unit=slice(None, None, -1)).assign_coords(unit=healthy().unit)
    )
    with mutations.must_be_noticed("units of the baseline the other way round"):
        assert diagnose(broken([3]), swapped, **few).at_least("warning") == ()


def test_a_memory_that_has_changed():
    layer = healthy()
    layer["f"] = 0.85 + 0.1 * layer["f"]
    (finding,) = found(layer, "memory", baseline=healthy(seed=1), trained_on=None)
    assert "steps, 1.3 in the baseline" in finding.message


def test_a_layer_that_the_baseline_lacks_is_said():
    both = trace_of(healthy()).assign(decoder=trace_of(healthy(seed=1))["encoder/lstm"])
    said = es.diagnose(both, trace_of(healthy(seed=2), "decoder"), trained_on=TRAINED)
    assert "layer encoder/lstm is not in the baseline: fixed" in said.left_out[0]
    fewer = trace_of(healthy(seed=2), "decoder").assign(
        encoder=xr.DataTree.from_dict({"/lstm": healthy().isel(unit=slice(7))})
    )
    (said, *more) = es.diagnose(both, fewer, trained_on=TRAINED).left_out
    assert said.startswith(
        "layer encoder/lstm has 10 units (100 to 109), in the baseline 7 units (100 to 106)"
    )
    assert more == []


@pytest.mark.parametrize(
    "other",
    [
        trace_of(healthy(), "decoder"),
        trace_of(healthy().isel(unit=slice(7))),
        trace_of(healthy().assign_coords(unit=np.arange(U))),
    ],
)
def test_a_baseline_that_fits_nothing_is_refused(other):
    with pytest.raises(InputError, match=r"the trace has encoder/lstm of 10 .*; the baseline has"):
        es.diagnose(trace_of(healthy()), other)
    named = healthy(seed=1).assign_coords(unit=list("abcdefghij"))
    assert diagnose(healthy(), named).at_least("warning") == ()


@pytest.mark.parametrize("wrong", ["48", 48.0, True])
def test_a_length_trained_on_is_a_whole_number(wrong):
    with pytest.raises(InputTypeError, match=r"trained_on=.*expected a whole number of steps"):
        diagnose(healthy(), trained_on=wrong)


# The whole


def test_the_worst_comes_first_then_causes():
    layer = shut("i", 0.01, units=slice(2, 4), layer=growing())
    layer["h"][0, 9, 1] = np.nan
    layer = layer.assign_attrs(edited_steps=1)
    kinds = [f.kind for f in diagnose(layer, thresholds=Thresholds(growth=1.3))]
    worse, mild = ["not-finite", "growing-state", "stuck-gates"], ["recording", "memory"]
    assert kinds[:5] == [*worse, *mild]
    assert kinds[5:] in ([], ["level-changes"])  # growth is cut into levels, where ruptures is


def test_every_finding_is_complete_and_plain():
    layer = shut("o", 0.02, slice(0, 5), layer=growing())
    layer["h"][..., [5, 6]] = 0.25
    layer["f"][..., 3] = 1.0
    layer["c"][1, 350:, 4] += 4.0
    everything = diagnose(layer, healthy(seed=1))
    assert len({f.kind for f in everything}) >= 5
    names = PlotName.__args__
    for finding in everything:
        assert finding.layer == "encoder/lstm"
        assert finding.formula
        assert finding.caution
        assert None not in finding.evidence.values()
        assert finding.plot.name in names
        assert finding.plot.variable in layer
        assert set(finding.plot.units) <= set(layer.unit.values.tolist())
    document = json.loads(json.dumps(everything.to_dict(), allow_nan=True))
    assert document["worst"] == "warning"


def test_time_labels_are_told_beside_the_steps():
    layer = shut("o", 0.02, units=slice(0, 4), since=300)
    days = np.datetime64("2026-01-01", "ns") + np.arange(T).astype("timedelta64[D]")
    layer = layer.assign_coords(time=days, step=("time", np.arange(T)))
    (finding,) = found(layer, "saturated-gates")
    start = finding.evidence["from"]
    assert f"from step {start} ({days[start]})" in finding.message
    assert finding.plot.window == (days[start], days[-1])


def test_where_only_some_steps_were_kept_the_numbers_are_those_of_the_model():
    layer = shut("o", 0.02, units=slice(0, 4), since=300).assign_coords(time=np.arange(T) * 10)
    layer["c"][1, 301, 4] = np.nan
    first, second = diagnose(layer).at_least("warning")
    assert (first.kind, first.evidence["step"]) == ("not-finite", 3010)
    assert second.evidence["from"] == 3000
    assert "from step 3,000 on" in second.message
    assert second.plot.window == (3000, 5990)


def test_what_was_not_recorded_is_said():
    said = diagnose(healthy()[["h", "f"]])
    assert said.left_out == (
        "layer encoder/lstm: c, i, g, o not recorded; what needs them was not checked. "
        "Record them: es.Select(variables=('states', 'gates')).",
    )


def test_a_cell_of_ones_own_is_judged_by_its_states():
    layer = healthy()[["c"]].rename(c="memory").drop_attrs()
    layer["memory"][..., [1, 6]] = 0.25
    said = diagnose(layer)
    assert [f.kind for f in said] == ["still-units"]
    assert said.left_out == ()
    channels = healthy()[["c"]].rename(c="memory").drop_attrs().expand_dims(channel=3, axis=-1)
    assert diagnose(channels).at_least("warning") == ()


def test_one_sequence_without_a_batch():
    layer = shut("o", 0.02, units=slice(0, 4), since=300).isel(batch=0)
    (finding,) = found(layer, "saturated-gates")
    assert "row" not in finding.message
    assert diagnose(growing().isel(batch=1), thresholds=Thresholds(growth=1.3)).worst == "warning"


@pytest.mark.parametrize("steps", [1, 2, 5])
def test_short_recordings_are_judged_too(steps, recwarn):
    for cell in ("LSTM", "GRU", "SimpleRNN"):
        diagnose(healthy(cell).isel(time=slice(steps)), healthy(cell, seed=1))
        diagnose(healthy(cell) * np.nan)
    assert [str(w.message) for w in recwarn] == []


@pytest.mark.parametrize("package", ["scipy", "ruptures"])
def test_without_the_extra_a_check_is_left_out_and_said_to_be(package, monkeypatch):
    for name in [m for m in sys.modules if m.split(".")[0] == package]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, package, None)
    layer = healthy()
    layer["h"][..., [1, 6]] = 0.25
    said = diagnose(layer)
    assert said[0].kind == "still-units"
    (reason,) = said.left_out
    assert f"needs {package}, which is not installed: pip install 'everystate[analysis]'" in reason


def test_a_chunked_trace_says_the_same():
    importorskip("dask")
    layer = shut("o", 0.02, slice(0, 5), layer=growing())
    layer["f"][..., 3] = 1.0
    lazy = diagnose(layer.chunk({"batch": 1, "time": 250, "unit": 6}))
    whole = diagnose(layer)
    assert [f.message for f in lazy] == [f.message for f in whole]
    assert lazy.to_dict().keys() == whole.to_dict().keys()


def chunked(steps, units, size):
    """A healthy layer that Dask makes piece by piece, when it is asked for it."""
    array = importorskip("dask.array")

    def block(block_info=None):
        number = block_info[None]["chunk-location"][1]
        gates = np.random.default_rng(number).random((1, size, units), np.float32)
        return 0.3 + 0.4 * gates

    chunks = ((1,), (size,) * (steps // size), (units,))
    made = {
        n: array.map_blocks(block, chunks=chunks, dtype="f4", name=f"{n}-of-{steps}")
        for n in "hcifgo"
    }
    return xr.Dataset({n: (DIMS, v) for n, v in made.items()}, attrs={"cell": "LSTM"})


def test_a_large_trace_is_never_held_as_a_whole(monkeypatch):
    dask = importorskip("dask")
    # One thread, as each holds a chunk or two of its own. Samples are bounded too: here to fewer.
    monkeypatch.setattr("everystate.analysis.layer.SAMPLES", 1000)
    diagnose(chunked(2000, 3, 1000))  # imports what it needs
    layer = chunked(40_000, 50, 2_000)
    with dask.config.set(scheduler="synchronous"):
        tracemalloc.start()
        said = diagnose(layer, trained_on=None)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert said.at_least("warning") == ()
    assert peak < layer.nbytes / 4
    with mutations.must_be_noticed("loaded as a whole"):
        tracemalloc.start()
        layer.load(scheduler="synchronous")
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert peak < layer.nbytes / 4


def test_a_large_layer_is_put_into_chunks(monkeypatch):
    importorskip("dask")
    layer = healthy()
    assert not case.in_chunks(layer).chunks
    monkeypatch.setattr(case, "LARGE", 1000)
    monkeypatch.setattr(case, "CHUNK", B * U * 8 * 50)
    assert case.in_chunks(layer).chunks["time"] == (50,) * 12


def test_progress():
    told = []
    trace = trace_of(healthy())
    trace["/decoder"] = xr.DataTree(healthy("GRU"))
    es.diagnose(trace, progress=lambda *done: told.append(done))
    assert told == [(1, 2), (2, 2)]


def test_what_is_no_trace_or_no_threshold():
    with pytest.raises(TraceFormatError, match="got Dataset"):
        es.diagnose(healthy())
    with pytest.raises(TraceFormatError, match="got str"):
        es.diagnose(trace_of(healthy()), "normal.zarr")
    with pytest.raises(SelectionError, match="trained_on=0, expected 1"):
        diagnose(healthy(), trained_on=0)
    with pytest.raises(SelectionError, match=r"threshold flat=1.5, expected between 0 and 1"):
        Thresholds(flat=1.5)
    with pytest.raises(SelectionError, match="threshold growth=nan, expected 0 or more"):
        Thresholds(growth=float("nan"))


def test_every_file_is_a_check_of_its_own_name():
    names = list(checks())
    assert names[0] == "not-finite"
    assert len(names) == 11
