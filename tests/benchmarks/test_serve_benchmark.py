"""What the service costs beside the bare segmenter: requests a second with 1, 8 and 64 clients.

python -m pytest tests/benchmarks/test_serve_benchmark.py --benchmark-only -s

Server and clients are processes of their own on this machine; both sides take the same bytes, in
turns, and the share is the median over the rounds.
"""

import http.client
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from statistics import median

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from ovseg.inference.segmenter import Segmenter
from tests.benchmarks.sizes import full
from tests.conftest import ROOT

BODY = (ROOT / "examples" / "chelsea.png").read_bytes()
REQUESTS = full(64, 2)
ROUNDS = full(3, 1)
CLASSES = "cat,dog"

pytest.importorskip("fastapi", reason="the extra serve is not here")


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    command = [sys.executable, "-m", "ovseg_cli", "serve", "--port", "0", "--max-requests", "128"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        yield int(process.stderr.readline().split("/segment")[0].rpartition(":")[2])
        process.terminate()


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("clients", [1, 8, 64])
def test_requests_a_second(benchmark: BenchmarkFixture, port: int, clients: int) -> None:
    segmenter = Segmenter.from_pretrained("starter", "cpu")

    def bare(count: int) -> None:
        for _ in range(count):
            segmenter.segment(BODY, CLASSES).summary()

    def served(count: int) -> None:
        with ThreadPoolExecutor(clients) as pool:
            list(pool.map(lambda share: ask(port, share), shares(count, clients)))

    bare(1), served(clients)
    alone: list[float] = []
    asked: list[float] = []

    def both() -> None:
        alone.append(rate(bare))
        asked.append(rate(served))

    benchmark.pedantic(both, rounds=ROUNDS)
    share = median(there / here for there, here in zip(asked, alone, strict=True))
    benchmark.extra_info["share"] = share
    print(
        f"\n{clients} clients: {median(asked):.2f} requests/s, bare {median(alone):.2f} images/s, "
        f"{share:.1%} of it"
    )


def rate(work: Callable[[int], None]) -> float:
    began = time.perf_counter()
    work(REQUESTS)
    return REQUESTS / (time.perf_counter() - began)


def shares(count: int, clients: int) -> list[int]:
    return [count // clients + (number < count % clients) for number in range(clients)]


def ask(port: int, times: int) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=300)
    headers = {"content-type": "image/png"}
    for _ in range(times):
        connection.request("POST", f"/segment?classes={CLASSES}", BODY, headers)
        answer = connection.getresponse()
        assert answer.status == 200, answer.read()
        answer.read()
    connection.close()
