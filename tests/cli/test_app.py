"""The command line as such: help, version, errors."""

import subprocess
import sys

import pytest

from ovseg.version import __version__
from ovseg_cli.__main__ import run


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--version"]) == 0
    assert capsys.readouterr().out.strip() == f"ovseg {__version__}"


def test_unknown_command_is_a_usage_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["no-such-command"]) == 2
    assert "no-such-command" in capsys.readouterr().err


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
