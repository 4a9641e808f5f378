"""Damaged inputs at every door, as many as time allows."""

import sys
import time
import zlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory

from tests.campaign.doors import DOORS, emptied
from tests.campaign.report import Attempt, End, Report
from tests.campaign.worker import Reader, reader

ALL_OF_THEM = 50_000


def fuzz(
    minutes: float, seed: int, count: int = ALL_OF_THEM, doors: Sequence[str] = (), workers: int = 2
) -> Report:
    """Read damaged inputs, the doors in turn.

    Input n of a door is the same whenever the seed is.

    Args:
        minutes: after which no more are begun.
        count: inputs in all.
        doors: their names; all of them by default.
        workers: processes beside each other.
    """
    end = time.monotonic() + 60 * minutes
    names = list(doors) or list(DOORS)
    report = Report()
    with ThreadPoolExecutor(workers) as pool, TemporaryDirectory() as folder:
        shares = [
            pool.submit(_share, names, range(number, count, workers), seed, Path(folder), end)
            for number in range(workers)
        ]
        for share in shares:
            report.attempts += share.result()
    report.attempts.sort(key=lambda attempt: names.index(attempt.group))
    return report


def replay(corpus: Path) -> Report:
    """Read inputs that were once trouble: files in folders called as their doors."""
    report = Report()
    with reader() as process:
        for path in sorted(corpus.glob("*/*")):
            report.add(process.read(path.parent.name, path, str(path)))
    return report


def _share(names: list[str], numbers: range, seed: int, folder: Path, end: float) -> list[Attempt]:
    with reader() as process:
        return list(_attempts(process, names, numbers, seed, folder / str(numbers.start), end))


def _attempts(
    process: Reader, names: list[str], numbers: range, seed: int, folder: Path, end: float
) -> Iterator[Attempt]:
    for number in numbers:
        if time.monotonic() > end:
            return
        name = names[number % len(names)]
        place = emptied(folder)
        path = DOORS[name].make(place, Random(zlib.crc32(f"{seed} {name} {number}".encode())))
        attempt = process.read(name, path, f"seed {seed}, number {number}")
        if attempt.end not in (End.REFUSED, End.ACCEPTED):
            attempt = process.read(name, path, attempt.input)  # is it so again?
            print(attempt, file=sys.stderr, flush=True)  # the table comes an hour later
        yield attempt
