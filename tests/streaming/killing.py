"""Recordings in processes of their own that are killed (SIGKILL) at any moment, and resumed.

``python tests/streaming/killing.py 60`` does so 60 times and says what it found; the tests do it
a few times. One process imports the libraries and forks, so that a kill costs no start.
"""

import json
import random
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

import numpy as np

KILLED = -9
RECORDER = """
import json, os, signal, sys, threading
import numpy as np, torch, xarray
import everystate as es
import everystate.streaming.sequence
import everystate.storage.append
from everystate.analysis.reducers import (
    Autocorrelation, Covariance, Histogram, Moments, Quantiles, Range, Saturation, TopSteps
)
from everystate.storage import layout

layout.SHARD_BYTES, layout.CHUNK_BYTES = 4 * 2 * 5 * 64, 4 * 2 * 5 * 32
torch.set_num_threads(1)

KINDS = (
    Autocorrelation(lags=(1, 7, 130)), Covariance(), Histogram(), Moments(), Quantiles(k=20000),
    Range(), Saturation(), TopSteps(count=5, context=9),
)

def job(path, resume, seconds, rename, select, reduce, full):
    torch.manual_seed(0)
    model = torch.nn.LSTM(3, 5, num_layers=2)
    count, replace = [0], os.replace
    def counted(*args, **kwargs):
        count[0] += 1
        if count[0] == rename:
            os.kill(os.getpid(), signal.SIGKILL)
        return replace(*args, **kwargs)
    os.replace = counted
    if seconds:
        timer = threading.Timer(seconds, os.kill, (os.getpid(), signal.SIGKILL))
        timer.daemon = True
        timer.start()
    options = {"resume": resume, "chunk": 128, "select": es.Select(**select)}
    if reduce:
        options |= {"reduce": KINDS, "full": full}
    es.record(model, sys.argv[1], store=path, **options)
    return count[0]

for line in sys.stdin:
    child = os.fork()
    if child == 0:
        renames = job(**json.loads(line))
        with open(sys.argv[2], "w") as file:
            file.write(str(renames))
        os._exit(0)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


class Recording:
    """Records ``x.npy`` in a folder, in processes that can be killed."""

    def __init__(self, folder: Path, steps: int) -> None:
        self.folder, self.count = folder, folder / "renames"
        x = np.random.default_rng(0).normal(size=(steps, 2, 3)).astype(np.float32)
        np.save(folder / "x.npy", x)
        command = [sys.executable, "-c", RECORDER, str(folder / "x.npy"), str(self.count)]
        self._process = subprocess.Popen(command, stdin=-1, stdout=-1, text=True)

    def run(
        self,
        path: Path,
        *,
        resume: bool = True,
        seconds: float = 0,
        rename: int = 0,
        select: dict | None = None,
        reduce: bool = False,
        full: bool = True,
    ) -> int:
        """Record, killed after some seconds or before its n-th rename; return `KILLED` or 0."""
        job = {"path": str(path), "resume": resume, "seconds": seconds, "rename": rename}
        job |= {"select": select or {}, "reduce": reduce, "full": full}
        self._process.stdin.write(json.dumps(job) + "\n")
        self._process.stdin.flush()
        return int(self._process.stdout.readline())

    @property
    def renames(self) -> int:
        """Files that the last complete recording renamed."""
        return int(self.count.read_text())

    def close(self) -> None:
        """End the process."""
        self._process.communicate()


def assert_beginning(path: Path, whole) -> int:
    """Check what a killed recording left; return the steps that can be opened, -1 if nothing."""
    import everystate as es
    from everystate.errors import IncompleteTraceError, TraceFormatError, TraceNotFoundError

    try:
        trace = es.open_trace(path, incomplete="trim")
    except TraceNotFoundError:
        return -1
    except IncompleteTraceError as error:
        assert "not one block" in str(error)  # noqa: PT017
        return 0
    except TraceFormatError as error:
        assert "reductions alone" in str(error)  # noqa: PT017
        es.open_reductions(path)  # killed behind the end
        return sys.maxsize
    for leaf in trace.leaves:
        for name, a in leaf.data_vars.items():
            begun = whole[leaf.path][name]
            if "time" in a.dims:
                begun = begun.isel(time=slice(0, a.sizes["time"]))
            np.testing.assert_array_equal(a, begun)
    return min(leaf.sizes["time"] for leaf in trace.leaves)


def assert_whole(path: Path, whole) -> None:
    """Check that a trace is bit for bit the one that nobody interrupted."""
    import xarray as xr

    import everystate as es

    got = es.open_trace(path)
    for leaf in whole.leaves:
        xr.testing.assert_identical(got[leaf.path].to_dataset().load(), leaf.to_dataset())
    assert got.groups == whole.groups
    assert not list(path.glob("everystate.state*"))


def assert_same_reductions(path: Path, whole) -> None:
    """Check that reductions are bit for bit those of a recording that nobody interrupted."""
    import xarray as xr

    import everystate as es

    got = es.open_reductions(path)
    assert got.groups == whole.groups
    for leaf in whole.leaves:
        xr.testing.assert_identical(got[leaf.path].to_dataset(), leaf.to_dataset())


def main(kills: int) -> None:
    """Kill that often, at random moments and before random renames; resume until it is complete."""
    import everystate as es

    folder = Path(tempfile.mkdtemp())
    recording, chance, found = Recording(folder, 3000), random.Random(0), Counter()
    ways = [
        {"select": {}},
        {"select": {"every": 3, "window": [100, 2900]}},
        {"select": {"every": 2}, "reduce": True},
        {"reduce": True, "full": False},
    ]
    wholes = []
    for k, way in enumerate(ways):
        path = folder / f"whole{k}.zarr"
        assert recording.run(path, **way) == 0
        trace = es.open_trace(path).load() if way.get("full", True) else None
        figures = es.open_reductions(path) if "reduce" in way else None
        wholes.append((way, trace, figures, recording.renames))
    done = runs = 0
    while done < kills:
        way, whole, figures, renames = wholes[runs % len(wholes)]
        path, runs, before = folder / f"{runs}.zarr", runs + 1, -1
        while True:
            how = {"seconds": chance.uniform(0.3, 3)}
            if chance.random() < 0.5:
                how = {"rename": chance.randrange(1, renames)}
            code = recording.run(path, **way, **how)
            if code == 0:
                break
            assert code == KILLED
            steps = assert_beginning(path, whole)
            assert steps >= before, "what was complete is lost"
            found["nothing" if steps < 0 else "part" if steps else "begun"] += 1
            before, done = steps, done + 1
        if whole is not None:
            assert_whole(path, whole)
        if figures is not None:
            assert_same_reductions(path, figures)
    recording.close()
    shutil.rmtree(folder)
    print(f"{done} kills in {runs} recordings, each equal in the end; left behind: {dict(found)}")  # noqa: T201


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 60)
