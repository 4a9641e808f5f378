"""The site of the docs builds, and its notebooks run."""

import os
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path

import pytest

from tests.conftest import ROOT


def test_the_site_builds_without_a_warning(tmp_path: Path) -> None:
    pytest.importorskip("mkdocs", reason="the extra docs is not here")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "-q", "-d", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    page = (tmp_path / "reference/cli/index.html").read_text(encoding="utf-8")
    assert "ovseg build-dataset inspect" in page and "--max-requests" in page
    assert "segment_video" in (tmp_path / "reference/api/index.html").read_text(encoding="utf-8")
    assert "fonts.googleapis" not in page


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("[there](page.md#part), [the licence](../LICENSE)", ""),
        ("[nowhere](missing.md)", "'missing.md', but the target is not found"),
        ("[outside](../ovseg/missing.py)", "'ovseg/missing.py', but the target is not found"),
        ("[no part](page.md#parts)", "does not contain an anchor '#parts'"),
        ("[here](#nothing)", "'#nothing', but there is no such anchor"),
        ("![picture](missing.png)", "'missing.png', but the target is not found"),
    ],
)
def test_a_broken_link_fails_the_build(
    text: str, told: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """With our own settings, but for what makes the site beautiful."""
    pytest.importorskip("mkdocs", reason="the extra docs is not here")
    from mkdocs.commands.build import build
    from mkdocs.config import load_config
    from mkdocs.exceptions import Abort

    pages = tmp_path / "docs"
    pages.mkdir()
    (pages / "index.md").write_text(text)
    (pages / "page.md").write_text("## Part")
    config = load_config(
        str(ROOT / "mkdocs.yml"),
        docs_dir=str(pages),
        site_dir=str(tmp_path / "site"),
        theme={"name": "mkdocs"},
        plugins=[],
        nav=["index.md", "page.md", "reference/cli.md", "reference/api.md"],
    )
    with pytest.raises(Abort) if told else nullcontext():
        build(config)
    assert told in caplog.text


def test_the_notebooks_run() -> None:
    pytest.importorskip("nbmake")
    options = ("-q", "-n", "0", "-p", "no:cacheprovider", "--nbmake-timeout=120")
    command = [sys.executable, "-m", "pytest", "--nbmake", *options, "docs/notebooks"]
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PYTEST_")}
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stdout[-3000:]
    assert "2 passed" in done.stdout or ".." in done.stdout
