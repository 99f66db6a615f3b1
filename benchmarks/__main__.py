"""All benchmarks: ``make bench``, or ``python -m benchmarks torch_lstm --rounds 20`` for one.

Each module of this folder with a function ``main(rounds)`` is one, and runs in a process of its
own: frameworks share neither threads nor memory.
"""

import argparse
import subprocess
import sys
from importlib import import_module
from pathlib import Path


def names() -> list[str]:
    """Return the benchmarks' names."""
    paths = sorted(Path(__file__).parent.glob("*.py"))
    return [path.stem for path in paths if "\ndef main(rounds: int)" in path.read_text()]


def main() -> None:
    """Run the benchmarks asked for, and print their tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(names())}")
    parser.add_argument("--rounds", type=int, default=7, help="rounds of which the best counts")
    options = parser.parse_args()
    if len(options.names) == 1:
        import_module(f"benchmarks.{options.names[0]}").main(options.rounds)
        return
    for name in options.names or names():
        command = [sys.executable, "-m", "benchmarks", name, "--rounds", str(options.rounds)]
        subprocess.run(command, check=True)
        print()


if __name__ == "__main__":
    main()
