"""Processes that die: a worker, the whole call, the scheduler; nothing is lost or done wrongly."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import psutil
import pytest

import everystate as es
from everystate.analysis.reducers import Moments
from everystate.errors import ClusterError, IncompleteTraceError
from everystate.scale import Batching, Files, connected, record_many
from everystate.testing import importorskip

dask = importorskip("dask")
distributed = importorskip("distributed")

ROWS = Batching(rows=1)


@pytest.fixture(scope="module")
def processes():
    """Return a client of two processes, and see afterwards that they are gone."""
    before = set(psutil.Process().children(recursive=True))
    once = {"distributed.scheduler.allowed-failures": 1}
    with dask.config.set(once), connected(2) as client:
        workers = set(psutil.Process().children(recursive=True)) - before
        yield client
    workers = {p for p in workers if "tracker" not in " ".join(cmdline_of(p))}
    _, alive = psutil.wait_procs(workers, timeout=10)
    assert alive == []


def cmdline_of(process):
    try:
        return process.cmdline()
    except psutil.Error:
        return []


def test_what_a_killed_worker_was_at_is_done_by_another(
    processes, weights, sequences, check, expected, tmp_path
):
    pids = list(processes.run(os.getpid).values())
    killed = []

    def kill(done, total):
        if done >= 3 and not killed:
            os.kill(pids[0], signal.SIGKILL)
            killed.append(pids[0])

    store = tmp_path / "run.zarr"
    options = {"client": processes, "batching": ROWS, "progress": kill, "reduce": Moments()}
    done = record_many(weights, sequences * 2, store, **options)
    assert killed
    assert pids[0] not in processes.run(os.getpid).values()
    assert (done.shards, done.failed) == (22, {})
    trace = es.open_trace(store)
    check(trace.isel(batch=slice(0, 11)))
    check(trace.isel(batch=slice(11, 22)))
    made = es.open_reductions(store)["lstm/c/moments"]
    wanted = [values["c"].std(axis=0) for values in expected] * 2
    np.testing.assert_allclose(made["std"], wanted, atol=1e-12)


def test_a_sequence_that_kills_every_worker_is_told(processes, weights, sequences, tmp_path):
    paths = [tmp_path / name for name in ("a.npy", "deadly.npy", "b.npy")]
    for path in paths:
        np.save(path, sequences[0])

    def read(path):
        if path.endswith("deadly.npy") and Path(path).with_name("armed").exists():
            os.kill(os.getpid(), signal.SIGKILL)
        return np.load(path)

    def arm(done, total):
        (tmp_path / "armed").touch()

    options = {"client": processes, "batching": ROWS, "progress": arm}
    # Dask may blame one that was on both workers that died, too: the next call does it.
    with pytest.raises(ClusterError, match=r"sequences \d to \d: \d workers died over it.* of 3"):
        record_many(weights, Files(paths, read=read), tmp_path / "run.zarr", **options)
    part = es.open_trace(tmp_path / "run.zarr", incomplete="trim")
    assert set(part["lstm"].batch.values.tolist()) <= {0, 2}
    (tmp_path / "armed").unlink()
    del options["progress"]
    record_many(weights, Files(paths, read=read), tmp_path / "run.zarr", **options)
    whole = es.open_trace(tmp_path / "run.zarr")
    assert whole["lstm"].batch.values.tolist() == [0, 1, 2]


SCRIPT = """
import sys
import numpy as np
import everystate as es

if __name__ == "__main__":
    weights, data, store = sys.argv[1:]
    file = np.load(data)
    es.scale.record_many(
        weights, [file[name] for name in file], store, client=2,
        batching=es.scale.Batching(rows=1), progress=lambda done, total: print(done, flush=True),
    )
"""


def test_a_killed_call_goes_on_where_it_was(weights, sequences, check, threads, tmp_path):
    script, data, store = tmp_path / "run.py", tmp_path / "data.npz", tmp_path / "run.zarr"
    script.write_text(SCRIPT)
    np.savez(data, *sequences)
    run = subprocess.Popen(
        [sys.executable, script, weights, data, store], stdout=subprocess.PIPE, text=True
    )
    children = []
    for line in run.stdout:
        if int(line) >= 2:
            children = psutil.Process(run.pid).children(recursive=True)
            run.kill()
            break
    run.wait()
    _, alive = psutil.wait_procs(children, timeout=60)
    assert alive == []
    with pytest.raises(IncompleteTraceError, match="of 11 shards are done"):
        es.open_trace(store)
    done = record_many(weights, sequences, store, client=threads, batching=ROWS)
    assert 0 < done.shards <= 9
    check(es.open_trace(store))


def test_a_scheduler_that_is_gone(weights, sequences, check, threads, tmp_path):
    store = tmp_path / "run.zarr"
    with distributed.LocalCluster(
        n_workers=1, threads_per_worker=1, processes=False, dashboard_address="127.0.0.1:0"
    ) as cluster:

        def stop(done, total):
            if done == 2:
                cluster.close()

        options = {"batching": ROWS, "progress": stop}
        client = distributed.Client(cluster, timeout=2)
        with pytest.raises(ClusterError, match="connection to the cluster's scheduler was lost"):
            record_many(weights, sequences, store, client=client, **options)
    record_many(weights, sequences, store, client=threads, batching=ROWS)
    check(es.open_trace(store))
