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
