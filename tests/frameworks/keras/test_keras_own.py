"""Keras' own numeric tests pass, each call recorded and verified (see `run_keras_own`)."""

import os
import re
import subprocess
import sys
from pathlib import Path

from everystate.testing import importorskip

importorskip("keras")

FILES = ("lstm_test", "gru_test", "rnn_test", "bidirectional_test")


def test_keras_own_tests_pass_with_each_call_verified():
    runner = Path(__file__).parent / "run_keras_own.py"
    files = [f"keras.src.layers.rnn.{name}" for name in FILES]
    environment = {**os.environ, "KERAS_BACKEND": "tensorflow"}
    ran = subprocess.run(
        [sys.executable, str(runner), "-k", "not basics", *files],
        env=environment,
        capture_output=True,
        text=True,
    )
    assert ran.returncode == 0, ran.stdout[-4000:] + ran.stderr[-1000:]
    counts = {name: int(count) for name, count in re.findall(r"(\w+)=(\d+)", ran.stdout)}
    assert counts["LSTM"] > 20
    assert counts["RNN"] > 20
    assert counts["verified"] > 40
