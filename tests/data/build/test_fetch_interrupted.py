"""Fetching that is killed again and again ends with the bytes of a fetch that was not."""

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from ovseg_cli.__main__ import run
from tests.data.build.hostile import Server, hostile_server

pytest.importorskip("img2dataset")

# Blocked, since webdataset, which img2dataset imports, would spend seconds on importing it.
COMMAND = (
    "import sys; sys.modules['torch'] = None; "
    "from ovseg_cli.__main__ import run; sys.exit(run(sys.argv[1:]))"
)
OPTIONS = (
    "--entities paper100 --image-size 32 --workers 1 --set source.url_column=0 "
    '--set source.caption_columns=["1"] --set build.pairs_per_shard=6 --set build.partners=2 '
    "--set fetch.threads=2 --set fetch.allow_private_hosts=true"
)


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with hostile_server() as running:
        yield running


def _arguments(server: Server, folder: Path, output: str) -> list[str]:
    table = folder / "rows.tsv"
    names = ["slow", "missing", "slow", "slow", "empty", "slow"]
    table.write_text(
        "".join(
            f"http://127.0.0.1:{server.server_port}/{names[n % 6]}.jpg?{n}\ta dog and a cat {n}\n"
            for n in range(60)
        )
    )
    return ["build-dataset", str(table), "--output", str(folder / output), *OPTIONS.split()]


def _contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name != ".lock"}


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_killed_while_fetching_it_ends_with_the_same_bytes(server: Server, tmp_path: Path) -> None:
    chance = random.Random(0)
    arguments = _arguments(server, tmp_path, "killed")
    fetched = []
    for _ in range(2):
        before = len(server.requests)
        process = subprocess.Popen(
            [sys.executable, "-c", COMMAND, *arguments],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        wanted = before + chance.randrange(14, 24)
        while len(server.requests) < wanted and process.poll() is None:
            time.sleep(0.002)
        assert process.poll() is None, "the build was not caught at work"
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        fetched.append(len(list((tmp_path / "killed").glob("*_stats.json"))))
    assert 0 < fetched[0] < fetched[1] < 10
    before = len(server.requests)
    assert run(arguments) == 0
    assert len(server.requests) - before == 6 * (10 - fetched[1])  # only what was missing
    assert run(_arguments(server, tmp_path, "whole")) == 0
    assert _contents(tmp_path / "killed") == _contents(tmp_path / "whole")
