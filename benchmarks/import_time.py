"""What importing everystate costs beside starting Python."""

import subprocess
import sys

from benchmarks.timing import best_of


def run(code: str) -> None:
    """Run one line in a fresh interpreter."""
    subprocess.run([sys.executable, "-c", code], check=True)


def main(rounds: int) -> None:
    """Print the seconds that each import adds to an interpreter's start."""
    lines = ["pass", "import everystate", "import xarray", "from everystate import record"]
    start, *others = best_of([lambda line=line: run(line) for line in lines], rounds)
    print("seconds more than starting Python:")
    for line, seconds in zip(lines[1:], others, strict=True):
        print(f"  {line:<32} {seconds - start:5.2f} s")
