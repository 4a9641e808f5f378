"""A short part of every campaign, and all inputs that were once trouble."""

import json
import os
import signal
from pathlib import Path
from random import Random

import pytest

from tests.campaign import attacks, fuzz, kill, load, starve
from tests.campaign.doors import DOORS, emptied
from tests.campaign.mutations import damaged_json
from tests.campaign.report import Attempt, End, Report
from tests.campaign.worker import reader

pytestmark = pytest.mark.timeout(300)

CORPUS = Path(__file__).parent / "corpus"
QUICK_ATTACKS = ("names as paths", "dot files of others", "markup and escapes in names",
                 "output in a bucket", "private addresses")  # fmt: skip
QUICK_HUNGERS = ("files of a few bytes", "no place to write", "two at one output")


def test_a_report_knows_faults() -> None:
    report = Report(most_memory=100)
    for end in (End.REFUSED, End.ACCEPTED, End.HANG, End.DIED, End.UNEXPECTED):
        report.add(Attempt("door", end))
    report.add(Attempt("door", End.REFUSED, memory=101))
    assert len(report.faults) == 4
    assert not report.sound
    assert "| door | 6 | 2 | 1 | 1 | 1 | 1 |" in report.table()


def test_undamaged_inputs_are_accepted(tmp_path: Path) -> None:
    """Else all that the doors refuse would say nothing."""
    with reader() as process:
        for name, door in DOORS.items():
            beside = door.around() if door.around else {}
            for seed, content in door.seeds().items():
                folder = emptied(tmp_path / "in")
                for other, held in {**beside, **door.seeds(), seed: content}.items():
                    (folder / other).parent.mkdir(parents=True, exist_ok=True)
                    (folder / other).write_bytes(held)
                found = process.read(name, folder if door.around else folder / seed)
                assert found.end is End.ACCEPTED, (name, seed, found.what)
                if door.around:
                    break


def test_the_same_seed_makes_the_same_input() -> None:
    """Values that were put in are changed in the document, not where they came from."""
    document = json.dumps({"a": [1, {"b": 2}], "c": {"d": []}}).encode()
    once = [damaged_json(document, Random(seed)) for seed in range(3_000)]
    assert [damaged_json(document, Random(seed)) for seed in range(3_000)] == once


def test_hangs_and_deaths_are_seen(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("tests.campaign.worker.LONGEST", 0.3)
    path = tmp_path / "a.txt"
    path.write_bytes(b"cat\n")
    with reader() as process:
        os.kill(process.pid, signal.SIGSTOP)
        assert process.read("class file", path).end is End.HANG
        os.kill(process.pid, signal.SIGKILL)
        assert process.read("class file", path).end is End.DIED
        assert process.read("class file", path).end is End.ACCEPTED


def test_what_was_once_trouble() -> None:
    report = fuzz.replay(CORPUS)
    assert report.attempts
    assert report.sound, report.table()


def test_damaged_inputs() -> None:
    report = fuzz.fuzz(minutes=1, seed=7, count=6 * len(DOORS), workers=1)
    assert len(report.attempts) >= len(DOORS)
    assert report.sound, report.table()


def test_attacks() -> None:
    report = attacks.attack(5, 0, (*attacks.FILES, *QUICK_ATTACKS))
    assert report.sound, report.table()


def test_want() -> None:
    report = starve.starve(5, 0, QUICK_HUNGERS)
    assert report.sound, report.table()


def test_kills() -> None:
    report = kill.kill(minutes=2, seed=3, count=2)
    assert {attempt.group for attempt in report.attempts} == {"build-dataset", "pretrain"}
    assert report.sound, report.table()


def test_load() -> None:
    report = Report(most_memory=1500 << 20)
    report.add(load.segment_a_growing_folder(0.2, 0, sides=(96, 97), warm=5))
    report.add(load.read_many_rows(20_000, 0))
    assert report.sound, report.table()
