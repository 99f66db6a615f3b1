"""The contract of a framework module, held by the NumPy path."""

import hashlib
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

import oracles
from everystate.frameworks import numpy as framework
from everystate.testing import FrameworkContract

T, B, D, U = 7, 3, 4, 5
LAYERS = [(layer, reverse) for layer in range(2) for reverse in (False, True)]


def tensors():
    rng, found = np.random.default_rng(0), {}
    for layer, reverse in LAYERS:
        end = f"_l{layer}" + "_reverse" * reverse
        shapes = {"weight_ih": (4 * U, 2 * U if layer else D), "weight_hh": (4 * U, U)}
        shapes |= {"bias_ih": (4 * U,), "bias_hh": (4 * U,)}
        found |= {f"{n}{end}": rng.normal(0, 0.7, shape) for n, shape in shapes.items()}
    return found


class TestWeightsFile(FrameworkContract):
    framework = framework
    tolerance = 1e-10

    @pytest.fixture(autouse=True)
    def _file(self, tmp_path):
        self.path = tmp_path / "weights.safetensors"
        save_file({f"encoder.{name}": a for name, a in tensors().items()}, self.path)

    def model(self):
        return str(self.path)

    def inputs(self):
        return (np.random.default_rng(1).normal(size=(B, T, D)),)

    def expected(self):
        own, found, below = tensors(), {}, self.inputs()[0].swapaxes(0, 1)
        start = {name: np.zeros((B, U)) for name in "hc"}
        for layer in range(2):
            outputs = []
            for reverse in (False, True):
                end = f"_l{layer}" + "_reverse" * reverse
                names = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
                gates = oracles.gates("ifgo", *(own[name + end] for name in names))
                run = oracles.lstm(below, start, gates, reverse=reverse).values
                outputs.append(run["h"])
                arrays = {name: a.swapaxes(0, 1) for name, a in run.items()}
                arrays |= {f"initial_{name}": a for name, a in start.items()}
                found[f"encoder/layer_{layer}/{'backward' if reverse else 'forward'}"] = arrays
            below = np.concatenate(outputs, axis=-1)
        return found

    def results(self, model):
        outputs, (h, c) = framework.call(model, self.inputs())
        return [outputs, h, c]

    def state(self, model):
        return hashlib.sha256(Path(model).read_bytes()).hexdigest()


class Integrator:
    """Two leaky integrators, the slow one of the fast one's units in another order."""

    everystate_states = ("fast", "slow")

    def __call__(self, x, state):
        fast, slow = state
        fast = 0.5 * fast + x
        return fast, 0.9 * slow + fast[:, ::-1]


class TestCellOfOnesOwn(FrameworkContract):
    framework = framework
    tolerance = 1e-12

    def model(self):
        return Integrator()

    def inputs(self):
        rng = np.random.default_rng(2)
        return rng.normal(size=(T, B, D)), tuple(rng.normal(size=(2, B, D)))

    def expected(self):
        x, (fast, slow) = self.inputs()
        start, found = {"initial_fast": fast, "initial_slow": slow}, {"fast": [], "slow": []}
        for x_t in x:
            fast = fast / 2 + x_t
            slow = slow * 9 / 10 + fast[:, ::-1]
            found["fast"].append(fast)
            found["slow"].append(slow)
        return {"integrator": {**start, **{name: np.stack(a, 1) for name, a in found.items()}}}

    def results(self, model):
        outputs, state = framework.call(model, self.inputs())
        return [outputs, *state]
