"""The shape of the code: what the linters have no rule for."""

import ast
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
MOST_LINES = 450
MOST_ALIKE = 2


def python_files(*folders: str) -> list[Path]:
    return [path for folder in folders for path in sorted((ROOT / folder).rglob("*.py"))]


def imported(path: Path) -> Iterator[str]:
    """Every module that a file imports, also inside of functions."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module or ""


def importers(folder: str, *packages: str) -> list[str]:
    """Files that import one of some packages."""
    return [
        str(path.relative_to(ROOT))
        for path in python_files(folder)
        if any(name.split(".")[0] in packages for name in imported(path))
    ]


def test_no_file_is_long() -> None:
    files = python_files("ovseg", "ovseg_cli", "tools", "tests")
    lines = {str(p.relative_to(ROOT)): len(p.read_text("utf-8").splitlines()) for p in files}
    assert {path: count for path, count in lines.items() if count > MOST_LINES} == {}


def test_no_file_name_occurs_often() -> None:
    names = Counter(path.name for path in python_files("ovseg", "ovseg_cli"))
    del names["__init__.py"]
    assert {name: count for name, count in names.items() if count > MOST_ALIKE} == {}


def test_tools_use_the_library_alone() -> None:
    assert importers("tools", "ovseg_cli") == []


def test_the_terminal_belongs_to_the_command_line() -> None:
    assert importers("ovseg", "typer", "rich", "click", "ovseg_cli") == []
    assert importers("ovseg_cli", "typer") != []


def test_a_source_distribution_is_small_and_whole(tmp_path: Path) -> None:
    """Everything of the code, nothing of the fixtures that only the parity checks read."""
    import tarfile

    sdist = pytest.importorskip("hatchling.builders.sdist")
    (built,) = sdist.SdistBuilder(str(ROOT)).build(directory=str(tmp_path))
    with tarfile.open(built) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert {"README.md", "ovseg/__init__.py", "recipes/cc4m.toml", "tests/conftest.py"} <= names
    assert [name for name in names if name.startswith("tests/parity/data")] == []
    assert Path(built).stat().st_size < 55e6


def test_the_picture_of_the_architecture_is_that_of_the_code() -> None:
    command = [sys.executable, "-m", "tools.draw_imports", "--check"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
