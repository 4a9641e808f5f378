"""How long the command line takes to answer, as a process.

python -m pytest tests/benchmarks/test_startup_benchmark.py --benchmark-only
"""

import subprocess
import sys
from pathlib import Path

from pytest_benchmark.fixture import BenchmarkFixture

from tests.benchmarks.sizes import full

PHOTO = Path(__file__).parents[2] / "examples" / "chelsea.png"


def ovseg(*arguments: str) -> None:
    """Run the command and wait for it."""
    subprocess.run([sys.executable, "-m", "ovseg_cli", *arguments], check=True, capture_output=True)


def test_help(benchmark: BenchmarkFixture) -> None:
    benchmark.pedantic(ovseg, ("--help",), rounds=full(7, 1), warmup_rounds=full(1, 0))


def test_first_mask_of_the_starter(benchmark: BenchmarkFixture) -> None:
    arguments = ("segment", str(PHOTO), "--classes", "cat,dog", "--json")
    benchmark.pedantic(ovseg, arguments, rounds=full(3, 1), warmup_rounds=full(1, 0))
