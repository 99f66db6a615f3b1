"""Many sequences as one trace, on threads: against the oracle, and when things go wrong."""

import json
import threading
import time

import numpy as np
import pytest
import zarr

import everystate as es
import mutations
from everystate.errors import (
    ClusterError,
    EverystateWarning,
    IncompleteTraceError,
    InputError,
    InputTypeError,
    SelectionError,
    TraceWriteError,
    UnsupportedModelError,
    WeightsError,
)
from everystate.scale import Arrays, Batching, Files, Parquet, record_many
from everystate.storage.shared.manifest import MARKS
from everystate.testing import importorskip

LENGTHS = (7, 12, 3, 12, 1, 9, 12, 5, 7, 7, 11)
SMALL = Batching(rows=2, batch=3)


@pytest.fixture
def record(threads, weights, tmp_path):
    """Return `record_many` of the weights on two threads, into ``run.zarr``."""

    def record(inputs, load_model=weights, store=tmp_path / "run.zarr", **options):
        options = {"batching": SMALL, "client": threads, **options}
        return record_many(load_model, inputs, store, **options)

    return record


@pytest.mark.parametrize(
    "batching",
    [Batching(), SMALL, Batching(rows=4, pad=True), Batching(rows=11, memory=4000, pad=True)],
    ids=["default", "small", "padded", "little memory"],
)
def test_each_row_is_its_sequence(record, sequences, check, expected, tmp_path, batching):
    told = []
    done = record(sequences, batching=batching, progress=lambda *k: told.append(k))
    assert (done.sequences, done.failed) == (11, {})
    assert told[0] == (0, 11)
    assert told[-1] == (11, 11)
    trace = es.open_trace(tmp_path / "run.zarr")
    check(trace)
    assert list(trace["lstm"].data_vars) == ["h", "c", *"ifgo", "initial_h", "initial_c"]
    assert trace.attrs["complete"] == 1
    assert trace["lstm"].attrs["max_error_h"] < 1e-12
    for fault, wrong in {
        "rows swapped": [expected[1], expected[0], *expected[2:]],
        "steps shifted": [{n: np.roll(a, 1, 0) for n, a in each.items()} for each in expected],
        "h and c swapped": [{**each, "h": each["c"]} for each in expected],
    }.items():
        with mutations.must_be_noticed(fault):
            check(trace, expected=wrong)
    with mutations.must_be_noticed("a length off by one"):
        check(trace, lengths=(6, *LENGTHS[1:]))


def test_files_that_cannot_be_read_are_named_and_the_rest_is_done(
    record, sequences, check, tmp_path
):
    paths = [tmp_path / f"{k}.npy" for k in range(11)]
    for path, values in zip(paths, sequences, strict=True):
        np.save(path, values)
    paths[2].write_bytes(b"no array")
    paths[5].unlink()
    np.save(paths[9], np.zeros((7, 8)))
    lengths = [0 if k in (2, 5, 9) else n for k, n in enumerate(LENGTHS)]
    with pytest.warns(EverystateWarning, match=r"3 of 11 sequences could not be recorded: .*2.npy"):
        done = record(paths)
    assert list(done.failed) == [str(paths[k]) for k in (2, 5, 9)]
    assert "9.npy: has 8 features, the others have 3" in done.failed[str(paths[9])]
    assert "No such file" in done.failed[str(paths[5])]
    trace = es.open_trace(tmp_path / "run.zarr")
    check(trace, lengths=lengths)
    assert trace.attrs["failed_sequences"] == 3
    assert trace["lstm"].source.values.tolist() == list(map(str, paths))

    np.save(paths[2], sequences[2])
    longer = np.concatenate([sequences[5], np.zeros((9, 3))])  # longer than all before
    np.save(paths[5], longer)
    with pytest.warns(EverystateWarning, match="1 of 11"):
        again = record(paths)
    assert again.shards == 2
    trace = es.open_trace(tmp_path / "run.zarr")
    assert trace["lstm"].sizes["time"] == 18
    assert trace["lstm"].length.values.tolist() == [*LENGTHS[:5], 18, *LENGTHS[6:9], 0, 11]
    check(trace.isel(batch=[2]), rows=[2])
    check(trace.isel(batch=range(6, 9)), rows=range(6, 9))


def test_a_second_run_does_only_what_is_missing(record, sequences, check, tmp_path):
    paths = [tmp_path / f"{k}.npy" for k in range(11)]
    for path, values in zip(paths, sequences, strict=True):
        np.save(path, values)
    record(paths)
    marks = sorted((tmp_path / "run.zarr" / MARKS).iterdir())
    assert len(marks) == 6
    for path in paths:
        path.unlink()  # what is done is not even opened
    assert record(paths).shards == 0
    for path, values in zip(paths, sequences, strict=True):
        np.save(path, values)
    marks[2].unlink()
    marks[4].write_text("{}")
    before = {mark: mark.stat().st_mtime_ns for mark in marks if mark.exists()}
    assert record(paths).shards == 2
    changed = [m.name for m in marks if before.get(m) != m.stat().st_mtime_ns]
    assert changed == [marks[2].name, marks[4].name]
    check(es.open_trace(tmp_path / "run.zarr"))


def test_a_run_that_is_stopped_goes_on(record, sequences, check, tmp_path):
    class StopError(Exception):
        pass

    def stop(done, total):
        if done >= 4:
            raise StopError

    with pytest.raises(StopError):
        record(sequences, progress=stop)
    with pytest.raises(IncompleteTraceError, match=r"of 6 shards are done, of 2 rows each"):
        es.open_trace(tmp_path / "run.zarr")
    part = es.open_trace(tmp_path / "run.zarr", incomplete="trim")
    rows = part["lstm"].batch.values.tolist()
    assert 4 <= len(rows) < 11
    check(part, rows=rows)
    assert part.attrs["complete"] == 0
    record(sequences)
    check(es.open_trace(tmp_path / "run.zarr"))


def test_object_stores_by_url(record, sequences, check):
    store = "memory://bucket/run.zarr"
    record(sequences, store=store)
    trace = es.open_trace(store)
    check(trace)
    assert list(trace["lstm"].data_vars)[:2] == ["h", "c"]
    assert record(sequences, store=store).shards == 0
    import fsspec

    fs = fsspec.filesystem("memory")
    fs.rm(f"/bucket/run.zarr/{MARKS}/00000003.json")
    assert record(sequences, store=store).shards == 1
    fs.rm("/bucket", recursive=True)


def test_file_urls_are_folders(record, sequences, check, tmp_path):
    record(sequences, store=f"file://{tmp_path}/run.zarr")
    check(es.open_trace(f"file://{tmp_path}/run.zarr"))


def test_zarr_inputs(record, sequences, check, tmp_path):
    block = np.full((11, 12, 3), np.nan)
    for row, values in enumerate(sequences):
        block[row, : len(values)] = values
    group = zarr.open_group(str(tmp_path / "in.zarr"), mode="w")
    group.create_array("x", data=block, chunks=(4, 12, 3))
    group.create_array("length", data=np.array(LENGTHS))
    record(str(tmp_path / "in.zarr"))
    check(es.open_trace(tmp_path / "run.zarr"))
    record(Arrays(group["x"], LENGTHS), store=tmp_path / "b.zarr")
    check(es.open_trace(tmp_path / "b.zarr"))


def test_parquet_inputs(record, sequences, check, tmp_path):
    pa = importorskip("pyarrow")
    from pyarrow import parquet

    def write(name, rows):
        key, values = zip(*((k, v) for k, row in rows for v in sequences[k][row]), strict=True)
        columns = {n: np.array(values)[:, f] for f, n in enumerate("abc")}
        parquet.write_table(pa.table({"id": key, **columns}), tmp_path / "set" / name)

    (tmp_path / "set").mkdir()
    write("0.parquet", [(k, slice(None)) for k in range(5)] + [(5, slice(0, 4))])
    write("1.parquet", [(5, slice(4, None))] + [(k, slice(None)) for k in range(6, 11)])
    record(tmp_path / "set")
    trace = es.open_trace(tmp_path / "run.zarr")
    check(trace)
    assert trace["lstm"].source.values.tolist() == [str(k) for k in range(11)]
    with pytest.raises(InputError, match=r"there are id, a, b, c\. Name it"):
        Parquet(tmp_path / "set", sequence="machine")


def test_selected_steps_units_and_variables(record, sequences, expected, tmp_path):
    select = es.Select(variables="c", units=[4, 1], every=3, window=(1, None), dtype="float32")
    record(sequences, select=select)
    layer = es.open_trace(tmp_path / "run.zarr")["lstm"]
    assert layer.time.values.tolist() == [1, 4, 7, 10]
    assert layer.unit.values.tolist() == [4, 1]
    assert layer.c.dtype == np.float32
    for row, length in enumerate(LENGTHS):
        steps = [t for t in (1, 4, 7, 10) if t < length]
        found = layer.c.values[row]
        np.testing.assert_allclose(found[: len(steps)], expected[row]["c"][steps][:, [4, 1]], 1e-6)
        assert np.isnan(found[len(steps) :]).all()


@pytest.fixture
def torch():
    return importorskip("torch")


def test_models_of_a_framework_time_first(record, sequences, torch, tmp_path):
    torch.manual_seed(0)
    state = torch.nn.LSTM(3, 4, bidirectional=True).state_dict()

    def load_model():
        model = torch.nn.LSTM(3, 4, bidirectional=True)
        model.load_state_dict(state)
        return model

    record(sequences, load_model=load_model, batching=Batching(rows=4, time_first=True))
    trace = es.open_trace(tmp_path / "run.zarr")
    for row, values in enumerate(sequences):
        alone = es.record(load_model(), values[:, None])
        for way in ("forward", "backward"):
            for name in ("h", "c", "o"):
                found = trace[f"lstm/{way}"][name].values[row, : len(values)]
                np.testing.assert_allclose(found, alone[f"lstm/{way}"][name].values[0], atol=1e-6)
    with pytest.raises(InputError, match="changes when it is padded"):
        record(
            sequences,
            load_model=load_model,
            store=tmp_path / "b.zarr",
            batching=Batching(time_first=True, pad=True),
        )
    with pytest.raises(InputError, match=r"recorded as batch 3, time 1.*Batching\(time_first=True"):
        record(sequences[2:3], load_model=load_model, store=tmp_path / "c.zarr")


def test_each_worker_loads_the_model_once(record, sequences, weights, tmp_path):
    log = str(tmp_path / "loads")

    def load_model():
        from everystate.frameworks.numpy import load

        with open(log, "a") as file:
            file.write(f"{threading.get_ident()}\n")
        return load(weights)

    record(sequences, load_model=load_model, batching=Batching(rows=1))
    loads = (tmp_path / "loads").read_text().split()
    assert 1 <= len(loads) <= 2
    assert len(set(loads)) == len(loads)


def test_random_weights_are_refused(record, sequences, torch):
    class Slow(torch.nn.Module):  # so that one worker cannot do it all before the other begins
        def __init__(self):
            super().__init__()
            self.lstm = torch.nn.LSTM(3, 4, batch_first=True)

        def forward(self, x):
            time.sleep(0.05)
            return self.lstm(x)

    def load_model():
        return Slow()

    with pytest.raises(WeightsError, match="gives other weights each time"):
        record([*sequences] * 3, load_model=load_model, batching=Batching(rows=1))


@pytest.mark.parametrize(
    ("inputs", "error", "said"),
    [
        ([], InputError, "got no inputs; expected a Zarr array"),
        (7, InputTypeError, "inputs of type int"),
        (["a.npy", np.zeros((2, 3))], InputTypeError, "a list of paths and other things"),
        ("nowhere.zarr", InputError, "nothing at this path"),
        (np.zeros((4, 3)), InputError, r"shape \(4, 3\), expected \(sequence, step, feature\)"),
        (np.zeros((0, 4, 3)), InputError, "got no sequences"),
        (
            [np.zeros((0, 3))],
            InputError,
            "none of 1 sequences can be read. sequence 0: has no steps",
        ),
        (["gone.npy", "lost.npy"], InputError, "none of 2 sequences can be read"),
        (["series.csv"], InputError, r"expected .npy or .npz. For other files give a function"),
        ([np.array([["a"]])], InputError, "expected numbers of shape"),
        ([np.zeros((4, 9))], InputError, "9"),
    ],
)
def test_inputs_that_cannot_be_recorded(record, inputs, error, said, tmp_path):
    with pytest.raises(error, match=said):
        record(inputs)
    assert not (tmp_path / "run.zarr" / "zarr.json").exists()


def test_lengths_that_do_not_fit():
    with pytest.raises(InputError, match="a whole number for each of 3 sequences"):
        Arrays(np.zeros((3, 4, 2)), lengths=[4, 4])
    with pytest.raises(InputError, match="from 1 to 5, but there are 4 steps"):
        Arrays(np.zeros((3, 4, 2)), lengths=[4, 1, 5])


def test_a_reader_of_ones_own(record, sequences, check, tmp_path):
    for k, values in enumerate(sequences):
        (tmp_path / f"{k}.json").write_text(json.dumps(values.tolist()))

    def read(path):
        with open(path) as file:
            return json.load(file)

    record(Files([tmp_path / f"{k}.json" for k in range(11)], read=read))
    check(es.open_trace(tmp_path / "run.zarr"))


def test_models_that_cannot_be_loaded(record, sequences, torch):
    lock = threading.Lock()
    with pytest.raises(InputTypeError, match=r"cannot be sent to workers: .*lock"):
        record(sequences, load_model=lambda: lock)
    with pytest.raises(InputTypeError, match="a model itself, of type LSTM"):
        record(sequences, load_model=torch.nn.LSTM(3, 4))
    with pytest.raises(InputTypeError, match="of type int, expected a function"):
        record(sequences, load_model=3)

    def broken():
        raise OSError("no weights here")

    with pytest.raises(UnsupportedModelError, match="failed: OSError: no weights here"):
        record(sequences, load_model=broken)
    with pytest.raises(UnsupportedModelError):
        record(sequences, load_model=lambda: "no model")


def test_places_that_are_taken(record, sequences, weights, tmp_path):
    store = tmp_path / "run.zarr"
    store.mkdir()
    (store / "notes.txt").write_text("mine")
    with pytest.raises(TraceWriteError, match="record_many did not begin"):
        record(sequences)
    assert (store / "notes.txt").read_text() == "mine"
    (store / "notes.txt").unlink()
    record(sequences)
    with pytest.raises(TraceWriteError, match="the 10 given now are others"):
        record(sequences[1:])
    with pytest.raises(TraceWriteError, match="was begun with Select"):
        record(sequences, select=es.Select(every=2))
    file = tmp_path / "file"
    file.write_text("")
    with pytest.raises(TraceWriteError):
        record(sequences, store=file)


def test_other_weights_do_not_go_on(record, sequences, tensors, tmp_path):
    from safetensors.numpy import save_file

    record(sequences)
    save_file({n: a * 1.01 for n, a in tensors.items()}, tmp_path / "other.safetensors")
    for missing in (0, 1):
        if missing:
            next((tmp_path / "run.zarr" / MARKS).iterdir()).unlink()
        with pytest.raises(TraceWriteError, match="or other weights: lstm: h differs"):
            record(sequences, load_model=tmp_path / "other.safetensors")
    for row in (0, 2, len(sequences) - 1):
        others = [values + (k == row) for k, values in enumerate(sequences)]
        with pytest.raises(TraceWriteError, match=f"other values of sequence {row}\\."):
            record(others)
    assert record(sequences).shards == 1


@pytest.mark.parametrize("missing", [0, 1])
def test_another_layer_before_a_recurrent_one_does_not_go_on(
    record, sequences, torch, tmp_path, missing
):
    def model(seed):
        torch.manual_seed(seed)
        before = torch.nn.Linear(3, 4)
        torch.manual_seed(0)
        return torch.nn.Sequential(before, torch.nn.LSTM(4, 5, batch_first=True)).double()

    record(sequences, load_model=lambda: model(1))
    if missing:
        next((tmp_path / "run.zarr" / MARKS).iterdir()).unlink()
    with pytest.raises(TraceWriteError, match=r"another model .* layer before it"):
        record(sequences, load_model=lambda: model(2))
    assert record(sequences, load_model=lambda: model(1)).shards == missing


def test_two_recordings_at_one_place(record, sequences, tmp_path):
    errors = []

    def again(done, total):
        if not errors:
            with pytest.raises(TraceWriteError, match="another process records here now") as error:
                record(sequences)
            errors.append(error)

    record(sequences, progress=again)
    assert errors


@pytest.mark.parametrize(
    ("client", "error", "said"),
    [
        ("tcp://127.0.0.1:9", ClusterError, "Is the scheduler running"),
        (0, SelectionError, "expected 1 process or more"),
        (2.5, SelectionError, "the address of a scheduler, a number of processes"),
    ],
)
def test_clusters_that_cannot_be_reached(record, sequences, client, error, said, monkeypatch):
    monkeypatch.setattr("everystate.scale.cluster.TIMEOUT", 0.2)
    with pytest.raises(error, match=said):
        record(sequences, client=client)


def test_processes_that_cannot_be_started(record, sequences, monkeypatch):
    def fail(**options):
        raise RuntimeError("Nanny failed to start.")

    monkeypatch.setattr("distributed.LocalCluster", fail)
    with pytest.raises(ClusterError, match=r"failed to start\. Workers could not .*__main__"):
        record(sequences, client=2)


@pytest.mark.parametrize(
    "options", [{"batch": 0}, {"rows": 0}, {"memory": "much"}, {"memory": 0}, {"batch": 1.5}]
)
def test_batching_that_cannot_mean_anything(options):
    with pytest.raises(SelectionError, match=next(iter(options))):
        Batching(**options)


def test_a_window_from_the_end_of_ragged_sequences(record, sequences):
    with pytest.raises(SelectionError, match="which is not the same step in sequences of 1 to 12"):
        record(sequences, select=es.Select(window=(-3, None)))


def test_a_sequence_larger_than_the_memory_goes_by_way_of_the_disk(
    record, sequences, check, tmp_path, monkeypatch
):
    called = []
    monkeypatch.setattr(
        "everystate.scale.worker.record_in_chunks", lambda *a: called.append(a) or far(*a)
    )
    from everystate.scale.long import record_in_chunks as far

    record(sequences, batching=Batching(memory=2000))
    assert sorted(made.rows.start for made, _ in called) == [
        k for k, n in enumerate(LENGTHS) if n > 8
    ]
    trace = es.open_trace(tmp_path / "run.zarr")
    check(trace)
    assert trace["lstm"].attrs["max_error_c"] < 1e-12
