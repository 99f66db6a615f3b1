"""Faults to plant in what an oracle expects: a comparison that does not see them proves nothing.

for fault, wrong in mutations.of_gates(gates):
    with mutations.must_be_noticed(fault):
        oracles.assert_close(ours, oracles.lstm(x, initial, wrong).values)
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest

from oracles import Gate


@contextmanager
def must_be_noticed(fault: str):
    """Demand that the block raises `AssertionError`; `fault` is named if it does not."""
    try:
        yield
    except AssertionError:
        return
    pytest.fail(f"the comparison did not notice: {fault}")


def of_gates(gates: Mapping[str, Gate]) -> Iterator[tuple[str, dict[str, Gate]]]:
    """Yield wrong readings of the weights: gates swapped, biases dropped, units or inputs mixed up.

    Biases must be non-zero, and a GRU's `b_R` matters apart from `b` in its candidate only.
    """
    for a, b in combinations(gates, 2):
        yield f"gates {a} and {b} swapped", {**gates, a: gates[b], b: gates[a]}
    for name, gate in gates.items():
        if np.any(gate.b):
            yield f"input bias of {name} dropped", {**gates, name: replace(gate, b=0.0)}
        if np.any(gate.b_R):
            yield f"recurrent bias of {name} dropped", {**gates, name: replace(gate, b_R=0.0)}
        yield f"W of {name}: two features swapped", {**gates, name: _swapped(gate, "W")}
        yield f"R of {name}: two units swapped", {**gates, name: _swapped(gate, "R")}


def _swapped(gate: Gate, field: str) -> Gate:
    matrix = getattr(gate, field).copy()
    matrix[:, [0, 1]] = matrix[:, [1, 0]]
    return replace(gate, **{field: matrix})


def of_values(values: Mapping[str, np.ndarray]) -> Iterator[tuple[str, dict[str, np.ndarray]]]:
    """Yield wrong results, ``(time, batch, units)``: variables, steps, rows or units mixed up."""
    for a, b in combinations(values, 2):
        if values[a].shape == values[b].shape:
            yield f"{a} and {b} swapped", {**values, a: values[b], b: values[a]}
    for name, array in values.items():
        for axis, what in enumerate(("step", "row", "unit")):
            if array.shape[axis] > 1:
                yield f"{name} shifted by a {what}", {**values, name: np.roll(array, 1, axis)}
        if array.shape[0] > 1:
            yield f"{name} backwards in time", {**values, name: array[::-1]}
