"""Optional packages: there, missing, and broken inside."""

import sys

import pytest

from everystate.analysis.extra import extra
from everystate.errors import MissingDependencyError


def test_a_module_that_is_there():
    assert extra("json.decoder", "this test") is sys.modules["json.decoder"]


def test_one_that_is_missing_names_the_extra():
    said = r"this test needs nowhere, which is not installed: pip install 'everystate\[analysis\]'"
    with pytest.raises(MissingDependencyError, match=said):
        extra("nowhere.deep.inside", "this test")


def test_what_a_package_lacks_itself_is_its_own_error(tmp_path, monkeypatch):
    (tmp_path / "needy.py").write_text("import absent_from_everywhere")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModuleNotFoundError, match="absent_from_everywhere") as caught:
        extra("needy", "this test")
    assert not isinstance(caught.value, MissingDependencyError)
