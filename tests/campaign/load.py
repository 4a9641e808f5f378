"""Much at once, and for long: memory must stay where it was."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory

import numpy as np
from PIL import Image

from tests.campaign.report import Attempt, End, Report

_GROWTH = 60 << 20  # bytes that a process may gain after its first photos
_ROWS_LIMIT = 1500 << 20


def load(minutes: float, seed: int, rows: int = 12_000_000) -> Report:
    """`segment` over a growing folder, and a table of many rows."""
    report = Report(most_memory=_ROWS_LIMIT)
    report.add(segment_a_growing_folder(minutes, seed))
    report.add(read_many_rows(rows, seed))
    return report


def segment_a_growing_folder(
    minutes: float, seed: int, sides: tuple[int, int] = (48, 400), warm: int = 200
) -> Attempt:
    """Photos one by one through one Segmenter, as they come in; its memory is watched.

    Args:
        minutes: it takes.
        seed: of the photos.
        sides: least and greatest side, exclusive; what the largest takes is kept for the next.
        warm: photos after which memory should no longer grow.
    """
    from ovseg import Segmenter
    from ovseg.models.registry import load_model

    random, segmenter = np.random.default_rng(seed), Segmenter(load_model("starter", "cpu"))
    end, count, first, most = time.monotonic() + 60 * minutes, 0, 0, 0
    with TemporaryDirectory() as folder:
        while time.monotonic() < end:
            path = Path(folder) / f"{count:06d}.jpg"
            height, width = random.integers(*sides, 2)
            Image.fromarray(random.integers(0, 255, (height, width, 3), np.uint8)).save(path)
            segmenter.segment(path, ["cat", "dog"])
            count += 1
            now = resident()
            first = now if count == warm else first
            most = max(most, now)
    growth = most - first if first else 0
    end_of = End.ACCEPTED if first and growth < _GROWTH else End.UNEXPECTED
    what = f"{count} photos, {first / 1e6:.0f} MB after {warm}, {most / 1e6:.0f} MB at most"
    return Attempt("segment", end_of, what, growth, 60 * minutes, f"seed {seed}")


def read_many_rows(rows: int, seed: int) -> Attempt:
    """`build-dataset --dry-run` of a table of captions; its process is measured."""
    with TemporaryDirectory() as folder:
        table = Path(folder) / "many.tsv"
        _write_rows(table, rows, Random(seed))
        command = [
            *(sys.executable, "-m", "ovseg_cli", "build-dataset", str(table), "--dry-run"),
            *("--json", "--entities", "paper100", "--set", "source.url_column=url"),
        ]
        begun = time.monotonic()
        said, errors = Path(folder) / "said.json", Path(folder) / "errors.txt"
        with said.open("w") as out, errors.open("w") as wrong:
            run, peak = subprocess.Popen(command, stdout=out, stderr=wrong), 0
            while run.poll() is None:
                peak = max(peak, _most_resident(run.pid))
                time.sleep(0.05)
        seconds = time.monotonic() - begun
        text = said.read_text() if run.returncode == 0 else errors.read_text()
    found = json.loads(text)["captions_read"] if run.returncode == 0 else text[-300:]
    end = End.ACCEPTED if found == rows and peak < _ROWS_LIMIT else End.UNEXPECTED
    return Attempt("rows", end, f"{found} rows", peak, seconds, f"seed {seed}")


def resident() -> int:
    """Bytes of this process in memory."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def _most_resident(pid: int) -> int:
    """Most bytes in memory since a process began its program; what wait tells counts its parent."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0
    found = [line.split()[1] for line in status.splitlines() if line.startswith("VmHWM:")]
    return int(found[0]) * 1024 if found else 0


def _write_rows(path: Path, rows: int, random: Random) -> None:
    words = ("dog", "cat", "tree", "of", "the", "snow", "red", "ball", "street", "running")
    captions = [" ".join(random.choices(words, k=random.randint(3, 12))) for _ in range(997)]
    with path.open("w") as file:
        file.write("caption\turl\n")
        for number in range(rows):
            file.write(f"{captions[number % len(captions)]}\thttp://x/{number}.jpg\n")
