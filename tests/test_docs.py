"""No silent documentation: each block of README and docs runs, or says why it does not.

The blocks of a page run in their order, in one namespace and in an empty folder of their own:

* ``python`` is executed;
* ``pycon`` is executed too, and must print what it shows;
* in ``bash``, each line that begins with ``everystate`` must exit with 0;
* a block below ``<!-- not run: REASON -->`` is left out.
"""

import ast
import doctest
import re
import shlex
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from everystate.testing import importorskip

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]

LANGUAGES = ("python", "pycon", "bash", "text", "toml")
FENCE = re.compile(r"^(?P<indent> *)(?P<ticks>`{3,}) *(?P<language>[\w.-]*)")
NOT_RUN = re.compile(r"<!-- not run: \S.* -->")


@dataclass(frozen=True)
class Block:
    """A fenced block: its language, its code, the line it begins at."""

    language: str
    code: str
    line: int
    runs: bool


def blocks(page: Path) -> list[Block]:
    found = []
    lines = page.read_text().splitlines()
    k = 0
    while k < len(lines):
        fence = FENCE.match(lines[k])
        if not fence:
            k += 1
            continue
        end = next(j for j in range(k + 1, len(lines)) if lines[j].strip() == fence["ticks"])
        code = "\n".join(line[len(fence["indent"]) :] for line in lines[k + 1 : end]) + "\n"
        above = next((line for line in reversed(lines[:k]) if line.strip()), "")
        runs = not NOT_RUN.fullmatch(above.strip())
        found.append(Block(fence["language"], code, k + 1, runs))
        k = end + 1
    return found


def run_page(page: Path) -> None:
    namespace: dict[str, Any] = {"__name__": "__main__"}
    for block in blocks(page):
        assert block.language in LANGUAGES, f"{page}:{block.line}: a block of {block.language!r}"
        if block.runs:
            run_block(page, block, namespace)


def run_block(page: Path, block: Block, namespace: dict[str, Any]) -> None:
    if block.language == "python":
        exec(compile("\n" * block.line + block.code, str(page), "exec"), namespace)  # noqa: S102
    elif block.language == "pycon":
        run_session(page, block, namespace)
    elif block.language == "bash":
        run_commands(block)


def run_session(page: Path, block: Block, namespace: dict[str, Any]) -> None:
    test = doctest.DocTestParser().get_doctest(
        block.code, namespace, page.name, str(page), block.line
    )
    said: list[str] = []
    runner = doctest.DocTestRunner(verbose=False, optionflags=doctest.ELLIPSIS)
    runner.run(test, out=said.append, clear_globs=False)
    namespace.update(test.globs)
    assert not runner.failures, "".join(said)


def run_commands(block: Block) -> None:
    for line in block.code.replace("\\\n", " ").splitlines():
        command = shlex.split(line, comments=True)
        if command[:1] == ["everystate"]:
            command[0] = str(Path(sys.executable).parent / "everystate")
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            assert done.returncode == 0, f"{line}\n{done.stdout}{done.stderr}"


def packages(page: Path) -> set[str]:
    """Top-level packages that the blocks of a page import."""
    found = set()
    for block in blocks(page):
        if not block.runs or block.language not in ("python", "pycon"):
            continue
        examples = doctest.DocTestParser().get_examples(block.code)
        code = "".join(e.source for e in examples) if block.language == "pycon" else block.code
        for node in ast.walk(ast.parse(code)):
            if isinstance(node, ast.Import):
                found |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                found.add(node.module.split(".")[0])
    return found


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_each_block_runs(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in packages(page):
        importorskip(name)
    monkeypatch.chdir(tmp_path)
    run_page(page)


def written(folder: Path, *lines: str) -> Path:
    page = folder / "page.md"
    page.write_text("\n".join(lines) + "\n")
    return page


def test_blocks_share_a_namespace(tmp_path: Path) -> None:
    run_page(written(tmp_path, "```python", "a = 2", "```", "", "```pycon", ">>> a", "2", "```"))


def test_a_block_that_raises_fails(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError):
        run_page(written(tmp_path, "Text.", "```python", "1 / 0", "```"))


def test_a_session_that_prints_something_else_fails(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match=r"Got:\n +2"):
        run_page(written(tmp_path, "```pycon", ">>> 1 + 1", "3", "```"))


def test_a_command_that_fails_fails(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="no-such-command"):
        run_page(written(tmp_path, "```bash", "ls", "everystate no-such-command", "```"))


def test_a_block_with_a_reason_does_not_run(tmp_path: Path) -> None:
    page = written(tmp_path, "<!-- not run: needs a GPU -->", "", "```python", "1 / 0", "```")
    run_page(page)
    assert packages(page) == set()


def test_a_reason_must_be_one(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError):
        run_page(written(tmp_path, "<!-- not run:  -->", "```python", "1 / 0", "```"))


def test_a_block_of_another_name_cannot_slip_through(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="a block of 'py'"):
        run_page(written(tmp_path, "```py", "1 / 0", "```"))
