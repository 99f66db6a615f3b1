"""Arterial blood pressure with one labelled anomaly: states against reconstruction and baselines.

The series (UCR 135, InternalBleeding16) and the network are those of ``everystate demo``, here in
PyTorch: an LSTM autoencoder of 64 units, trained on windows of 184 steps of the first 800 steps.

    python examples/anomaly/blood_pressure.py --report report.html

Needs PyTorch and scikit-learn (``pip install everystate[torch,analysis,report]``). Half a minute.
"""

import argparse
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file
from scoring import Case, Scorer
from seq2seq import Seq2Seq

import everystate as es
from everystate.demo.series import FIT, HELD_OUT, WEIGHTS, load_series

SHOWN = (
    "h and c after each window, nearest",
    "reconstruction error",
    "raw windows, Mahalanobis (no network)",
)
SMOOTH = 23  # an eighth of a window, as in the demo


def load() -> tuple[Seq2Seq, int, np.ndarray, np.ndarray]:
    """Return the network, its window, the standardised series (time, 1) and its labels (time,)."""
    tensors = load_file(WEIGHTS)
    mean, std, window = (tensors.pop(name).item() for name in ("mean", "std", "window"))
    model = Seq2Seq(channels=1, units=64)
    model.load_state_dict(tensors)
    series = load_series("TEST")
    labels = np.zeros(series.values.size, bool)
    labels[slice(*series.labelled)] = True
    x = ((series.values - np.float32(mean)) / np.float32(std))[:, None]
    return model.eval(), int(window), x, labels


def main() -> None:
    """Score the series, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--stride", type=int, default=4, help="steps from one window to the next")
    parser.add_argument("--steps", type=int, help="how much of the series to read; default: all")
    parser.add_argument("--report", type=Path, help="where to write a report")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    model, window, x, labels = load()
    x, labels = x[: arguments.steps], labels[: arguments.steps]
    scorer = Scorer(model, window, x[: HELD_OUT.stop], FIT, arguments.stride)
    scores = scorer(x, SMOOTH)
    case = Case(
        # No score looks ahead: those of the normal part are the beginning of those of the whole.
        normal={name: values[: HELD_OUT.stop] for name, values in scores.items()},
        held_out=HELD_OUT,
        scores=[scores],
        labels=labels[None],
        test=slice(HELD_OUT.stop, len(x)),
        memory=window + SMOOTH,
    )
    print(case.table())
    with torch.no_grad():
        trace = es.record(model.encoder, torch.from_numpy(x)[None])
        normal = es.record(model.encoder, torch.from_numpy(x[FIT])[None])
    found = es.diagnose(trace, normal, trained_on=window)
    print(f"\nwhat es.diagnose says of one long pass:\n{found}")
    if arguments.report:
        first, *_, last = np.flatnonzero(labels)
        shown = {"arterial blood pressure, standardised": x[:, 0]}
        shown |= {name: scores[name] for name in SHOWN}
        marks = {"labelled": (int(first), int(last))}
        title = "Arterial blood pressure with one labelled anomaly"
        es.report(trace, arguments.report, title=title, series=shown, marks=marks, findings=found)
        print(f"\nwrote {arguments.report}")


if __name__ == "__main__":
    main()
