"""The same tests on Keras' other back ends; the back end is fixed when Keras is imported."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from everystate.testing import importorskip

keras = importorskip("keras")

HERE = Path(__file__).parent
CORE = {
    "torch": "contract or ones_own or cells_are_leaves or recurrent_dropout or convolutions or "
    "whatever_its_back_end or compiled or random_numbers or states_of_is_trained or by_hand or "
    "each_epoch or float64 or half_precision or overheard or (the_oracles and gaps)",
    # A layer's every eager call is compiled anew on JAX: few of them.
    "jax": "(bitwise and contract) or states_of_is_trained or compiled or cells_are_leaves or "
    "(the_oracles and lstm and gaps and False)",
}
"""What depends on the back end."""


@pytest.mark.skipif("KERAS_BACKENDS_INNER" in os.environ, reason="this is the inner run")
@pytest.mark.parametrize("backend", ["torch", "jax"])
def test_on_another_back_end(backend):
    importorskip(backend)
    environment = {**os.environ, "KERAS_BACKEND": backend, "KERAS_BACKENDS_INNER": "1"}
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-x",
        "-p",
        "no:cacheprovider",
        "-k",
        CORE[backend],
    ]
    ran = subprocess.run(
        [*command, str(HERE)], env=environment, capture_output=True, text=True, cwd=HERE
    )
    assert ran.returncode == 0, ran.stdout[-5000:] + ran.stderr[-1000:]
    assert "passed" in ran.stdout
