"""Running a function over many inputs, here or on a cluster, with the results in order."""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import TypeVar

from ovseg.data.processes import worker_pool
from ovseg.errors import UsageError

Input = TypeVar("Input")
Output = TypeVar("Output")

LOCAL, RAY, PYSPARK = "local", "ray", "pyspark"


@dataclass(frozen=True)
class Engine:
    """Where the work is done: `kind` local, ray or pyspark (which fetches only).

    `workers` processes; 0 takes as many as this process may use cores. `address` of the Ray
    cluster; empty takes RAY_ADDRESS, or else starts one on this machine.
    """

    kind: str = LOCAL
    workers: int = 0
    address: str = ""

    def __post_init__(self) -> None:
        if self.kind not in (LOCAL, RAY, PYSPARK):
            raise UsageError(f"unknown engine {self.kind!r}: local, ray or pyspark")
        if self.workers < 0:
            raise UsageError("--workers must be 0 (one per core) or more")

    @property
    def processes(self) -> int:
        """How many processes to use."""
        if self.workers:
            return self.workers
        count = getattr(os, "sched_getaffinity", lambda _: range(os.cpu_count() or 1))(0)
        return len(count)

    def session(self) -> AbstractContextManager[None]:
        """Keeps what the engine needs between runs: the connection to a Ray cluster."""
        if self.kind == RAY:
            from ovseg.data.corpus.ray_engine import connected

            return connected(self)
        return nullcontext()

    def run(self, function: Callable[[Input], Output], inputs: Sequence[Input]) -> Iterator[Output]:
        """Results in the order of the inputs. `function` and `inputs` must be picklable."""
        if self.kind == RAY:
            from ovseg.data.corpus.ray_engine import run_on_ray

            return run_on_ray(function, inputs, self)
        if self.processes == 1 or len(inputs) < 2:
            return map(function, inputs)
        return _run_in_processes(function, inputs, min(self.processes, len(inputs)))


def _run_in_processes(
    function: Callable[[Input], Output], inputs: Iterable[Input], workers: int
) -> Iterator[Output]:
    """Like `map`, a few inputs ahead of what is taken."""
    with worker_pool(workers) as pool:
        waiting: deque[Future[Output]] = deque()
        for item in inputs:
            waiting.append(pool.submit(function, item))
            if len(waiting) > 2 * workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
