"""The program as a process: how fast it starts, what it loads, its streams, its exit codes."""

import json
import os
import pty
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

import everystate as es
from everystate.testing import importorskip

PROGRAM = str(Path(sys.executable).with_name("everystate"))
SLOW = ("torch", "tensorflow", "jax", "bokeh", "pandas", "pyarrow", "xarray", "zarr", "numpy")
WITHOUT = ("torch", "tensorflow", "jax", "bokeh", "jinja2", "pyarrow")


def start(*args, **options):
    return subprocess.run(
        [PROGRAM, *map(str, args)], capture_output=True, text=True, check=False, **options
    )


def python(code, *args):
    command = [sys.executable, "-c", code, *map(str, args)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_it_runs_as_a_module_too(folder):
    command = [sys.executable, "-m", "everystate", "--version"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, start("--version").stdout)


def test_help_is_there_at_once(folder):
    seconds = []
    for _ in range(3):
        begin = time.process_time_ns(), os.times().children_user
        assert start("--help").returncode == 0
        seconds.append(os.times().children_user - begin[1])
    assert min(seconds) < 0.5


@pytest.mark.parametrize("args", [["--help"], ["--version"], ["record", "--help"]])
def test_help_loads_nothing_slow(folder, args):
    code = (
        "import sys\n"
        "from everystate.cli.main import app\n"
        f"try:\n    app({args!r})\nexcept SystemExit:\n    pass\n"
        f"print('loaded', [name for name in {SLOW!r} if name in sys.modules])"
    )
    said = python(code).stdout
    assert ("everystate " if args == ["--version"] else "Usage: ") in said
    assert said.endswith("loaded []\n")


def test_every_command_says_what_it_does(run):
    done = run("--help")
    for name in ("record", "summary", "report", "diagnose", "compare", "demo", "info"):
        assert f" {name} " in done.out
        assert run(name, "--help").code == 0
    assert "Exit codes: 0 done; 1 an error" in " ".join(done.out.split())


def test_the_core_is_enough(weights, data):
    """Recording, summary, compare and info without any of the extras."""
    code = (
        "import sys\n"
        "class Missing:\n"
        "    def find_spec(self, name, *_):\n"
        f"        if name.partition('.')[0] in {WITHOUT!r}:\n"
        "            raise ModuleNotFoundError(f'No module named {name!r}', name=name)\n"
        "sys.meta_path.insert(0, Missing())\n"
        "from everystate.cli.main import app\n"
        "for line in sys.argv[1:]:\n"
        "    try:\n        app(line.split())\n"
        "    except SystemExit as end:\n        print('exit', end.code)\n"
    )
    record = f"record {weights} {data} -o run.zarr"
    lines = (record, "summary run.zarr", "compare run.zarr run.zarr", "info run.zarr")
    done = python(code, *lines, "report run.zarr")
    codes = [line for line in done.stdout.splitlines() if line.startswith("exit ")]
    assert codes == ["exit 0"] * 4 + ["exit 1"]
    assert "pip install 'everystate[report]'" in done.stderr
    assert "Traceback" not in done.stderr


def test_streams_and_exit_codes(weights, data):
    done = start("record", weights, data, "-o", "run.zarr", "--json")
    assert done.returncode == 0
    assert done.stderr == ""
    assert json.loads(done.stdout)["trace"] == "run.zarr"
    done = start("record", weights, data, "-o", "run.zarr")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("everystate: error: run.zarr is taken.")
    assert start("record", weights).returncode == 2
    half = es.record(weights, np.load(data), select=es.Select(dtype="float16"))
    es.save_trace(half, "half.zarr")
    assert start("compare", "run.zarr", "half.zarr", "--tolerance", "1e-6").returncode == 3


def test_debug_shows_the_traceback(weights, data):
    done = start("--debug", "record", weights, data, "-o", "run.zarr", "--every", "0")
    assert done.returncode == 1
    assert "Traceback" in done.stderr
    assert "SelectionError: every=0" in done.stderr


def test_the_current_folder_is_searched_for_the_model(folder):
    importorskip("torch")
    Path("mine.py").write_text("import torch\nlstm = torch.nn.LSTM(2, 3)\n")
    done = start("info", "mine:lstm", "--json")
    assert json.loads(done.stdout)["layers"] == ["lstm"]


@contextmanager
def on_terminal(*args) -> Iterator[tuple[subprocess.Popen, int]]:
    """A command whose stderr is a terminal, and the other end of it."""
    here, there = pty.openpty()
    process = subprocess.Popen(
        [PROGRAM, *map(str, args)], stdout=subprocess.PIPE, stderr=there, text=True
    )
    os.close(there)
    try:
        yield process, here
    finally:
        process.kill()
        process.wait()
        os.close(here)


def until(terminal: int, text: str) -> str:
    """Read from a terminal until a text appears, or its program has ended."""
    seen = ""
    while text not in seen:
        try:
            seen += os.read(terminal, 4096).decode()
        except OSError:  # how Linux says that the other end was closed
            break
    return seen


@pytest.fixture
def long(folder):
    np.save("long.npy", np.zeros((400_000, 2), np.float32))
    return Path("long.npy")


def test_progress_and_interruption(weights, long):
    with on_terminal("record", weights, long, "-o", "run.zarr") as (process, terminal):
        assert "recording" in until(terminal, "recording")
        process.send_signal(signal.SIGINT)
        rest = until(terminal, "interrupted.")
        assert process.wait(timeout=60) == 130
        assert process.stdout.read() == ""
    assert "interrupted while recording: nothing was written to run.zarr." in rest
    assert not Path("run.zarr").exists()


def test_json_stays_clean_beside_a_bar(weights, folder):
    np.save("long.npy", np.zeros((60_000, 2), np.float32))
    args = ("record", weights, "long.npy", "-o", "run.zarr", "--json", "--variables", "h")
    with on_terminal(*args) as (process, terminal):
        shown = until(terminal, "nothing of the kind")
        assert process.wait(timeout=120) == 0
        assert json.loads(process.stdout.read())["trace"] == "run.zarr"
    assert "recording" in shown
    assert es.open_trace("run.zarr")["encoder"].sizes["time"] == 60_000
