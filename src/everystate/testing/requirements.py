"""What a test needs that may not be installed: it is skipped, unless skipping is forbidden."""

import os
from importlib import import_module
from types import ModuleType
from typing import Final

import pytest

REQUIRE_ALL: Final = "EVERYSTATE_REQUIRE_ALL"
"""Environment variable; set to 1, a missing package or browser is an error, not a skip."""


def importorskip(name: str) -> ModuleType:
    """Return a module, or skip the test (or the whole test file) if it is not installed.

    Parameters
    ----------
    name : str
        What to import, such as ``"torch"``.

    Returns
    -------
    module

    Raises
    ------
    ImportError
        If it is missing and the environment variable ``EVERYSTATE_REQUIRE_ALL`` is 1, so that
        continuous integration cannot pass by skipping.

    Examples
    --------
    >>> importorskip("numpy").__name__
    'numpy'
    """
    if skipping_is_forbidden():
        return import_module(name)
    module: ModuleType = pytest.importorskip(name, exc_type=ImportError)
    return module


def skipping_is_forbidden() -> bool:
    """Whether ``EVERYSTATE_REQUIRE_ALL`` is 1."""
    return os.environ.get(REQUIRE_ALL) == "1"
