"""TensorFlow's own tests of ``dynamic_rnn``, with ours in its place.

They are not in TensorFlow's wheel: set EVERYSTATE_TENSORFLOW_SOURCE to a checkout of
TensorFlow's repository, of the version that is installed.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from everystate.testing import importorskip

importorskip("tensorflow")

SOURCE = os.environ.get("EVERYSTATE_TENSORFLOW_SOURCE")
FOLDER = Path("tensorflow/python/kernel_tests/nn_ops")


@pytest.mark.skipif(not SOURCE, reason="EVERYSTATE_TENSORFLOW_SOURCE is not set")
@pytest.mark.parametrize("name", ["rnn_test.py", "rnn_cell_test.py"])
def test_tensorflows_own_tests_pass(name: str) -> None:
    runner = Path(__file__).with_name("run_tensorflow_own.py")
    path = Path(SOURCE or "") / FOLDER / name
    command = [sys.executable, runner, path]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr[-4000:]
