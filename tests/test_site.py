"""The site of the docs builds, and its commands and notebooks run."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from ovseg_cli.__main__ import run
from tests.conftest import ROOT

PAGES = ("index", "annotate", "train", "compare", "deploy")
_BLOCK = re.compile(r"(<!-- needs: [^\n]+ -->\n)?```sh\n(.*?)```", re.DOTALL)


def commands(page: str) -> list[tuple[str, bool]]:
    """Commands of a page, and whether each runs as it is."""
    text = (ROOT / "docs" / f"{page}.md").read_text(encoding="utf-8")
    return [
        (line, not needs)
        for needs, block in _BLOCK.findall(text)
        for line in block.splitlines()
        if line
    ]


@pytest.mark.parametrize("page", PAGES)
def test_every_command_runs_or_says_what_it_needs(
    page: str, chelsea: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos").mkdir()
    for name in ("photo.jpg", "photos/a.png"):
        shutil.copy(chelsea, tmp_path / name)
    found = commands(page)
    assert found
    for command, runs in found:
        words = shlex.split(command, comments=True)
        if runs:
            assert words[0] == "ovseg", command
            assert run(words[1:]) == 0, command


def test_the_site_builds_without_a_warning(tmp_path: Path) -> None:
    pytest.importorskip("mkdocs", reason="the extra docs is not here")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "-q", "-d", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    page = (tmp_path / "reference/cli/index.html").read_text(encoding="utf-8")
    assert "ovseg build-dataset inspect" in page and "--max-requests" in page
    assert "segment_video" in (tmp_path / "reference/api/index.html").read_text(encoding="utf-8")
    assert "fonts.googleapis" not in page


def test_the_notebooks_run() -> None:
    pytest.importorskip("nbmake")
    options = ("-q", "-n", "0", "-p", "no:cacheprovider", "--nbmake-timeout=120")
    command = [sys.executable, "-m", "pytest", "--nbmake", *options, "docs/notebooks"]
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PYTEST_")}
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stdout[-3000:]
    assert "2 passed" in done.stdout or ".." in done.stdout
