"""Selections, joins along batch and time, labels: each against the full record of one call."""

from itertools import product

import numpy as np
import pytest
import xarray as xr

from everystate.testing import importorskip

torch = importorskip("torch")

from torch import nn

import everystate as es
import torch_reference as ref
from everystate.errors import (
    EverystateWarning,
    InputError,
    JoinError,
    NothingRecordedError,
    SelectionError,
    UnknownLayerError,
)

T, B, D, H = 12, 3, 4, 5
ALL = ("states", "gates", "inputs")


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.encoder = nn.LSTM(D, H, 2, bidirectional=True, dtype=torch.float64)
        self.middle = nn.ModuleDict({"gru": nn.GRU(2 * H, H, dtype=torch.float64)})
        self.cell = nn.LSTMCell(H, H, dtype=torch.float64)

    def forward(self, x):
        y, _ = self.middle["gru"](self.encoder(x)[0])
        state = None
        for y_t in y:
            state = self.cell(y_t, state)
        return state


@pytest.fixture(scope="module")
def model():
    return ref.randomise(Model(), seed=3).eval()


@pytest.fixture(scope="module")
def x():
    return ref.random(T, B, D, seed=5)


@pytest.fixture(scope="module")
def full(model, x):
    return es.record(model, x, select=es.Select(variables=ALL))


LEAVES = {
    *(f"/encoder/layer_{k}/{way}" for k in (0, 1) for way in ("forward", "backward")),
    "/middle/gru",
    "/cell",
}


def paths(trace):
    return {leaf.path for leaf in trace.leaves}


def same(part, whole):
    """Whether every variable of a leaf is that of the full record, by its coordinates."""
    for name, a in part.data_vars.items():
        b = whole[name].sel({dim: a[dim] for dim in a.dims})
        assert a.attrs["origin"] == whole[name].attrs["origin"], name
        assert np.allclose(a, b, rtol=1e-12, atol=1e-12, equal_nan=True), name
        assert not np.isnan(b).all(), name


@pytest.mark.parametrize(
    ("layers", "expected"),
    [
        (None, LEAVES),
        ("encoder", {p for p in LEAVES if "encoder" in p}),
        ("encoder.*", {p for p in LEAVES if "encoder" in p}),
        ("encoder/layer_1/*", {p for p in LEAVES if "layer_1" in p}),
        ("*backward", {p for p in LEAVES if "backward" in p}),
        ("middle.gru", {"/middle/gru"}),
        (["cell", "middle"], {"/middle/gru", "/cell"}),
    ],
)
def test_layers(model, x, full, layers, expected):
    trace = es.record(model, x, select=es.Select(layers=layers, variables=ALL))
    assert paths(trace) == expected
    for path in expected:
        assert set(trace[path].data_vars) == set(full[path].data_vars)
        same(trace[path], full[path])


@pytest.mark.parametrize(
    ("variables", "of_lstm", "of_gru"),
    [
        ("h", {"h"}, {"h"}),
        ("c", {"c"}, set()),
        ("gates", set("ifgo"), set("rzn")),
        (("h", "f", "z"), {"h", "f"}, {"h", "z"}),
        ("inputs", {"inputs"}, {"inputs"}),
        (("states", "inputs"), {"h", "c", "inputs"}, {"h", "inputs"}),
    ],
)
def test_variables(model, x, full, variables, of_lstm, of_gru):
    trace = es.record(model, x, select=es.Select(variables=variables))
    for path in LEAVES:
        expected = of_gru if "gru" in path else of_lstm
        if not expected:
            assert path not in paths(trace)
            continue
        leaf = trace[path]
        assert {n for n in leaf.data_vars if not n.startswith("initial_")} == expected
        same(leaf, full[path])


@pytest.mark.parametrize("units", [0, -1, [1, 3], slice(1, 4), np.array([4, 0])])
@pytest.mark.parametrize("every", [1, 3])
@pytest.mark.parametrize("window", [None, (2, 11), (-5, None), slice(1, None)])
def test_units_steps_and_windows(model, x, full, units, every, window):
    select = es.Select(units=units, every=every, window=window, variables=ALL)
    trace = es.record(model, x, select=select)
    start, stop = (
        (window.start, window.stop) if isinstance(window, slice) else window or (None, None)
    )
    steps = np.arange(T)[start:stop][::every]
    chosen = np.arange(H)[np.atleast_1d(units) if not isinstance(units, slice) else units]
    for path in LEAVES:
        assert trace[path].time.values.tolist() == steps.tolist()
        assert trace[path].unit.values.tolist() == chosen.tolist()
        same(trace[path], full[path])


@pytest.mark.parametrize("dtype", ["float16", "float32", np.float64])
def test_storage_dtype(model, x, full, dtype):
    trace = es.record(model, x, select=es.Select(dtype=dtype))
    for path in LEAVES:
        for name in ("h", "c", "f") if "gru" not in path else ("h", "z"):
            assert trace[path][name].dtype == np.dtype(dtype)
            assert np.array_equal(trace[path][name], full[path][name].astype(dtype))


@pytest.mark.parametrize("variables", ["h", "c", "gates"])
def test_what_is_not_selected_is_not_computed(model, x, variables, monkeypatch):
    """The cells are asked for the selected units only, and for h alone not at all."""
    from everystate.cells import GRU, LSTM

    widths = []
    for cell, equations in product((LSTM, GRU), ("evolve", "gates_at")):
        right = getattr(cell, equations)

        def counted(self, w, a_x, *rest, right=right):
            widths.append(a_x.shape[-1] // self.blocks)
            return right(self, w, a_x, *rest)

        monkeypatch.setattr(cell, equations, counted)
    es.record(model, x, select=es.Select(variables=variables, units=[0, 2]))
    assert set(widths) == (set() if variables == "h" else {2})


def test_a_selection_of_a_ragged_bidirectional_stack():
    lstm = ref.randomise(nn.LSTM(D, H, bidirectional=True, dtype=torch.float64))
    packed = ref.packed(ref.random(6, 3, D, seed=1), (4, 6, 1))
    full = es.record(lstm, packed)
    few = es.record(lstm, packed, select=es.Select(units=[3], every=2, window=(1, 6)))
    for way in ("forward", "backward"):
        assert few[f"lstm/{way}"].time.values.tolist() == [1, 3, 5]
        same_or_both_nan = few[f"lstm/{way}"], full[f"lstm/{way}"]
        for name, a in same_or_both_nan[0].data_vars.items():
            b = same_or_both_nan[1][name].sel({dim: a[dim] for dim in a.dims})
            assert np.allclose(a, b, rtol=1e-12, atol=1e-12, equal_nan=True)


@pytest.mark.parametrize(
    ("select", "error", "message"),
    [
        ({"layers": "decoder*"}, UnknownLayerError, r"'decoder\*'; the model has: encoder/layer_0"),
        ({"variables": "x"}, SelectionError, "no variable 'x'; there are states, gates, inputs, h"),
        ({"variables": "z", "layers": "cell"}, NothingRecordedError, "variables='z'"),
        ({"units": 9}, SelectionError, "units=9, but it has 5 units"),
        ({"units": []}, SelectionError, "none of its 5 units"),
        ({"window": (20, 30)}, SelectionError, "holds none of the 12 steps"),
        ({"every": 0}, SelectionError, "every=0"),
        ({"dtype": "int8"}, SelectionError, "dtype='int8'"),
    ],
)
def test_selections_that_cannot_be(model, x, select, error, message):
    with pytest.raises(error, match=message):
        es.record(model, x, select=es.Select(**select))


def test_calls_join_along_batch(model, x, full):
    with es.recording(model, select=es.Select(variables=ALL)) as recorder:
        for row in x.split(1, dim=1):
            model(row)
    for path in LEAVES:
        xr.testing.assert_allclose(
            recorder.trace[path].to_dataset(), full[path].to_dataset(), rtol=1e-9
        )


def test_sequences_of_different_lengths_join_along_batch(model, x, full):
    with es.recording(model) as recorder:
        model(x)
        model(x[:7, :2])
    leaf = recorder.trace["middle/gru"]
    assert leaf.length.values.tolist() == [T] * B + [7] * 2
    assert np.isnan(leaf.h.values[B:, 7:]).all()
    assert not np.isnan(leaf.h.values[B:, :7]).any()
    cells = recorder.trace["cell"].h.values
    short = es.record(model, x[:7, :2])["cell"].h.values
    assert np.allclose(cells[B:, :7], short)
    assert np.allclose(cells[:B], full["cell"].h.values)


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU, nn.RNN])
def test_a_stream_joins_along_time_into_one_long_call(kind, x):
    module = ref.randomise(kind(D, H, 2, dtype=torch.float64))
    whole = es.record(module, x)
    nested = nn.Sequential(module)
    with es.recording(nested, along="time") as recorder:
        state = None
        for chunk in x.split([5, 1, 4, 2]):
            _, state = module(chunk, state)
    for k in (0, 1):
        stream, once = recorder.trace[f"0/layer_{k}"], whole[f"{kind.__name__.lower()}/layer_{k}"]
        assert "state_resets" not in stream.attrs
        xr.testing.assert_allclose(stream.to_dataset(), once.to_dataset(), rtol=1e-10, atol=1e-12)


def test_a_selection_of_a_stream_is_that_of_the_whole(x):
    module = ref.randomise(nn.LSTM(D, H, dtype=torch.float64))
    for select in ({"every": 5}, {"window": (4, 9)}, {"every": 3, "window": (2, None), "units": 1}):
        whole = es.record(module, x, select=es.Select(**select))["lstm"]
        for chunks in ([5, 1, 4, 2], [1] * T, [11, 1]):
            with es.recording(module, along="time", select=es.Select(**select)) as recorder:
                state = None
                for chunk in x.split(chunks):
                    _, state = module(chunk, state)
            stream = recorder.trace["lstm"]
            assert stream.time.values.tolist() == whole.time.values.tolist()
            assert np.allclose(stream.c, whole.c, rtol=1e-12, atol=1e-12)


def test_a_stream_whose_state_is_not_handed_on_is_reported(model, x):
    with es.recording(model, along="time", select=es.Select(layers="middle")) as recorder:
        for chunk in x.split(5):
            model(chunk)
    with pytest.warns(EverystateWarning, match="at steps 5, 10. Pass the state on"):
        trace = recorder.trace
    assert trace["middle/gru"].attrs["state_resets"] == "5, 10"


def test_joins_that_do_not_fit(model, x):
    with es.recording(model, along="time") as recorder:
        model(x)
        model(x[:, :2])
    with pytest.raises(JoinError, match="rows cannot be joined along time"):
        _ = recorder.trace
    lstm = ref.randomise(nn.LSTM(D, H, dtype=torch.float64))
    with es.recording(nn.Sequential(lstm), along="time") as recorder:
        lstm(ref.packed(x[:6], (4, 6, 1)))
        lstm(x)
    with pytest.raises(JoinError, match="rows shorter than its 6 steps"):
        _ = recorder.trace
    with pytest.raises(SelectionError, match="along='space': expected 'batch' or 'time'"):
        es.recording(model, along="space").__enter__()


def test_labels_of_time_and_batch(model, x, full):
    hours = np.arange("2024-01-01", "2024-01-01T12", dtype="datetime64[h]")
    names = ["ann", "bob", "cy"]
    trace = es.record(model, x, time=hours, batch=names)
    leaf = trace["encoder/layer_1/backward"]
    assert np.array_equal(leaf.c.sel(time="2024-01-01T07", batch="bob"), full[leaf.path].c[1, 7])
    few = es.record(model, x, time=hours, select=es.Select(every=5))
    assert np.array_equal(few["cell"].time, hours[::5])
    with pytest.raises(InputError, match=r"time= has shape \(3,\), but there are 12"):
        es.record(model, x, time=[1, 2, 3])
    with pytest.raises(InputError, match=r"batch= has shape \(2,\), but there are 3"):
        es.record(model, x, batch=["a", "b"])
    with es.recording(model, along="time", time=range(2 * T), select=es.Select("cell")) as recorder:
        model(x)
        model(x)
    with pytest.warns(EverystateWarning, match="state"):
        assert recorder.trace["cell"].time.values.tolist() == list(range(2 * T))


def test_numpy_input_is_converted_to_the_weights_dtype(model, x, full):
    trace = es.record(model, x.numpy().astype(np.float32))
    once = es.record(model, x.float().double())
    assert np.array_equal(trace["cell"].c, once["cell"].c)
    assert np.allclose(trace["cell"].c, full["cell"].c, atol=1e-5)
    lists = nn.LSTM(D, H)
    state = [np.zeros((1, B, H)), np.ones((1, B, H))]
    assert es.record(lists, x.numpy(), tuple(state))["lstm"].initial_c.values.all()
    embedded = nn.Sequential(nn.Embedding(7, D), nn.GRU(D, H))
    assert es.record(embedded, np.arange(6).reshape(3, 2))["1"].sizes["time"] == 3
