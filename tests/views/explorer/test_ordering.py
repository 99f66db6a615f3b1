"""Orders of units, on units whose order is known."""

import numpy as np
import pytest

from everystate.testing import importorskip
from everystate.views.explorer.ordering import ORDERS

importorskip("scipy")

T = np.linspace(0, 6, 200)


def values():
    waves = [np.sin(T) * 3, 5 + 0 * T, np.sin(T + 0.1), np.exp(-((T - 1) ** 2)), -2 * np.sin(T)]
    return np.stack(waves)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("as recorded", [0, 1, 2, 3, 4]),
        ("by mean", np.argsort(values().mean(axis=1)).tolist()),
        ("by travel", [1, 3, 2, 4, 0]),
    ],
)
def test_known_orders(name, expected):
    assert ORDERS[name](values()).tolist() == expected


def test_peaks_come_in_time():
    found = ORDERS["by time of peak"](values())
    peaks = values().argmax(axis=1)[found]
    assert (np.diff(peaks) >= 0).all()


def test_units_that_move_alike_are_neighbours_and_still_ones_come_last():
    rng = np.random.default_rng(0)
    groups = rng.normal(size=(3, 400))
    unit = np.array([0, 1, 2, 0, 1, 2, 0, 1, 2])
    x = groups[unit] * rng.uniform(1, 4, size=(9, 1)) + 0.05 * rng.normal(size=(9, 400))
    x = np.concatenate([np.zeros((1, 400)), x])
    found = ORDERS["alike together"](x)
    assert sorted(found.tolist()) == list(range(10))
    assert found[-1] == 0
    kinds = unit[found[:-1] - 1]
    assert (np.diff(kinds) != 0).sum() == 2


@pytest.mark.parametrize("name", ORDERS)
def test_missing_values_are_no_obstacle(name):
    x = values()
    x[2] = np.nan
    x[0, 5] = np.inf
    assert sorted(ORDERS[name](x).tolist()) == [0, 1, 2, 3, 4]
