"""The README says what is true of the repository."""

import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.pages import PAGES

README = (ROOT / "README.md").read_text(encoding="utf-8")


def tree_paths() -> list[str]:
    """Paths of the annotated tree, from its indentation."""
    match = re.search(r"<!-- tree -->\n```text\n(.*?)```", README, re.DOTALL)
    assert match is not None
    paths, folder = [], ""
    for line in match[1].splitlines():
        name = line.split()[0]
        paths.append(folder + name if line.startswith(" ") else name)
        folder = folder if line.startswith(" ") else name
    return paths


def test_everything_in_the_tree_exists() -> None:
    assert [path for path in tree_paths() if not (ROOT / path).exists()] == []


def test_every_part_of_the_library_is_in_the_tree() -> None:
    parts = {
        f"ovseg/{path.name}{'/' if path.is_dir() else ''}"
        for path in (ROOT / "ovseg").iterdir()
        if not path.name.startswith("_") and path.name not in ("py.typed", "version.py")
    }
    assert parts <= set(tree_paths())


@pytest.mark.parametrize("name", ["README.md", "CONTRIBUTING.md"])
def test_linked_files_exist(name: str) -> None:
    """Those of the other pages are looked at where the site is built."""
    text = (ROOT / name).read_text(encoding="utf-8")
    links = re.findall(r"\]\((?!https?:)([^)#]+)\)", text)
    assert links
    assert [link for link in links if not (ROOT / link).exists()] == []


@pytest.mark.parametrize(
    "page", [page for page in PAGES if page.name != "moved.md"], ids=lambda page: page.name
)
def test_paths_of_the_code_exist(page: Path) -> None:
    """A file may be named alone behind its folder."""
    text = page.read_text(encoding="utf-8")
    paths = re.findall(r"`((?:ovseg|ovseg_cli|tests|tools|docs|recipes|examples)/[\w./*-]*)`", text)
    files = re.findall(r"`([\w/]+\.py)`", text)
    missing = [path for path in paths if not any(ROOT.glob(path))]
    assert missing + [name for name in files if not any(named(name))] == []


def named(name: str) -> Iterator[str]:
    """Files of the code whose path ends so."""
    return (path for path in python_files() if f"/{path}".endswith(f"/{name}"))


@cache
def python_files() -> list[str]:
    folders = ("ovseg", "ovseg_cli", "tools", "tests")
    return [str(path) for folder in folders for path in (ROOT / folder).rglob("*.py")]
