"""Examples in folders: run as a user would, or imported to look at a part."""

import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

from everystate.testing import importorskip

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture
def examples():
    """Return the folder of all examples."""
    return EXAMPLES


@pytest.fixture
def run_example(tmp_path):
    """Return a function that runs a script in an empty folder and returns what it prints."""
    importorskip("torch")
    importorskip("sklearn")

    def run(script, *arguments):
        command = [sys.executable, EXAMPLES / script, *arguments]
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=300, cwd=tmp_path, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run


@pytest.fixture
def example_module(monkeypatch):
    """Return a function that imports a module of an example as its scripts do."""
    importorskip("torch")
    taken = set(sys.modules)

    def load(folder, name):
        monkeypatch.syspath_prepend(EXAMPLES / folder)
        return import_module(name)

    yield load
    for name in set(sys.modules) - taken:
        if str(EXAMPLES) in str(getattr(sys.modules[name], "__file__", "")):
            del sys.modules[name]
