"""Every benchmark command that README, CONTRIBUTING or docs print runs, on tiny inputs.

They take ten minutes, which no run of all tests has: ask for them with OVSEG_TEST_BENCHMARKS=1.
"""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT

PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
HERE = ROOT / "tests" / "benchmarks"
_COMMAND = re.compile(
    r"(?:pytest [^`#\n]*benchmark[^`#\n]*|(?<=python )-m tests\.benchmarks\.[^`#\n]*)"
)


def printed_commands() -> list[str]:
    """Arguments of Python, one entry per command; alternatives written a|b are one each."""
    found: set[str] = set()
    for page in PAGES:
        if page.is_file():
            for match in _COMMAND.findall(page.read_text(encoding="utf-8")):
                found.update(alternatives(match.strip()))
    return sorted(found)


def alternatives(command: str) -> list[str]:
    for word in command.split():
        if "|" in word:
            return [command.replace(word, each) for each in word.split("|")]
    return [command]


def files_named(commands: list[str]) -> set[str]:
    return {name for command in commands for name in re.findall(r"tests/benchmarks/\S+", command)}


COMMANDS = printed_commands()
OF_ALL = [command for command in COMMANDS if not re.search(r"tests[./]benchmarks", command)]
"""Those that name no file and run every benchmark."""
OTHERS = sorted(
    {f"tests/benchmarks/{path.name}" for path in HERE.glob("test_*.py")}
    - files_named(COMMANDS)
    - {f"tests/benchmarks/{Path(__file__).name}"}
)


QUICKLY = (
    *("-p", "no:cacheprovider", "--timeout", "0", "--benchmark-warmup", "off"),
    *("--benchmark-min-rounds", "1", "--benchmark-max-time", "0.01"),
)


def test_commands_are_found() -> None:
    assert OF_ALL and len(COMMANDS) > 8
    assert any("bench_corpus match" in command for command in COMMANDS)


@pytest.mark.slow
@pytest.mark.skipif(
    "OVSEG_TEST_BENCHMARKS" not in os.environ, reason="OVSEG_TEST_BENCHMARKS=1 runs all benchmarks"
)
@pytest.mark.timeout(1200)
@pytest.mark.parametrize(
    "command",
    [*(c for c in COMMANDS if c not in OF_ALL), f"pytest --benchmark-only {' '.join(OTHERS)}"],
)
def test_it_runs(command: str, tmp_path: Path) -> None:
    words = shlex.split(command)
    if words[0] == "pytest":
        words = ["-m", *words, *QUICKLY]
    words = [str(tmp_path / word) if word.endswith(".json") else word for word in words]
    environment = {**os.environ, "OVSEG_BENCH_TINY": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, *words], cwd=ROOT, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert " failed" not in done.stdout
