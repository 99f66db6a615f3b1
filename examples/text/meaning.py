"""What units of a character-level LSTM mean: quotes, the place in the line, the place in a word.

Records every state over six chapters that the network was not trained on, asks which units follow
what is known of each character, whether all of them together tell it to a probe, and where else the
states do what they do in a chosen stretch.

    python examples/text/meaning.py --report report.html

Needs PyTorch, scikit-learn and SciPy (``pip install everystate[torch,analysis,report]``). A minute.
"""

import argparse
from pathlib import Path

import numpy as np
import torch
import xarray as xr
from safetensors import safe_open
from safetensors.torch import load_file
from train import CharLSTM, bits_per_character, load_book, one_hot

import everystate as es
from everystate.analysis.meaning import meanings
from everystate.analysis.probes import Split, probe
from everystate.analysis.search import similar_stretches
from everystate.analysis.selectivity import selectivity
from everystate.analysis.thresholds import stretches

WEIGHTS = Path(__file__).parent / "char_lstm.safetensors"
LASTS = 1000  # characters: longer than nearly every label lasts, so the least distance of a control


def load_model() -> tuple[CharLSTM, str]:
    """Return the trained network and its characters."""
    with safe_open(WEIGHTS, framework="pt") as file:
        characters = file.metadata()["characters"]
    model = CharLSTM(len(characters))
    model.load_state_dict(load_file(WEIGHTS))
    return model.eval(), characters


def inside_quotes(text: str) -> np.ndarray:
    """Whether each character is within quotes, the opening one included, the closing one not.

    A paragraph ends them: speech that goes on in the next one is opened again there.

    Examples
    --------
    >>> inside_quotes('a "b" c').astype(int).tolist()
    [0, 0, 1, 1, 0, 0, 0]
    """
    inside, found = False, np.zeros(len(text), bool)
    for place, character in enumerate(text):
        if character == '"':
            inside = not inside
        elif text[place - 1 : place + 1] == "\n\n":
            inside = False
        found[place] = inside
    return found


def since(text: str, starts: str) -> np.ndarray:
    """Return how many characters ago one of `starts` was last read.

    Examples
    --------
    >>> since("ab cd", " ").tolist()
    [1, 2, 0, 1, 2]
    """
    count, found = 0, np.zeros(len(text), int)
    for place, character in enumerate(text):
        count = 0 if character in starts else count + 1
        found[place] = count
    return found


def labels_of(text: str) -> dict[str, np.ndarray]:
    """Return what is known of each character, once it has been read."""
    return {
        "inside quotes": inside_quotes(text),
        "place in the line": since(text, "\n"),
        "place in the word": since(text, " \n,.;:!?-\"'()_"),
        "line ends after this": np.array([*(c == "\n" for c in text[1:]), False]),
    }


def ask(layer: xr.DataTree, name: str, labels: np.ndarray, split: Split) -> None:
    """Print what units and a probe tell of a label."""
    found = selectivity(layer, labels, shifts=99, least_shift=LASTS)
    order = np.argsort(-np.abs(found.selectivity.values))
    best = [(str(found["variable"].values[k]), int(found["unit"].values[k])) for k in order[:3]]
    told = ", ".join(
        f"{v}[{u}] {s:+.2f}"
        for (v, u), s in zip(best, found.selectivity.values[order[:3]], strict=True)
    )
    read = probe(layer, labels if labels.dtype == bool else labels.astype(float), split=split)
    print(
        f"{name:<22}{told:<44}{float(found.strongest_by_chance.max()):>7.2f}"
        f"{float(found.p_value[order[0]]):>7.2f}{read.score.item():>9.2f}"
        f"{read.control.max().item():>9.2f}"
    )


def excerpt(text: str, start: int, length: int = 66) -> str:
    """Return a stretch of a text on one line."""
    return text[start : start + length].replace("\n", "/")


def look_alike(layer: xr.DataTree, text: str, quoted: np.ndarray) -> None:
    """Print the stretches whose states are most like those at the end of a speech."""
    closing = next(stop for _, stop in stretches(quoted) if stop > len(text) // 3)
    query = layer.isel(batch=0, time=slice(closing - 8, closing + 1))
    found = similar_stretches(layer, query, "h", count=6)
    print(f"\nlike {excerpt(text, closing - 8, 9)!r} at {closing - 8}:")
    for start, distance in zip(found.start.values, found.distance.values, strict=True):
        print(f"  {distance:.2f} at {start:>6}: {excerpt(text, start - 20, 40)!r}")


def main() -> None:
    """Record, ask, search and report."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--characters", type=int, default=50_000, help="how many to read")
    parser.add_argument("--samples", type=int, default=6000, help="how many a probe may use")
    parser.add_argument("--report", type=Path, help="where to write a report")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    model, characters = load_model()
    text = load_book()[1][: arguments.characters]
    x = one_hot(text, characters)
    print(f"{len(text)} characters never trained on: {bits_per_character(model, x):.2f} bits each")
    with torch.no_grad():
        trace = es.record(model, x[None])
    layer = trace["lstm"]

    print(
        f"{'label':<22}{'units that follow it':<44}{'chance':>7}{'p':>7}{'probe':>9}{'control':>9}"
    )
    labels = labels_of(text)
    split = Split(gap=LASTS, samples=arguments.samples, shifts=9)
    for name, known in labels.items():
        ask(layer, name, known, split)
    look_alike(layer, text, labels["inside quotes"])
    if arguments.report:
        write_report(trace, text, split, arguments.report)


def write_report(trace: xr.DataTree, text: str, split: Split, path: Path) -> None:
    """Write a report: which units mean something, and 600 characters in which they show it."""
    labels = labels_of(text)
    found = meanings(trace, labels, split=split)
    start = text.index('"', len(text) // 4) - 60
    here = slice(start, start + 600)
    series = {name: labels[name][here].astype(float) for name in labels if "place" in name}
    for finding in found:
        variable, unit = finding.evidence["variable"], finding.evidence["unit"]
        name = f"{variable} of unit {unit}, {finding.evidence['label']}"
        series[name] = trace["lstm"][variable].values[0, here, unit]
    quotes = [(start + a, start + b - 1) for a, b in stretches(labels["inside quotes"][here])]
    part = trace.isel(time=here)
    marks = {"quoted": quotes} if quotes else None
    es.report(part, path, title="Units with a meaning", series=series, marks=marks, findings=found)
    print(f"\nwrote {path}")


if __name__ == "__main__":
    main()
