"""One long sequence, cut in time: the values are those of the model run whole."""

import itertools
import os
from dataclasses import replace

import numpy as np
import pytest
import xarray as xr

import everystate as es
from everystate.errors import (
    InputError,
    NothingRecordedError,
    ResumeError,
    SelectionError,
    TraceWriteError,
    UncuttableError,
)
from everystate.storage import append, layout
from everystate.testing import importorskip

torch = importorskip("torch")
from torch import nn

T, B, D, U = 301, 2, 3, 5
"""Steps, rows, features, units. No chunk used here divides T."""


def model_of(kind: str) -> nn.Module:
    torch.manual_seed(1)
    models = {
        "lstm": lambda: nn.LSTM(D, U, num_layers=2),
        "projected": lambda: nn.LSTM(D, U, proj_size=4),
        "gru": lambda: nn.GRU(D, U, batch_first=True),
        "rnn": lambda: nn.RNN(D, U, nonlinearity="relu", bias=False),
        "tagger": Tagger,
    }
    return models[kind]().eval()


class Tagger(nn.Module):
    """What people write: a stack below, another above, and a head that looks at the last step."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.GRU(D, U, batch_first=True)
        self.norm = nn.LayerNorm(U)
        self.decoder = nn.LSTM(U, 4, batch_first=True)
        self.head = nn.Linear(4, 2)

    def forward(self, x):
        x, _ = self.encoder(x)
        x, _ = self.decoder(torch.relu_(self.norm(x)))  # writes into a tensor that was observed
        return self.head(x[:, -1])


def batch_first(kind: str) -> bool:
    return kind in ("gru", "tagger")


def data(kind: str, steps: int = T) -> np.ndarray:
    shape = (B, steps, D) if batch_first(kind) else (steps, B, D)
    return np.random.default_rng(2).normal(0, 0.8, shape).astype(np.float32)


def assert_same(got: xr.DataTree, expected: xr.DataTree, tolerance: float = 1e-5) -> None:
    """Same layers, variables, labels and attributes; values within rounding; nothing worse."""
    assert got.groups == expected.groups
    for leaf in expected.leaves:
        other = got[leaf.path]
        assert list(other.data_vars) == list(leaf.data_vars)
        assert set(other.coords) == set(leaf.coords)
        for name in leaf.variables:
            a, b = leaf[name], other[name]
            assert (a.dtype, a.dims, a.attrs) == (b.dtype, b.dims, b.attrs), name
            exact = np.asarray(a).dtype.kind != "f"
            close = np.array_equal(a, b) if exact else np.allclose(a, b, tolerance, tolerance)
            assert close, name
        summed_up = [k for k in leaf.attrs if k.startswith("max_error") or "rounding" in k]
        for name in leaf.attrs:
            if name not in summed_up:
                assert other.attrs[name] == leaf.attrs[name], name
        assert all(other.attrs[name] < leaf.attrs["tolerance"] for name in summed_up)
    assert {**got.attrs, "created": ""} == {**expected.attrs, "created": ""}


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layout, "SHARD_BYTES", 4 * B * U * 32)
    monkeypatch.setattr(layout, "CHUNK_BYTES", 4 * B * U * 16)


@pytest.mark.parametrize(
    ("kind", "chunk"),
    [("lstm", 50), ("projected", 64), ("gru", 23), ("rnn", 150), ("rnn", 500), ("tagger", 97)],
)
def test_cutting_changes_no_value(kind, chunk, tmp_path, small_blocks):
    model, x = model_of(kind), data(kind)
    expected = es.record(model, x)
    got = es.record(model, x, store=tmp_path / "run.zarr", chunk=chunk)
    assert_same(got, expected)


def test_a_block_is_written_once_where_a_chunk_holds_it(tmp_path, monkeypatch):
    written, write = [], append.write_shards

    def noted(array, variable, start):
        written.append((array.name, start))
        write(array, variable, start)

    monkeypatch.setattr(append, "write_shards", noted)
    model, x = model_of("lstm"), data("lstm")
    got = es.record(model, x, store=tmp_path / "run.zarr", chunk=512)
    assert len(written) == len(set(written)) == 2 * len(["time", "h", "c", "i", "f", "g", "o"])
    assert_same(got, es.record(model, x))


def test_a_state_that_is_not_carried_on_would_be_seen(tmp_path):
    model, x = model_of("lstm"), data("lstm")
    got = es.record(
        model, x, store=tmp_path / "run.zarr", chunk=64, step=lambda x, _: (model(tensor(x)), None)
    )
    with pytest.raises(AssertionError):
        assert_same(got, es.record(model, x))


def tensor(x: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(x)


@pytest.mark.parametrize("given", ["npy", "zarr", "memmap", "zarr array", "iterator", "tensor"])
def test_inputs_of_every_kind(given, tmp_path):
    import zarr

    model, x = model_of("gru"), data("gru")
    np.save(tmp_path / "x.npy", x)
    stored = zarr.create_array(str(tmp_path / "x.zarr"), data=x, chunks=(1, 50, D))
    inputs = {
        "npy": tmp_path / "x.npy",
        "zarr": str(tmp_path / "x.zarr"),
        "memmap": np.load(tmp_path / "x.npy", mmap_mode="r"),
        "zarr array": stored,
        "iterator": iter(np.split(x, [1, 8, 110, 113], axis=1)),
        "tensor": tensor(x),
    }
    got = es.record(model, inputs[given], store=tmp_path / "run.zarr", chunk=64)
    assert_same(got, es.record(model, x))


def test_a_step_of_ones_own(tmp_path):
    cell, head = nn.GRUCell(D, U), nn.Linear(U, 1)
    model = nn.ModuleDict({"cell": cell, "head": head})
    x = data("lstm")

    def step(chunk, state):
        h = torch.full((B, U), 0.3) if state is None else state["h"]
        outputs = []
        for x_t in tensor(chunk):
            h = cell(x_t, h)
            outputs.append(head(h))
        return torch.stack(outputs), {"h": h, "seen": len(outputs)}

    with torch.no_grad(), es.recording(model) as rec:
        step(x, None)
    with pytest.raises(InputError, match=r"which axis .* is time\? ModuleDict does not tell"):
        es.record(model, x, store=tmp_path / "run.zarr", step=step)
    got = es.record(model, x, store=tmp_path / "run.zarr", step=step, time_axis=0)
    assert_same(got, rec.trace)


@pytest.mark.parametrize(
    "select",
    [
        es.Select(variables=("h", "inputs"), every=7),
        es.Select(window=(100, 209), units=[0, 3]),
        es.Select(window=(-50, None), dtype="float16", every=3),
        es.Select(layers="lstm/layer_1", variables="c"),
    ],
)
def test_selections(select, tmp_path, small_blocks):
    model, x = model_of("lstm"), data("lstm")
    got = es.record(model, x, store=tmp_path / "run.zarr", chunk=64, select=select)
    if select.window == (-50, None):  # resolved beforehand, so that the kernel can be asked
        select = replace(select, window=(T - 50, T))
    assert_same(got, es.record(model, x, select=select), 2e-3 if select.dtype else 1e-5)


def test_labels(tmp_path, small_blocks):
    model, x = model_of("lstm"), data("lstm")
    time = np.datetime64("2020-01-01T00:00", "s") + 60 * np.arange(T)
    options = {"time": time, "batch": ["ann", "é"], "select": es.Select(every=2, variables="h")}
    got = es.record(model, x, store=tmp_path / "run.zarr", chunk=50, **options)
    assert_same(got, es.record(model, x, **options))
    with pytest.raises(InputError, match="time= has 300 labels, but there are 301 steps"):
        es.record(model, x, store=tmp_path / "other.zarr", time=time[:-1])
    with pytest.raises(InputError, match="Label the steps of a stream by numbers"):
        es.record(model, x, store=tmp_path / "other.zarr", time=[str(t) for t in time])


@pytest.mark.filterwarnings("ignore:Using padding='same'")
class TestWhatCannotBeCut:
    def models(self):
        class Attention(nn.Module):
            def __init__(self):
                super().__init__()
                self.lstm = nn.LSTM(D, U, batch_first=True)
                self.attention = nn.MultiheadAttention(U, 1, batch_first=True)
                self.top = nn.GRU(U, U, batch_first=True)

            def forward(self, x):
                h, _ = self.lstm(x)
                return self.top(self.attention(h, h, h)[0])

        class Centred(nn.Module):
            def __init__(self):
                super().__init__()
                self.lstm = nn.LSTM(D, U, batch_first=True)

            def forward(self, x):
                return self.lstm(x - x.mean(dim=1, keepdim=True))

        class Convolved(nn.Module):
            def __init__(self):
                super().__init__()
                self.conv = nn.Conv1d(D, D, 2, padding="same")
                self.lstm = nn.LSTM(D, U, batch_first=True)

            def forward(self, x):
                return self.lstm(self.conv(x.transpose(1, 2)).transpose(1, 2))

        class Loop(nn.Module):
            def __init__(self):
                super().__init__()
                self.cell = nn.GRUCell(D, U)

            def forward(self, x):
                h = torch.zeros(len(x), U)
                for x_t in x.unbind(1):
                    h = self.cell(x_t, h)
                return h

        class Twice(nn.Module):
            def __init__(self):
                super().__init__()
                self.lstm = nn.LSTM(D, D, batch_first=True)

            def forward(self, x):
                return self.lstm(self.lstm(x)[0])

        torch.manual_seed(3)
        return {
            "lstm is bidirectional": nn.LSTM(D, U, bidirectional=True, batch_first=True),
            "what it is given of /top differs": Attention(),
            "what it is given of /lstm differs": Centred(),
            "run in pieces, what it is given of": Convolved(),
            "cell is a cell": Loop(),
            "lstm is called several times": Twice(),
        }

    def test_is_refused_and_the_memory_named(self, tmp_path):
        for reason, model in self.models().items():
            if "several" in reason:
                continue
            with pytest.raises(UncuttableError, match=reason) as caught:
                es.record(
                    model.eval(),
                    data("gru"),
                    store=tmp_path / "run.zarr",
                    memory=20_000,
                    time_axis=1,
                )
            assert "301 steps would take at least" in str(caught.value)
            assert "more than memory=20 kB" in str(caught.value)
            assert isinstance(caught.value, MemoryError)
        assert not list(tmp_path.iterdir())

    def test_is_run_whole_where_there_is_room(self, tmp_path):
        for k, (reason, model) in enumerate(self.models().items()):
            if "several" not in reason:
                store, x = tmp_path / f"{k}.zarr", data("gru")
                got = es.record(model.eval(), x, store=store, chunk=40, time_axis=1)
                assert_same(got, es.record(model, x), 0)

    def test_without_an_end_in_sight(self, tmp_path):
        model = nn.LSTM(D, U, bidirectional=True)
        chunks = itertools.repeat(data("lstm", 40))
        with pytest.raises(UncuttableError, match=r"bidirectional.*Without an end in sight"):
            es.record(model, chunks, store=tmp_path / "run.zarr")


class StopError(Exception):
    pass


def stop_after(steps: int):
    def progress(done: int, total: int) -> None:
        assert total == T
        if done >= steps:
            raise StopError

    return progress


@pytest.mark.parametrize("chunk", [0, -5, 2.5, "7", True])
def test_a_chunk_is_some_steps(chunk, tmp_path):
    model, x = model_of("rnn"), data("rnn", 40)
    with pytest.raises(SelectionError, match=r"chunk=.*: expected an int of steps, 1 or more"):
        es.record(model, x, store=tmp_path / "run.zarr", chunk=chunk)
    assert not list(tmp_path.iterdir())


class TestResuming:
    def stopped(self, path, kind="tagger", after=64, **options):
        with pytest.raises(StopError):
            es.record(model_of(kind), data(kind), store=path, progress=stop_after(after), **options)

    @pytest.mark.parametrize(
        ("after", "select"),
        [
            (23, es.Select(variables="h")),
            (200, es.Select()),
            (100, es.Select(every=5, window=(11, 290))),
        ],
    )
    def test_gives_the_trace_of_one_that_was_not_stopped(
        self, after, select, tmp_path, small_blocks
    ):
        options = {"chunk": 53, "select": select}
        whole = es.record(model_of("tagger"), data("tagger"), store=tmp_path / "a.zarr", **options)
        path = tmp_path / "b.zarr"
        self.stopped(path, after=after, **options)
        part = es.open_trace(path, incomplete="trim")
        assert part.attrs["complete"] == 0
        ran = []
        got = es.record(
            model_of("tagger"),
            data("tagger"),
            store=path,
            resume=True,
            select=select,
            progress=lambda done, total: ran.append(done),
        )
        assert ran[0] == min(T, 53 * (-(-after // 53) + 1))
        for leaf in whole.leaves:
            xr.testing.assert_identical(got[leaf.path].to_dataset(), leaf.to_dataset())
            begun = part[leaf.path].to_dataset()
            for name in begun.data_vars:
                there = leaf[name].isel(time=slice(0, begun.sizes["time"]), missing_dims="ignore")
                np.testing.assert_array_equal(begun[name], there)
        assert sorted(os.listdir(path)) == ["decoder", "encoder", "everystate.json", "zarr.json"]

    @pytest.mark.parametrize("chunk", [64, 500])
    def test_begins_where_there_is_nothing_and_ends_where_all_is_done(self, chunk, tmp_path):
        path, model, x = tmp_path / "run.zarr", model_of("gru"), data("gru")
        options = {"store": path, "chunk": chunk, "resume": True}
        first = es.record(model, x, **options).load()

        def never(done, total):
            raise AssertionError("it ran again")

        xr.testing.assert_identical(es.record(model, x, progress=never, **options), first)

    def test_with_a_step_of_ones_own(self, tmp_path):
        torch.manual_seed(5)
        cell, x = nn.LSTMCell(D, U), data("lstm")

        def step(chunk, state):
            h, c = (torch.zeros(B, U), torch.zeros(B, U)) if state is None else state["cell"]
            for x_t in tensor(chunk):
                h, c = cell(x_t, (h, c))
            return h, {"cell": [h, c], "name": "ann", "nothing": None}

        options = {"step": step, "time_axis": 0, "memory": 100_000}
        with torch.no_grad():
            whole = es.record(cell, x, store=tmp_path / "a.zarr", **options).load()
            path = tmp_path / "b.zarr"
            with pytest.raises(StopError):
                es.record(cell, x, store=path, progress=stop_after(130), **options)
            assert es.open_trace(path, incomplete="trim")["lstmcell"].sizes["time"] < T
            got = es.record(cell, x, store=path, resume=True, **options)
        xr.testing.assert_identical(got["lstmcell"].to_dataset(), whole["lstmcell"].to_dataset())

    def test_an_iterator_is_given_from_its_beginning(self, tmp_path):
        path, model, x = tmp_path / "run.zarr", model_of("gru"), data("gru")

        def chunks(stop=T):
            for start in range(0, T, 40):
                if start >= stop:
                    raise StopError
                yield x[:, start : start + 40]

        with pytest.raises(StopError):
            es.record(model, chunks(200), store=path, chunk=32)
        got = es.record(model, chunks(), store=path, chunk=32, resume=True)
        assert_same(got, es.record(model, x))

    def test_replaces_another_only_in_the_end(self, tmp_path):
        path, model, x = tmp_path / "run.zarr", model_of("gru"), data("gru")
        old = es.record(model, x[:, :50], store=path).load()
        self.stopped(path, "gru", chunk=32, overwrite=True)
        xr.testing.assert_identical(es.open_trace(path), old)
        got = es.record(model, x, store=path, resume=True)
        assert_same(got, es.record(model, x))
        assert [each.name for each in tmp_path.iterdir()] == ["run.zarr"]

    def test_another_model_input_or_selection_is_told(self, tmp_path):
        path = tmp_path / "run.zarr"
        self.stopped(path, "gru", chunk=32)
        model, x = model_of("gru"), data("gru")
        with pytest.raises(ResumeError, match="differs in the first steps of the input"):
            es.record(model, x + 1, store=path, resume=True)
        with pytest.raises(ResumeError, match="the length of the input: 301 and now 300"):
            es.record(model, x[:, 1:], store=path, resume=True)
        with pytest.raises(ResumeError, match="differs in select: Select"):
            es.record(model, x, store=path, resume=True, select=es.Select(every=2))
        with pytest.raises(ResumeError, match="differs in model: GRU and now LSTM"):
            es.record(nn.LSTM(D, U, batch_first=True), x, store=path, resume=True)
        torch.manual_seed(99)
        with pytest.raises(ResumeError, match=r"gru: .* its weights are others"):
            es.record(nn.GRU(D, U, batch_first=True), x, store=path, resume=True)
        got = es.record(model, x, store=path, resume=True)
        assert_same(got, es.record(model, x))


def test_a_second_writer_is_told(tmp_path):
    path, model, x = tmp_path / "run.zarr", model_of("gru"), data("gru")
    told = []

    def intrude(done, total):
        model = model_of("gru")
        for options in ({}, {"resume": True}, {"overwrite": True}):
            with pytest.raises(TraceWriteError, match="being written now"):
                es.record(model, x, store=path, **options)
            told.append(options)

    got = es.record(model, x, store=path, chunk=128, progress=intrude)
    assert len(told) == 9
    assert_same(got, es.record(model, x))


def test_options_that_mean_nothing(tmp_path):
    model, x = model_of("gru"), data("gru")
    with pytest.raises(TypeError, match=r"unexpected keyword argument 'sotre'. Did you mean store"):
        es.record(model, x, sotre="run.zarr")
    with pytest.raises(SelectionError, match="memory= is for recordings that are written"):
        es.record(model, x, memory="1GB")
    with pytest.raises(SelectionError, match="memory='much': expected an amount such as '512MB'"):
        es.record(model, x, memory="much", store=tmp_path / "run.zarr")
    with pytest.raises(InputError, match="take one input, the sequence; got 2"):
        es.record(model, x, torch.zeros(1, B, U), store=tmp_path / "run.zarr")
    with pytest.raises(NothingRecordedError):
        es.record(model, x, store=tmp_path / "run.zarr", step=lambda chunk, state: (None, None))
    assert not list(tmp_path.iterdir())
