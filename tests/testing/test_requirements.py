"""A missing package is a skip for a user, and an error in CI."""

import numpy as np
import pytest

from everystate.testing import importorskip

MISSING = "a_package_that_does_not_exist"


def test_an_installed_package_is_returned(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("EVERYSTATE_REQUIRE_ALL", raising=False)
    assert importorskip("numpy") is np
    monkeypatch.setenv("EVERYSTATE_REQUIRE_ALL", "1")
    assert importorskip("numpy") is np


def test_a_missing_package_is_skipped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("EVERYSTATE_REQUIRE_ALL", raising=False)
    with pytest.raises(pytest.skip.Exception, match=MISSING):
        importorskip(MISSING)


def test_a_missing_package_is_an_error_where_skipping_is_forbidden(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("EVERYSTATE_REQUIRE_ALL", "1")
    with pytest.raises(ModuleNotFoundError, match=MISSING):
        importorskip(MISSING)
