"""Small clusters on loopback, a weights file, sequences, and what the oracle makes of them."""

import numpy as np
import pytest
from safetensors.numpy import save_file

import oracles
from everystate.testing import importorskip

importorskip("distributed")
from everystate.scale import connected

FEATURES, UNITS = 3, 5
LENGTHS = (7, 12, 3, 12, 1, 9, 12, 5, 7, 7, 11)
"""Of eleven sequences: some alike, no order, one of a single step."""


@pytest.fixture(scope="session")
def threads():
    """Return a client of workers in this process."""
    with connected("threads") as client:
        yield client


@pytest.fixture
def tensors():
    rng = np.random.default_rng(3)
    shapes = {"weight_ih": (4 * UNITS, FEATURES), "weight_hh": (4 * UNITS, UNITS)}
    shapes |= {"bias_ih": (4 * UNITS,), "bias_hh": (4 * UNITS,)}
    return {f"{name}_l0": rng.normal(0, 0.6, shape) for name, shape in shapes.items()}


@pytest.fixture
def weights(tmp_path, tensors):
    """Return the path of an LSTM's weights in float64."""
    path = tmp_path / "weights.safetensors"
    save_file(tensors, path)
    return str(path)


@pytest.fixture
def sequences():
    rng = np.random.default_rng(4)
    return [rng.normal(size=(length, FEATURES)) for length in LENGTHS]


@pytest.fixture
def expected(tensors, sequences):
    """Return the oracle's values of each sequence, by variable, (step, unit)."""
    gates = oracles.gates("ifgo", *(tensors[f"{n}_l0"] for n in ("weight_ih", "weight_hh")))
    b, b_R = (np.split(tensors[f"{n}_l0"], 4) for n in ("bias_ih", "bias_hh"))
    gates = {
        name: oracles.Gate(gate.W, gate.R, b[k], b_R[k])
        for k, (name, gate) in enumerate(gates.items())
    }
    zero = {"h": np.zeros((1, UNITS)), "c": np.zeros((1, UNITS))}
    found = [oracles.lstm(x[:, None], zero, gates).values for x in sequences]
    return [{name: array[:, 0] for name, array in values.items()} for values in found]


@pytest.fixture
def check(expected):
    """Return what compares a trace with the oracle, row by row."""

    def check(trace, rows=None, lengths=LENGTHS, expected=expected):
        layer = trace["lstm"]
        rows = range(len(LENGTHS)) if rows is None else rows
        assert layer.length.values.tolist() == [lengths[row] for row in rows]
        for k, row in enumerate(rows):
            for name, values in expected[row].items():
                found = layer[name].values[k]
                np.testing.assert_allclose(
                    found[: lengths[row]], values[: lengths[row]], atol=1e-12
                )
                assert np.isnan(found[lengths[row] :]).all()
            initial = 0.0 if lengths[row] else np.nan
            np.testing.assert_array_equal(layer.initial_h.values[k], np.full(UNITS, initial))

    return check
