"""What ``docs/extending.md`` shows works: its files, as a package of their own that is installed.

The package is a folder on the path with metadata beside it, which is what an installation leaves.
"""

import os
import re
import subprocess
import sys
import tomllib
from importlib.metadata import distributions
from pathlib import Path

import pytest

from everystate.testing import importorskip

PAGE = Path(__file__).parents[2] / "docs" / "extending.md"
FILE = re.compile(r'^```\w+ title="(?P<name>[^"]+)"\n(?P<text>.*?)^```$', re.MULTILINE | re.DOTALL)


@pytest.fixture
def folder(tmp_path):
    """The page's files, and the metadata of a distribution with its entry points."""
    files = {found["name"]: found["text"] for found in FILE.finditer(PAGE.read_text())}
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    project = tomllib.loads(files["pyproject.toml"])["project"]
    metadata = tmp_path / f"{project['name'].replace('-', '_')}-{project['version']}.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n"
    )
    lines = []
    for group, entries in project["entry-points"].items():
        lines += [f"[{group}]", *(f"{name} = {place}" for name, place in entries.items())]
    (metadata / "entry_points.txt").write_text("\n".join(lines))
    return tmp_path


def run(folder, *arguments):
    path = os.pathsep.join([str(folder), os.environ.get("PYTHONPATH", "")])
    return subprocess.run(
        [sys.executable, *arguments],
        capture_output=True,
        text=True,
        cwd=folder,
        env={**os.environ, "PYTHONPATH": path},
        timeout=300,
        check=False,
    )


RECORD = """
import sys
import numpy as np
import everystate as es

rng = np.random.default_rng(0)
if "toyrnn" in sys.argv:
    import toyrnn
    model = toyrnn.GRU(*(rng.normal(size=size) for size in ((4, 15), (5, 15), 15)))
    trace = es.record(model, rng.normal(size=(7, 3, 4)))
    assert trace["gru"].z.dims == ("batch", "time", "unit")
    assert trace["gru"].attrs["max_error_h"] < 1e-12
    print(list(trace["gru"].data_vars))
    model.kernel = np.roll(model.kernel, 5, axis=1)  # the gates in another order: h z r
    outputs = model(rng.normal(size=(7, 3, 4)))
else:
    try:
        es.record(object(), 1)
    except es.errors.UnsupportedModelError as error:
        print(error)
print("loaded:", "everystate_toyrnn" in sys.modules)
"""


def test_a_model_of_the_new_framework_is_recorded(folder):
    done = run(folder, "-c", RECORD, "toyrnn")
    assert done.returncode == 0, done.stderr
    assert "['h', 'r', 'z', 'n', 'initial_h']\nloaded: True" in done.stdout


def test_it_is_not_loaded_unless_its_library_is(folder):
    done = run(folder, "-c", RECORD)
    assert done.returncode == 0, done.stderr
    assert "loaded: False" in done.stdout
    assert "toyrnn" not in done.stdout.splitlines()[0]


def test_a_module_that_reads_the_gates_wrongly_is_refused(folder):
    module = folder / "everystate_toyrnn.py"
    text = module.read_text()
    assert "z, r, n = np.split" in text
    module.write_text(text.replace("z, r, n = np.split", "r, z, n = np.split"))
    done = run(folder, "-c", RECORD, "toyrnn")
    assert "ReplayMismatchError: gru: the replayed h differs" in done.stderr
    assert "the gates stored in the order z r n" in done.stderr


@pytest.mark.parametrize(
    ("name", "tests"), [("test_everystate_toyrnn.py", 9), ("test_minimal_gated_unit.py", 10)]
)
def test_the_contracts_pass(folder, name, tests):
    done = run(folder, "-m", "pytest", "-q", "-p", "no:cacheprovider", name)
    assert done.returncode == 0, done.stdout
    assert f"{tests} passed" in done.stdout


def test_a_listener_left_behind_fails_the_contract(folder):
    module = folder / "everystate_toyrnn.py"
    text = module.read_text()
    assert "        model.listeners.remove(listen)" in text
    module.write_text(text.replace("model.listeners.remove(listen)", "pass"))
    done = run(folder, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_everystate_toyrnn.py")
    assert "FAILED test_everystate_toyrnn.py::TestToyrnn::test_the_model_is_left_as_it_was" in (
        done.stdout
    )


def test_the_project_installs(folder, tmp_path_factory):
    importorskip("setuptools")
    site = tmp_path_factory.mktemp("site")
    options = ("--no-deps", "--no-build-isolation", "--no-index", "--quiet", "--target", str(site))
    done = run(folder, "-m", "pip", "install", *options, ".")
    assert done.returncode == 0, done.stderr
    assert (site / "everystate_toyrnn.py").is_file()
    [found] = [d.entry_points for d in distributions(path=[str(site)])]
    assert [(e.group, e.name, e.value) for e in found] == [
        ("everystate.frameworks", "toyrnn", "everystate_toyrnn")
    ]


def test_the_page_shows_every_file():
    names = [found["name"] for found in FILE.finditer(PAGE.read_text())]
    assert len(names) == len(set(names)) == 6
