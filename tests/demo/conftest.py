"""What the demo finds, and the project's examples as modules."""

from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import pytest

from everystate.demo.run import run

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture(scope="session")
def found():
    return run()


@pytest.fixture(scope="session")
def example():
    """Load an example by its name, without running its ``main``."""

    def load(name):
        spec = spec_from_file_location(name, EXAMPLES / f"{name}.py")
        module = module_from_spec(spec)
        spec.loader.exec_module(module)
        return module

    return load
