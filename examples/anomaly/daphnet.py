"""Nine channels of a walking person: the states of an LSTM when a sensor fails.

    python examples/anomaly/daphnet.py --rounds 5 --report report.html

Needs PyTorch and scikit-learn (``pip install everystate[torch,analysis,report]``). Half a minute.
"""

import argparse
from pathlib import Path

import numpy as np
import torch
from scoring import RATE, Case, Scorer
from seq2seq import WINDOW, load_model
from series import FIT, HELD_OUT, TEST, Planted, load_channels, plant

import everystate as es
from everystate.analysis.alerts import Watch, alerts
from everystate.analysis.anomaly import fit_detector, top_contributors

SHOWN = (
    "h and c after each window, nearest",
    "raw windows, nearest (no network)",
    "reconstruction error",
)
SMOOTH = WINDOW // 2


def blame(model: torch.nn.Module, normal: np.ndarray, planted: Planted) -> None:
    """Print which units and gates each fault shows in."""
    with torch.no_grad():
        baseline, faulty = (
            es.record(model.encoder, torch.from_numpy(x)[None])["lstm"] for x in (normal, planted.x)
        )
    detector = fit_detector(baseline.isel(time=FIT), "nearest", ("h", "gates"))
    scored = detector.score(faulty)
    print("\nwhat each fault shows in (one long pass; share of the squared score):")
    for name, (start, stop) in planted.places.items():
        top = top_contributors(scored.isel(time=slice(start, stop)), count=3)
        units = ", ".join(
            f"{variable}[{unit}] {share:.0%}"
            for variable, unit, share in zip(
                top["variable"].values, top["unit"].values, top.share.values, strict=True
            )
        )
        gates = ", ".join(f"{n} {s:.0%}" for n, s in top.share_of_variable.to_series().items())
        print(f"  {name:<10} steps {start} to {stop - 1}: {units}; {gates}")


def write_report(
    model: torch.nn.Module, planted: Planted, scores: dict[str, np.ndarray], path: Path
) -> None:
    """Write a report of the part with faults, which are marked."""
    first = TEST.start - 2 * WINDOW
    with torch.no_grad():
        trace, normal, held_out = (
            es.record(model.encoder, torch.from_numpy(planted.x[None, part]))
            for part in (slice(first, None), FIT, HELD_OUT)
        )
    marks = {name: (a - first, b - 1 - first) for name, (a, b) in planted.places.items()}
    shown = {"channels, standardised": planted.x[first:]}
    shown |= {name: scores[name][first:] for name in SHOWN}
    watch = Watch("nearest", window=SMOOTH, false_alarm_rate=RATE, gap=WINDOW)
    found = [*es.diagnose(trace, normal), *alerts(trace, normal, held_out, watch)]
    title = "Daphnet S06R02E0 with planted faults"
    es.report(trace, path, title=title, series=shown, marks=marks, findings=found)
    print(f"\nwrote {path}")


def main() -> None:
    """Score the series with faults planted in several places, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5, help="series with six faults each")
    parser.add_argument("--report", type=Path, help="where to write a report")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    model, normal = load_model(), load_channels()
    scorer = Scorer(model, WINDOW, normal, FIT)
    rounds = [plant(normal, seed) for seed in range(arguments.rounds)]
    case = Case(
        normal=scorer(normal, SMOOTH),
        held_out=HELD_OUT,
        scores=[scorer(planted.x, SMOOTH) for planted in rounds],
        labels=np.stack([planted.labels for planted in rounds]),
        test=TEST,
        memory=WINDOW + SMOOTH,
    )
    print(case.table())
    print("\nthe same steps without any fault, share in alarm:")
    for name, values in case.normal.items():
        print(f"  {name:<42}{(values[TEST] > case.threshold(name).value).mean():>7.1%}")
    blame(model, normal, rounds[0])
    if arguments.report:
        write_report(model, rounds[0], case.scores[0], arguments.report)


if __name__ == "__main__":
    main()
