"""Runs that are killed at any moment, over and over, and must end as if nothing had happened."""

import hashlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from typing import Protocol

from tests.campaign.report import Attempt, End, Report
from tests.campaign.seeds import MADE

_ROUND = 8  # kills of one run before it may end


class Work(Protocol):
    """A long command."""

    name: str

    def run(self, output: Path, kill_at: float | None) -> bool:
        """Run it, or kill it after some seconds; whether it ended by itself and well."""

    def differences(self, output: Path, expected: Path) -> list[str]:
        """What is not as it should be at the end."""


def kill(minutes: float, seed: int, count: int = 200, works: tuple[Work, ...] = ()) -> Report:
    """Kill each command `count` times in all, eight or so times until it may end."""
    report = Report()
    for work in works or (Building(), Pretraining()):
        end = time.monotonic() + 60 * minutes / len(works or (1, 2))
        with TemporaryDirectory() as folder:
            _campaign(work, Path(folder), Random(seed), count, end, report)
    return report


def _campaign(
    work: Work, folder: Path, random: Random, count: int, end: float, report: Report
) -> None:
    whole = folder / "whole"
    if not work.run(folder / "first", None):  # imports are read from the disk
        report.add(Attempt(work.name, End.UNEXPECTED, "does not run at all"))
        return
    begun = time.monotonic()
    work.run(whole, None)
    usual = time.monotonic() - begun
    kills = rounds = 0
    while kills < count and time.monotonic() < end:
        rounds += 1
        output = folder / f"killed-{rounds}"
        for _ in range(min(_ROUND, count - kills)):
            if work.run(output, random.random() * usual):
                break
            kills += 1
            report.add(Attempt(work.name, End.REFUSED, input=f"kill {kills}"))
        ended = work.run(output, None)
        wrong = work.differences(output, whole) if ended else ["does not go on after a kill"]
        for fault in wrong:
            report.add(Attempt(work.name, End.UNEXPECTED, fault, input=f"round {rounds}"))
        report.half_written += [
            str(path.relative_to(folder)) for path in output.rglob("*") if ".ovseg-" in path.name
        ]


class Building:
    """`ovseg build-dataset` of sixteen photos, by its command line."""

    name = "build-dataset"

    def run(self, output: Path, kill_at: float | None) -> bool:
        command = [
            *(sys.executable, "-m", "ovseg_cli", "build-dataset", str(MADE / "photos")),
            *("--entities", str(MADE / "entities.toml"), "--output", str(output)),
            *("--image-size", "0", "--workers", "1"),
            *("--set", "build.pairs_per_shard=2", "--set", "build.partners=2"),
        ]
        quiet = subprocess.DEVNULL
        with subprocess.Popen(command, stdout=quiet, stderr=quiet, start_new_session=True) as run:
            try:
                return run.wait(kill_at) == 0
            except subprocess.TimeoutExpired:
                os.killpg(run.pid, signal.SIGKILL)
                run.wait()
                return False

    def differences(self, output: Path, expected: Path) -> list[str]:
        found, wanted = _contents(output), _contents(expected)
        names = sorted(found.keys() | wanted.keys())
        return [f"{name} differs" for name in names if found.get(name) != wanted.get(name)]


class Pretraining:
    """`ovseg.pretrain` of a tiny model for eight steps, saved at each second."""

    name = "pretrain"

    def run(self, output: Path, kill_at: float | None) -> bool:
        from tests.training.runs import recipe, start

        target = recipe(MADE / "dataset", "train.save_every=2", "data.workers=1")
        (process,) = start(target, output)
        process.join(kill_at if kill_at is not None else 300)
        ended = process.exitcode
        if ended is None:
            os.kill(process.pid, signal.SIGKILL)
            process.join()
        return ended == 0

    def differences(self, output: Path, expected: Path) -> list[str]:
        from tests.training.runs import log_of

        wrong = [
            f"{name} differs"
            for name in ("last.safetensors", "checkpoints/step-00000008/optimizer.safetensors")
            if (output / name).read_bytes() != (expected / name).read_bytes()
        ]
        return wrong + (["log.jsonl differs"] if log_of(output) != log_of(expected) else [])


def _contents(folder: Path) -> dict[str, str]:
    """Hashes of all files but the report, which shows times."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != "report.html"
    }


WORKS: dict[str, Callable[[], Work]] = {"build-dataset": Building, "pretrain": Pretraining}
