"""Where two traces part: every kind of difference, planted and found."""

import numpy as np
import pytest
import xarray as xr

import mutations
from everystate.analysis import compare as module
from everystate.analysis.compare import compare
from everystate.errors import SelectionError, TraceFormatError

T, B, U, P = 40, 3, 5, 2


def layer(seed, **coords):
    rng = np.random.default_rng(seed)
    steps = {"dims": ("batch", "time", "unit"), "size": (B, T, U)}
    variables = {n: (steps["dims"], rng.normal(size=steps["size"])) for n in ("h", "c", "f")}
    variables["initial_c"] = (("batch", "unit"), rng.normal(size=(B, U)))
    variables["p"] = (("batch", "time", "projected_unit"), rng.normal(size=(B, T, P)))
    labels = {"time": np.arange(T) * 10, "unit": np.arange(U) + 100, "batch": ["x", "y", "z"]}
    return xr.Dataset(variables, coords={**labels, **coords})


def make():
    return xr.DataTree.from_dict({"/enc/layer_0": layer(0), "/dec": layer(1)})


def put(trace, path, **arrays):
    """Replace variables of a layer."""
    dataset = trace[path].to_dataset()
    trace[path] = xr.DataTree(
        dataset.assign({n: dataset[n].copy(data=a) for n, a in arrays.items()})
    )
    return trace


def changed(path, variable, place, value, trace=None):
    """A trace with one value replaced."""
    trace = make() if trace is None else trace
    values = trace[path][variable].values.copy()
    values[place] = value
    return put(trace, path, **{variable: values})


def test_the_same():
    found = compare(make(), make())
    assert found.same
    assert found.first is None
    assert found.structure == []
    assert set(found.layers) == {"enc/layer_0", "dec"}
    assert set(found.layers["dec"].values()) == {0.0}


@pytest.mark.parametrize("variable", ["h", "c", "f"])
def test_one_value(variable):
    a, place = make(), (1, 23, 4)
    before = a["dec"][variable].values[place]
    found = compare(a, changed("dec", variable, place, before + 1.0))
    first = found.first
    assert (first.layer, first.variable) == ("dec", variable)
    assert (first.step, first.time, first.row, first.unit) == (23, "230", "y", 104)
    assert (first.a, first.b) == (before, before + 1.0)
    expected = 1.0 / (1.0 + abs(before + 1.0))
    assert first.error == pytest.approx(expected)
    assert found.layers["dec"][variable] == pytest.approx(expected)
    assert list(found.first_in) == ["dec"]
    assert not found.same


def test_the_difference_is_scaled():
    b = changed("dec", "c", (0, 5, 0), 1000.0)
    a = changed("dec", "c", (0, 5, 0), 1000.5)
    assert compare(a, b, tolerance=1e-3).same
    assert not compare(a, b, tolerance=4e-4).same


def test_the_earliest_step_of_all_layers_and_variables():
    b = changed("dec", "h", (2, 9, 1), 50.0)
    b = changed("enc/layer_0", "c", (0, 30, 0), 99.0, b)
    found = compare(make(), b)
    assert found.first == found.first_in["dec"]
    assert found.first.step == 9
    assert found.first_in["enc/layer_0"].step == 30


def test_in_one_step_the_first_layer_goes_first():
    paths = [leaf.path.strip("/") for leaf in make().leaves]
    b = changed(paths[1], "h", (0, 9, 1), 50.0)
    b = changed(paths[0], "f", (2, 9, 3), 50.0, b)
    first = compare(make(), b).first
    assert (first.layer, first.variable) == (paths[0], "f")


def test_an_initial_state_is_before_the_first_step():
    b = changed("dec", "initial_c", (2, 1), 9.0)
    b = put(b, "dec", h=b["dec"].h.values + 1.0)
    first = compare(make(), b).first
    assert (first.variable, first.step, first.time) == ("initial_c", None, None)
    assert (first.row, first.unit) == ("z", 101)


def test_a_projected_unit_without_labels():
    first = compare(make(), changed("dec", "p", (0, 4, 1), 9.0)).first
    assert (first.variable, first.step, first.unit) == ("p", 4, 1)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_values_that_are_not_finite(value):
    odd = changed("dec", "h", (1, 7, 2), value)
    assert compare(odd, odd).same
    for a, b in ((odd, make()), (make(), odd)):
        found = compare(a, b)
        assert found.first.step == 7
        assert found.first.error == np.inf


def test_infinities_of_two_signs_differ():
    a, b = (changed("dec", "h", (1, 7, 2), v) for v in (np.inf, -np.inf))
    assert compare(a, b).first.error == np.inf


@pytest.mark.parametrize("place", [0, 6, 7, 39])
def test_every_block_is_compared(monkeypatch, place):
    monkeypatch.setattr(module, "BLOCK_BYTES", 7 * B * U * 8)  # seven steps
    assert compare(make(), changed("dec", "c", (2, place, 4), 9.0)).first.step == place
    assert compare(make(), make()).same


def test_layers_and_variables_that_only_one_has():
    b = make()
    del b["dec"]
    b["new"] = xr.DataTree(layer(5))
    found = compare(make(), b)
    assert found.structure == ["layers in A only: dec", "layers in B only: new"]
    assert not found.same
    assert found.first is None
    c = make()
    c["dec"] = xr.DataTree(c["dec"].to_dataset().drop_vars("f"))
    assert compare(make(), c).structure == ["dec: variables in A only: f"]


def test_another_length_is_compared_as_far_as_both_go():
    b = make()
    b["dec"] = xr.DataTree(b["dec"].to_dataset().isel(time=slice(0, 25)))
    found = compare(make(), b)
    said = "dec: time has size 40 in A, 25 in B, only the steps that both have are compared"
    assert found.structure == [said]
    assert found.first is None
    b = put(b, "dec", h=b["dec"].h.values + 1.0)
    assert compare(make(), b).first.step == 0


def test_other_sizes_are_not_compared():
    b = make()
    b["dec"] = xr.DataTree(b["dec"].to_dataset().isel(unit=slice(0, 3)))
    found = compare(make(), b)
    assert found.structure == ["dec: unit has size 5 in A, 3 in B"]
    assert list(found.layers["dec"]) == ["p"]


def test_other_dims():
    b = make()
    b["dec"] = xr.DataTree(b["dec"].to_dataset().transpose("time", ...))
    found = compare(make(), b)
    assert any("h has dims ('batch', 'time', 'unit') in A" in said for said in found.structure)


def test_what_holds_no_numbers_is_said():
    b = put(make(), "dec", f=np.full((B, T, U), "a"))
    found = compare(make(), b)
    assert found.structure == ["dec: f does not hold numbers, and is not compared"]
    assert "f" not in found.layers["dec"]


def test_other_labels():
    b = xr.DataTree.from_dict(
        {"/enc/layer_0": layer(0, time=np.arange(T)), "/dec": layer(1, unit=np.arange(U))}
    )
    found = compare(make(), b)
    assert sorted(found.structure) == [
        "dec: the labels of unit differ, values are compared by place",
        "enc/layer_0: the labels of time differ, values are compared by place",
    ]
    assert found.first is None
    assert not found.same


@pytest.mark.parametrize("missing", [np.nan, np.datetime64("NaT", "ns")])
def test_missing_labels_are_the_same_in_both(missing):
    labels = np.array([missing] * 2 + [0.0 if missing is np.nan else np.datetime64(0, "ns")] * 38)
    a, b = (xr.DataTree.from_dict({"/dec": layer(1, time=labels.copy())}) for _ in "ab")
    assert compare(a, b).same


def test_other_precision_is_within_a_tolerance():
    a, b = make(), make().map_over_datasets(lambda d: d.astype("float32"))
    assert not compare(a, b, tolerance=0.0).same
    assert compare(a, b, tolerance=1e-6).same


def test_progress():
    told = []
    compare(make(), make(), progress=lambda *a: told.append(a))
    assert told == [(1, 2), (2, 2)]


def test_it_prints_as_a_table_and_a_verdict():
    other = changed("dec", "c", (1, 23, 4), np.inf)
    assert repr(compare(make(), other)).splitlines() == [
        "layer        largest difference  first beyond the tolerance",
        "dec          inf                 step 23 (230): c, row y, unit 104",
        "enc/layer_0  0                   nowhere",
        "They part in dec, step 23 (230): c, row y, unit 104: "
        f"{make()['dec'].c.values[1, 23, 4]:.9g} in A, inf in B.",
    ]
    assert repr(compare(make(), make())).endswith("compared are the same within 0.0001.")


def test_nothing_of_equal_sizes_is_said():
    a, b = (xr.DataTree.from_dict({"/enc": layer(0).isel(batch=s)}) for s in ([0], [0, 1]))
    found = compare(a, b)
    assert not found.same
    assert found.first is None
    assert found.layers == {"enc": {}}
    assert repr(found).endswith("no variable is in both traces with equal sizes.")


def test_layers_that_two_frameworks_call_differently():
    b = xr.DataTree.from_dict({"/lstm": layer(0), "/decoder/rnn": layer(1)})
    names = {"enc/layer_0": "lstm", "/dec": "decoder/rnn"}
    assert compare(make(), b, layers=names).same
    found = compare(make(), changed("lstm", "h", (0, 9, 1), 50.0, b), layers=names)
    assert list(found.first_in) == ["enc/layer_0"]
    with mutations.must_be_noticed("layers paired crosswise"):
        crosswise = {"enc/layer_0": "decoder/rnn", "dec": "lstm"}
        assert compare(make(), b, layers=crosswise).same
    alone = compare(make(), b, layers={"dec": "decoder/rnn"})
    assert alone.structure == ["layers in A only: enc/layer_0", "layers in B only: lstm"]
    for wrong, said in (({"encoder": "lstm"}, "'encoder' in A"), ({"dec": "rnn"}, "'rnn' in B")):
        with pytest.raises(SelectionError, match=f"no layer {said}, which has"):
            compare(make(), b, layers=wrong)


def test_update_gates_are_compared_in_one_convention():
    z = np.random.default_rng(3).random((B, T, U))
    dims = ("batch", "time", "unit")
    keeps, writes = (
        xr.DataTree.from_dict({"/gru": xr.Dataset({"z": (dims, v)}, attrs={"update": how})})
        for v, how in ((z, "keeps"), (1 - z, "writes"))
    )
    assert compare(keeps, writes).same
    with mutations.must_be_noticed("conventions mixed"):
        mixed = xr.DataTree(writes["gru"].to_dataset().assign_attrs(update="keeps"))
        assert compare(keeps, xr.DataTree.from_dict({"/gru": mixed})).same


@pytest.mark.parametrize("tolerance", [-1, np.nan])
def test_a_tolerance_that_means_nothing(tolerance):
    with pytest.raises(SelectionError, match="expected 0 or more"):
        compare(make(), make(), tolerance=tolerance)


def test_a_path_is_to_be_opened_first():
    with pytest.raises(TraceFormatError, match=r"es\.open_trace\('b\.zarr'\)"):
        compare(make(), "b.zarr")
