"""Work done by several: in order, by processes that start clean and end with their parent."""

import multiprocessing
import os
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor, Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from typing import TypeVar

from ovseg.errors import DataError

T = TypeVar("T")
R = TypeVar("R")

Progress = Callable[[str, int, int | None], None]
"""Called with the step, how much of it is done, and how much there is (None: not known)."""


def silent(step: str, done: int, total: int | None) -> None:
    """A progress that nobody wants to see."""
    del step, done, total


def map_chunks(
    pool: Executor, work: Callable[[T], R], chunks: Iterable[Sequence[T]], ahead: int
) -> Iterator[list[R]]:
    """The results of chunk after chunk, in order, with `ahead` further chunks under way."""
    pending: deque[list[Future[R]]] = deque()
    for chunk in chunks:
        pending.append([pool.submit(work, item) for item in chunk])
        if len(pending) > ahead:
            yield [future.result() for future in pending.popleft()]
    while pending:
        yield [future.result() for future in pending.popleft()]


def map_in_processes(work: Callable[[T], R], items: Iterable[T], workers: int) -> Iterator[R]:
    """Like `map` in so many processes, a few items ahead of what is taken.

    Raises:
        DataError: a worker died.
    """
    with worker_pool(workers) as pool:
        for results in map_chunks(pool, work, ([item] for item in items), ahead=2 * workers):
            yield from results


@contextmanager
def worker_pool(workers: int) -> Iterator[ProcessPoolExecutor]:
    """A pool of processes; what still waits when the block is left is cancelled.

    Raises:
        DataError: a worker died.
    """
    # A forked child of a process with threads (polars, arrow) may hang, so none is forked.
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(workers, context, initializer=_leave_with_parent)
    try:
        yield pool
    except BrokenProcessPool as error:
        raise DataError(
            "a worker process was killed, perhaps for memory: run the same command again, "
            "with fewer --workers"
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)


def _leave_with_parent() -> None:
    """End this worker when its parent dies; a killed parent cannot tell it to."""
    parent = multiprocessing.parent_process()

    def watch() -> None:
        if parent is not None:
            parent.join()
            os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
