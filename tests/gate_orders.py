"""The table of gate orders (``cells/README.md``) as data, and how a row of it is put to the test.

A test imports it as ``import gate_orders``.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import permutations
from pathlib import Path

import numpy as np

import everystate.cells
import mutations
import oracles

README = Path(everystate.cells.__file__).with_name("README.md")
T, B, D, H = 4, 3, 2, 5
LSTM, GRU, RNN = "ifgo", "rzn", "h"

Row = Mapping[str, str]
States = tuple[np.ndarray, ...]


@dataclass(frozen=True, eq=False)
class Data:
    """What a layer is given: weights as a row says it stores them, input, and states in its order.

    W is (gates H, D) or (D, gates H), as the row says; of a layer that keeps its kernels apart,
    it is all of them side by side, in the row's order.
    """

    W: np.ndarray
    R: np.ndarray
    b: np.ndarray | None
    b_R: np.ndarray | None
    x: np.ndarray
    initial: States

    def gate(self, name: str, k: int) -> np.ndarray:
        """The part of a weight that belongs to the row's k-th gate, if gates are columns."""
        return getattr(self, name)[..., k * H : (k + 1) * H]


def rows(header: str = "Framework | Layer | Gates") -> list[Row]:
    """Return the rows of the README's table whose header begins as given."""
    lines = README.read_text().splitlines()
    start = next(k for k, line in enumerate(lines) if line.startswith(f"| {header}"))
    names, _, *body = (
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in lines[start : lines.index("", start)]
    )
    return [dict(zip(names, cells, strict=True)) for cells in body]


def row(framework: str, layer: str) -> Row:
    """Return the row of a layer."""
    (found,) = [r for r in rows() if (r["Framework"], r["Layer"]) == (framework, layer)]
    return found


def data(row: Row, seed: int = 0) -> Data:
    """Return random weights, stored as the row says, and an input and states."""
    rng = np.random.default_rng(seed)
    order = row["Gates"].split()
    width = len(order) * H
    W, R = rng.normal(0, 0.8, (D, width)), rng.normal(0, 0.8, (H, width))
    b, b_R = rng.normal(0, 0.8, (2, width))
    if row["Biases"] == "input + n":
        b_R[: 2 * H] = 0.0
    states = row["State"].split(", ")
    return Data(
        W=W.T if row["Along"] == "rows" else W,
        R=R.T if row["Along"] == "rows" else R,
        b=None if row["Biases"] == "recurrent" else b,
        b_R=None if row["Biases"] == "input" else b_R,
        x=rng.normal(0, 1, (T, B, D)),
        initial=tuple(rng.normal(0, 0.6, (B, H)) for _ in states),
    )


def expected(row: Row, given: Data, **variants) -> tuple[np.ndarray, States]:
    """Return what the oracle makes of a row: h at each step, and the last states in its order."""
    order = row["Gates"].split()
    W, R = (a if row["Along"] == "rows" else a.T for a in (given.W, given.R))
    gates = oracles.gates(order, W, R, given.b, given.b_R)
    states = row["State"].split(", ")
    initial = dict(zip(states, given.initial, strict=True))
    if set(order) == set(LSTM):
        variants = {"forget_bias": float(row["Forget"]), **variants}
        ran = oracles.lstm(given.x, initial, gates, **variants)
    elif set(order) == set(GRU):
        ran = oracles.gru(given.x, initial, gates, reset=row["Reset"], update=row["z"], **variants)
    else:
        ran = oracles.simple_rnn(given.x, initial, gates, **variants)
    return ran.values["h"], tuple(ran.final[name] for name in states)


def check(
    framework: str,
    layer: str,
    run: Callable[[Data], tuple[np.ndarray, States]],
    tolerance: float = 2e-6,
    **variants,
) -> None:
    """Assert that a layer does what its row says, and nothing that another row would say.

    `run` gives the layer the weights and returns h at each step, ``(T, B, H)``, and the last
    states in the order in which the framework returns them.
    """
    truth = row(framework, layer)
    given = data(truth)
    h, final = run(given)

    def compare(claim: Row) -> None:
        theirs, last = expected(claim, given, **variants)
        oracles.assert_close({"h": h}, {"h": theirs}, tolerance)
        oracles.assert_close(dict(enumerate(final)), dict(enumerate(last)), tolerance)

    compare(truth)
    for fault, claim in wrong(truth):
        with mutations.must_be_noticed(f"{framework} {layer}: {fault}"):
            compare(claim)


def wrong(truth: Row):
    """Yield other claims about a layer, each of which is wrong."""
    for order in permutations(truth["Gates"].split()):
        if " ".join(order) != truth["Gates"]:
            yield f"gates stored as {order}", {**truth, "Gates": " ".join(order)}
    if truth["State"] in ("h, c", "c, h"):
        other = ", ".join(reversed(truth["State"].split(", ")))
        yield f"state {other}", {**truth, "State": other}
        yield "another forget bias", {**truth, "Forget": str(1 - float(truth["Forget"]))}
    if truth["Reset"]:
        other = {"after": "before", "before": "after"}[truth["Reset"]]
        yield f"reset {other}", {**truth, "Reset": other}
        other = {"keeps": "writes", "writes": "keeps"}[truth["z"]]
        yield f"z {other}", {**truth, "z": other}


def stepped(step: Callable, x: np.ndarray, state) -> tuple[np.ndarray, object]:
    """Run a cell over time: `step` takes a state and an input, and returns the state and h."""
    outputs = []
    for x_t in x:
        state, h = step(state, x_t)
        outputs.append(np.asarray(h))
    return np.stack(outputs), state
