import json
from pathlib import Path

import pytest

from ovseg_cli.__main__ import run
from tests.data.cutouts import conftest

pytest.importorskip("resvg_py")
cutouts, backgrounds = conftest.cutouts, conftest.backgrounds


def command(pictures: Path, photographs: Path, out: Path, *more: str) -> list[str]:
    return [
        *("build-dataset", "cutouts", "--cutouts", str(pictures)),
        *("--backgrounds", str(photographs), "--count", "10", "--size", "96", "-o", str(out)),
        *more,
    ]


def test_builds_and_reports_as_json(
    cutouts: Path,
    backgrounds: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run(command(cutouts, backgrounds, tmp_path / "out", "--json")) == 0
    printed = json.loads(capsys.readouterr().out)
    assert (printed["train"], printed["test"]) == (9, 1)
    assert len(list((tmp_path / "out/images/train").glob("*.jpg"))) == 9
    assert run(command(cutouts, backgrounds, tmp_path / "out")) == 0
    assert "cutouts.tsv" in capsys.readouterr().out


def test_a_dry_run_counts_and_writes_nothing(
    cutouts: Path,
    backgrounds: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    arguments = command(cutouts, backgrounds, tmp_path / "out", "--dry-run")
    assert run([*arguments, "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert (printed["cutouts"], printed["backgrounds"], printed["test"]) == (7, 3, 1)
    assert run(arguments) == 0
    assert "9 training and 1 test scenes" in capsys.readouterr().out
    assert not (tmp_path / "out").exists()


def test_wrong_input_is_one_line_and_an_exit_code(
    cutouts: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run(command(cutouts, tmp_path / "none", tmp_path / "out")) == 1
    assert "no such folder" in capsys.readouterr().err
    arguments = command(cutouts, cutouts, tmp_path / "out")
    arguments[arguments.index("10")] = "0"
    assert run(arguments) == 2
    assert capsys.readouterr().err.count("\n") == 1
