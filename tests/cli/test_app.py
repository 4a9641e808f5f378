"""The command line as such: help, version, errors."""

import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from ovseg.version import __version__
from ovseg_cli.__main__ import run


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--version"]) == 0
    assert capsys.readouterr().out.strip() == f"ovseg {__version__}"


def test_unknown_command_is_a_usage_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["no-such-command"]) == 2
    assert "no-such-command" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["segment", "--treshold", "1"], "no such option: --treshold"),
        (["segmen"], "no such command 'segmen'"),
        (["models", "info"], "missing argument 'FILE|NAME' (see ovseg models info --help)"),
        (["segment", "--batch-size", "x"], "invalid value for '--batch-size'"),
    ],
)
def test_the_parsers_errors_look_like_all_others(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(arguments) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"ovseg: error: {message}")


def test_no_command_is_answered_with_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["models"]) == 2
    captured = capsys.readouterr()
    assert "Usage: ovseg models" in captured.out + captured.err


def test_quiet_and_verbose(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    photo = tmp_path / "grey.png"
    Image.new("RGB", (32, 32), "grey").save(photo)
    command = ["segment", str(photo), "--classes", "okapi", "--json"]

    def said(*arguments: str) -> str:
        assert run(list(arguments)) == 0
        return capsys.readouterr().err

    assert "does not know 'okapi'" in said(*command)
    assert said("-q", *command) == said(*command, "--quiet") == ""
    assert "ovseg: starter" in said(*command, "-v")
    assert str(photo) in said("-vv", *command)


def test_help_imports_no_torch() -> None:
    """`ovseg --help` stays quick because nothing heavy is imported."""
    program = (
        "import sys; from ovseg_cli.__main__ import run; code = run(['--help']);"
        "heavy = {'torch', 'timm', 'transformers', 'cv2', 'numpy', 'spacy'} & set(sys.modules);"
        "sys.exit(f'imported {heavy}' if heavy else code)"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert "Usage" in result.stdout


def test_module_runs_as_a_process() -> None:
    result = subprocess.run(
        [sys.executable, "-m", "ovseg_cli", "--version"], capture_output=True, text=True
    )
    assert (result.returncode, result.stdout.strip()) == (0, f"ovseg {__version__}")


class PanicException(BaseException):
    """As the bridge to native code raises it."""


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (PanicException("gave up"), "internal error: PanicException: gave up (a fault of ovseg"),
        (ValueError("odd"), "internal error: ValueError: odd (a fault of ovseg"),
        (OSError(27, "File too large", "out/x"), "out/x: File too large"),
        (OSError(28, "No space left on device"), "No space left on device"),
    ],
)
def test_what_no_command_has_told_is_one_line(
    error: BaseException,
    line: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def app(**options: object) -> None:
        raise error

    monkeypatch.setattr("ovseg_cli.app.app", app)
    assert run(["segment"]) == 1
    told = capsys.readouterr().err
    assert told.startswith(f"ovseg: error: {line}") and len(told.splitlines()) == 1
