"""The examples of ``dynamic_rnn`` run, and what they compare is equal."""

import subprocess
import sys
from pathlib import Path

from everystate.testing import importorskip

importorskip("tensorflow")

EXAMPLES = Path(__file__).parents[3] / "examples" / "dynamic_rnn"


def printed(name: str) -> list[str]:
    command = [sys.executable, EXAMPLES / name]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return [line for line in done.stdout.splitlines() if ": " in line]


def test_three_cases() -> None:
    lines = printed("three_cases.py")
    assert lines[:3] == [
        "batch-major: c (3, 7, 5), h (3, 7, 5)",
        "last step is the final state: True",
        "h is the output: True",
    ]
    assert float(lines[3].split()[-1]) < 1e-6
    assert lines[4].startswith("time-major: c (7, 3, 5), difference")
    assert float(lines[4].split()[-1]) < 1e-6
    assert lines[5:] == ["lengths 7, 3, 5: steps of c [7 3 5]", "row 1 ends as it should: True"]


def test_from_files() -> None:
    assert printed("from_files.py") == [
        "restored: outputs as before: True",
        "restored: c (2, 9, 6), h of the second layer (2, 9, 4)",
        "frozen graph: /rnn/multi_rnn_cell/cell_0: c, h, i, f, g, o, initial_c, initial_h",
        "frozen graph: /rnn/multi_rnn_cell/cell_1: h, r, z, n, initial_h",
        "frozen graph: c as restored: True",
        "frozen graph: NaN past the length: True",
    ]
