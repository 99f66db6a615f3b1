"""The architecture as tests: sizes, import directions, laziness, documentation.

Each check is a function from source files to a list of complaints, so that a second test can
show, on a file that breaks the rule, that the check is able to fail.
"""

import ast
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import pytest

import everystate
from everystate.testing import importorskip

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src" / "everystate"
MODULES = sorted(SOURCE.rglob("*.py"))

MODULE_LINES = 350
FUNCTION_LINES = 50
MEDIAN_FUNCTION_LINES = 10
PARAMETERS = 7
DROP_IN = ("dynamic_rnn", "bidirectional_dynamic_rnn")
"""Functions that take the arguments of the function of another library that they replace."""
FORBIDDEN_NAMES = ("utils.py", "helpers.py", "common.py")

HEAVY = (
    *("torch", "tensorflow", "keras", "tf_keras", "jax", "flax", "onnx", "onnxruntime"),
    *("bokeh", "matplotlib", "pandas", "xarray", "zarr", "numpy", "pyarrow", "typer", "rich"),
)
"""What ``import everystate`` must not load: frameworks, pictures, and even the core's own."""

ALLOWED = {
    "errors.py": set(),
    "schema.py": set(),
    "cells": {"numpy", "array_api_compat"},
    "recording": {"numpy", "array_api_compat", "threadpoolctl", "xarray"},
    "storage": {"numpy", "xarray", "zarr"},
    "streaming": {"numpy", "array_api_compat", "xarray"},
    "analysis": {"numpy", "array_api_compat", "xarray"},
}
"""Packages outside the standard library that a part of the core may import at import time."""

Function = ast.FunctionDef | ast.AsyncFunctionDef


def functions(path: Path) -> Iterator[Function]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, Function):
            yield node


def length(function: Function) -> int:
    """Lines of a function, decorators and docstring apart."""
    assert function.end_lineno is not None
    lines = function.end_lineno - function.lineno + 1
    first = function.body[0]
    if ast.get_docstring(function) is not None and first.end_lineno is not None:
        lines -= first.end_lineno - first.lineno + 1
    return lines


def parameters(function: Function) -> int:
    """Parameters of a function, ``self`` and ``cls`` apart."""
    a = function.args
    named = [p.arg for p in (*a.posonlyargs, *a.args, *a.kwonlyargs)]
    starred = [p for p in (a.vararg, a.kwarg) if p is not None]
    return len(named[1:] if named[:1] in (["self"], ["cls"]) else named) + len(starred)


def too_large(path: Path) -> list[str]:
    found = []
    lines = len(path.read_text().splitlines())
    if lines > MODULE_LINES:
        found.append(f"{path}: {lines} lines, at most {MODULE_LINES}")
    for function in functions(path):
        where = f"{path}:{function.lineno} {function.name}"
        if length(function) > FUNCTION_LINES:
            found.append(f"{where}: {length(function)} lines, at most {FUNCTION_LINES}")
        if parameters(function) > PARAMETERS and function.name not in DROP_IN:
            found.append(f"{where}: {parameters(function)} parameters, at most {PARAMETERS}")
    return found


def badly_named(path: Path) -> list[str]:
    return [f"{path}: say what it is for"] if path.name in FORBIDDEN_NAMES else []


def logic_in_init(path: Path) -> list[str]:
    """Whatever an ``__init__.py`` holds beside its docstring, imports and ``__all__``."""
    found = []
    for node in ast.parse(path.read_text()).body:
        docstring = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        names = isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__"
        if not (docstring or names or isinstance(node, ast.Import | ast.ImportFrom)):
            found.append(f"{path}:{node.lineno}: logic in __init__.py")
    return found


def imports_at_import_time(path: Path) -> set[str]:
    """Top-level packages that a module imports while it is being imported."""
    found: set[str] = set()
    pending: list[ast.AST] = [ast.parse(path.read_text())]
    while pending:
        node = pending.pop()
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found.add(node.module.split(".")[0])
        elif isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            pending += node.orelse
        elif not isinstance(node, Function):
            pending += ast.iter_child_nodes(node)
    return found


def foreign_imports(path: Path, allowed: set[str]) -> list[str]:
    foreign = imports_at_import_time(path) - set(sys.stdlib_module_names) - {"everystate"} - allowed
    return [f"{path}: imports {', '.join(sorted(foreign))}"] if foreign else []


def undocumented(path: Path) -> list[str]:
    """Public classes, functions and methods without a docstring."""
    tree = ast.parse(path.read_text())
    found = [] if ast.get_docstring(tree) else [f"{path}: the module"]
    pending: list[ast.AST] = [tree]
    while pending:
        for node in ast.iter_child_nodes(pending.pop()):
            if isinstance(node, Function | ast.ClassDef) and not node.name.startswith("_"):
                if not ast.get_docstring(node):
                    found.append(f"{path}:{node.lineno} {node.name}")
                if isinstance(node, ast.ClassDef):
                    pending.append(node)
    return found


def loaded_by(code: str, *, path: str = "") -> list[str]:
    """Which of `HEAVY` a new interpreter has loaded after running `code`."""
    script = f"{code}\nimport json, sys\nprint(json.dumps(sorted(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(SOURCE.parent), path])},
    )
    return [name for name in json.loads(done.stdout) if name in HEAVY]


def test_modules_and_functions_are_small() -> None:
    assert [complaint for path in MODULES for complaint in too_large(path)] == []


def test_the_median_function_is_short() -> None:
    lengths = [length(f) for path in MODULES for f in functions(path)]
    assert statistics.median(lengths) < MEDIAN_FUNCTION_LINES


def test_the_size_check_can_fail(tmp_path: Path) -> None:
    path = tmp_path / "large.py"
    body = "\n".join("    x = 1" for _ in range(FUNCTION_LINES))
    path.write_text(f'def f(a, b, *, c, d, e, k, g, h):\n    """Say."""\n{body}\n')
    assert [complaint.split(": ")[1] for complaint in too_large(path)] == [
        "51 lines, at most 50",
        "8 parameters, at most 7",
    ]
    path.write_text("x = 1\n" * (MODULE_LINES + 1))
    assert len(too_large(path)) == 1
    path.write_text(
        'class A:\n    def f(self, a, b, c, d, e, g, h):\n        """A\n\n        B."""\n'
    )
    assert too_large(path) == []


def test_no_file_is_named_after_nothing() -> None:
    assert [complaint for path in MODULES for complaint in badly_named(path)] == []
    assert badly_named(Path("cells/utils.py"))


def test_packages_have_no_logic_in_init() -> None:
    inits = [path for path in MODULES if path.name == "__init__.py"]
    # The package's own is the one exception: it looks the public names up lazily (PEP 562).
    inits.remove(SOURCE / "__init__.py")
    assert [complaint for path in inits for complaint in logic_in_init(path)] == []


def test_the_init_check_can_fail(tmp_path: Path) -> None:
    path = tmp_path / "__init__.py"
    path.write_text('"""Say."""\nfrom x import y\n__all__ = ["y"]\n')
    assert logic_in_init(path) == []
    path.write_text("import x\nif x:\n    y = 1\n")
    assert logic_in_init(path) == [f"{path}:2: logic in __init__.py"]


@pytest.mark.parametrize("part", ALLOWED)
def test_the_core_imports_only_what_it_may(part: str) -> None:
    paths = [p for p in MODULES if (SOURCE / part) in (p, *p.parents)]
    assert paths
    assert [found for path in paths for found in foreign_imports(path, ALLOWED[part])] == []


def test_the_import_check_can_fail(tmp_path: Path) -> None:
    path = tmp_path / "module.py"
    path.write_text(
        "from typing import TYPE_CHECKING\n"
        "import numpy as np\n"
        "if TYPE_CHECKING:\n    import torch\n"
        "def later():\n    import jax\n"
        "class A:\n    import bokeh.plotting\n"
    )
    assert foreign_imports(path, {"numpy"}) == [f"{path}: imports bokeh"]


def test_import_directions_are_kept() -> None:
    done = lint_imports(ROOT / "pyproject.toml")
    assert done.returncode == 0, done.stdout


def test_the_direction_check_can_fail(tmp_path: Path) -> None:
    config = tmp_path / "contracts.ini"
    config.write_text(
        "[importlinter]\nroot_package = everystate\n"
        "[importlinter:contract:upside-down]\nname = upside down\ntype = layers\n"
        "layers =\n    everystate.cells\n    everystate.recording\n"
    )
    done = lint_imports(config)
    assert done.returncode == 1
    assert "everystate.recording is not allowed to import everystate.cells" in done.stdout


def lint_imports(config: Path) -> subprocess.CompletedProcess[str]:
    importorskip("importlinter")
    script = Path(sys.executable).parent / "lint-imports"
    command = [script, "--config", config, "--no-cache"]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)


def test_importing_everystate_loads_nothing_else() -> None:
    assert loaded_by("import everystate; dir(everystate)") == []


def test_the_core_loads_no_framework_and_draws_nothing() -> None:
    core = {"numpy", "xarray", "zarr", "pandas", "pyarrow"}  # xarray loads pandas, that pyarrow
    code = "import everystate as es; es.record, es.recording, es.unroll, es.Select, es.open_trace"
    assert set(loaded_by(code)) <= core


def test_the_laziness_check_can_fail(tmp_path: Path) -> None:
    (tmp_path / "torch.py").write_text("")
    (tmp_path / "eager.py").write_text("import torch")
    assert loaded_by("import eager", path=str(tmp_path)) == ["torch"]


def test_everything_public_has_a_docstring() -> None:
    assert [name for path in MODULES for name in undocumented(path)] == []


def test_the_docstring_check_can_fail(tmp_path: Path) -> None:
    path = tmp_path / "module.py"
    path.write_text('"""Say."""\nclass A:\n    """Say."""\n    def b(self): ...\ndef _c(): ...\n')
    assert undocumented(path) == [f"{path}:4 b"]


@pytest.mark.parametrize("name", everystate.__all__)
def test_each_public_name_shows_an_example(name: str) -> None:
    docstring = getattr(everystate, name).__doc__
    assert "Examples\n" in docstring
    assert ">>> " in docstring


def test_no_folder_hides_a_public_name() -> None:
    """Importing a folder binds it in the package: one named like a verb would take its place."""
    names = ", ".join(f"everystate.{name}" for name in everystate.__all__)
    code = f"import everystate; [{names}]; assert all(map(callable, [{names}])), [{names}]"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", everystate.__all__)
def test_each_public_name_is_what_type_checkers_are_told(name: str) -> None:
    tree = ast.parse((SOURCE / "__init__.py").read_text())
    told = {
        alias.asname: node.module
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.module
        for alias in node.names
        if alias.asname
    }
    assert getattr(import_module(told[name]), name) is getattr(everystate, name)


def test_an_unknown_public_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'recrod'") as caught:
        everystate.recrod  # noqa: B018
    assert (caught.value.name, caught.value.obj) == ("recrod", everystate)  # "Did you mean: ...?"


def test_modules_that_are_public_as_a_whole_are_listed_and_loaded_when_used() -> None:
    code = "import everystate as es; es.plot.heatmap; es.errors.InputError; es.scale.record_many"
    assert "matplotlib" not in loaded_by(code)
    assert {"errors", "plot", "scale"} <= set(dir(everystate))
    assert everystate.plot.heatmap is import_module("everystate.views.plot").heatmap
