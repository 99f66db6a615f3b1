"""Fixtures that tests of several folders share."""

import shutil

import pytest

from everystate.testing.requirements import REQUIRE_ALL, skipping_is_forbidden


@pytest.fixture(scope="session")
def chromium() -> str:
    """Path of a Chromium or Chrome; without one the test is skipped, or fails in CI."""
    found = [shutil.which(name) for name in ("chromium", "chromium-browser", "google-chrome")]
    for path in found:
        if path is not None:
            return path
    if skipping_is_forbidden():
        pytest.fail(f"no Chromium found, and {REQUIRE_ALL}=1 forbids skipping. Install chromium.")
    pytest.skip("no Chromium found")
