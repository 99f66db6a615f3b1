"""Doctests of the package: each runs in a folder of its own, and skips what is not installed."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from everystate.testing import importorskip
from everystate.testing.requirements import skipping_is_forbidden


def pytest_configure(config: pytest.Config) -> None:
    """Let modules of frameworks that are not installed be skipped, where skipping is allowed."""
    config.option.doctest_ignore_import_errors = not skipping_is_forbidden()


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip a doctest that imports a package which is not installed."""
    if isinstance(item, pytest.DoctestItem):
        source = "".join(example.source for example in item.dtest.examples)
        for name in _imported(source):
            importorskip(name)


def _imported(source: str) -> Iterator[str]:
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module


@pytest.fixture(autouse=True)
def _folder_of_its_own(request: pytest.FixtureRequest) -> None:
    if isinstance(request.node, pytest.DoctestItem):
        folder: Path = request.getfixturevalue("tmp_path")
        request.getfixturevalue("monkeypatch").chdir(folder)
