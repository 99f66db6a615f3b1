"""All benchmarks: ``make bench``, or ``python -m benchmarks --rounds 20``."""

import argparse

from benchmarks import import_time, onnx_lstm, torch_lstm


def main() -> None:
    """Run every benchmark and print its table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7, help="rounds of which the best counts")
    options = parser.parse_args()
    for benchmark in (torch_lstm, onnx_lstm, import_time):
        benchmark.main(options.rounds)
        print()


if __name__ == "__main__":
    main()
