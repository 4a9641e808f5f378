"""Text on its way out: whatever names hold, and wherever stdout goes."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image
from rich.table import Table

from ovseg_cli import console

ROOT = Path(__file__).parents[2]
NAME = "IMG [edited].jpg"
HOSTILE = (NAME, "x[/y].jpg", "[bold red]x[/]", ":cat: [link=x]", "snow ☃ 猫", "\udce9.jpg")


def segment(
    *images: str, folder: Path, classes: str = "cat", redirect: str = "", encoding: str = "utf-8"
) -> "subprocess.CompletedProcess[bytes]":
    """Run `ovseg segment` in a folder, with stdout in some encoding and sent where a shell says."""
    command = [sys.executable, "-m", "ovseg_cli", "segment", *images, "--classes", classes]
    return subprocess.run(
        ["sh", "-c", f'"$@" {redirect}', "sh", *command],
        capture_output=True,
        cwd=folder,
        env={**os.environ, "PYTHONIOENCODING": encoding, "COLUMNS": "120"},
    )


@pytest.fixture
def photos(chelsea: Path, tmp_path: Path) -> Path:
    for name in (NAME, "x[", "snow ☃ 猫.jpg"):
        path = tmp_path / (f"{name}/y].jpg" if name == "x[" else name)
        path.parent.mkdir(exist_ok=True)
        Image.open(chelsea).resize((48, 32)).save(path)
    return tmp_path


@pytest.mark.parametrize("text", HOSTILE)
def test_names_are_shown_whole(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    shown = text.replace("\udce9", "\\udce9")
    table = Table("class", title=text)
    table.add_row(text)
    with console.guarded_output():
        out = console.stdout()
        out.print(table)
        out.print(text)
        out.print(console.headed(text, text))
        console.say(text)
    assert capsys.readouterr().out.count(shown) == 6
    console.stderr().print(text)
    console.print_error(text)
    assert capsys.readouterr().err.count(shown) == 2


def test_control_characters_do_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    console.say("a\x1b[31m\nb\r\u202e")
    assert capsys.readouterr().out == "a\\x1b[31m\\nb\\r\\u202e\n"
    console.stdout().print("a\x1b[31m")
    assert capsys.readouterr().out == "a\\x1b[31m\n"
    console.print_warning("a\x1b[31m")
    assert capsys.readouterr().err == "ovseg: warning: a\\x1b[31m\n"


@pytest.mark.parametrize("encoding", ["utf-8", "cp1252", "ascii"])
def test_any_encoding_shows_any_name(photos: Path, encoding: str) -> None:
    found = segment(
        NAME, "x[/y].jpg", "snow ☃ 猫.jpg", folder=photos, classes="cat,[/b]猫", encoding=encoding
    )
    assert found.returncode == 0, found.stderr
    out = found.stdout.decode(encoding)
    assert NAME in out
    assert "x[/y].jpg" in out
    assert ("snow ☃ 猫.jpg" if encoding == "utf-8" else "snow \\u2603 \\u732b.jpg") in out


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
@pytest.mark.parametrize("options", [[], ["--json"], ["-o", "out"]])
def test_a_full_disk_is_one_line(photos: Path, options: list[str]) -> None:
    found = segment(NAME, *options, folder=photos, redirect="> /dev/full")
    message = b"ovseg: error: standard output cannot be written to (No space left on device)\n"
    assert (found.returncode, found.stderr) == (1, message)


def test_closed_output_is_one_line(photos: Path) -> None:
    found = segment(NAME, folder=photos, redirect=">&-")
    assert found.returncode == 1
    assert found.stderr.startswith(b"ovseg: error: standard output is closed")
    assert found.stderr.count(b"\n") == 1


def test_a_reader_that_leaves_hears_nothing(photos: Path) -> None:
    found = segment(NAME, "--json", folder=photos, redirect="| true")
    assert found.stderr == b""


def test_json_is_json_in_every_encoding(photos: Path) -> None:
    found = segment("snow ☃ 猫.jpg", "--json", folder=photos, encoding="cp1252")
    assert json.loads(found.stdout)["image"] == "snow ☃ 猫.jpg"


def test_all_output_passes_the_console() -> None:
    """Nothing else in the command line prints, or makes a console of its own."""
    direct = re.compile(r"(?<![.\w])print\(|\becho\(|\bConsole\(|markup=True|escape\(")
    found = {
        path.name
        for path in sorted((ROOT / "ovseg_cli").glob("*.py"))
        if direct.search(path.read_text(encoding="utf-8"))
    }
    assert found == {"console.py"}
