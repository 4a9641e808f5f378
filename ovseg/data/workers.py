"""Work done by several: in order, by processes that start clean and end with their parent."""

import multiprocessing
import os
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from itertools import count
from multiprocessing.context import SpawnContext, SpawnProcess
from typing import Any, TypeVar

from ovseg.distributed import deaf_children
from ovseg.errors import DataError

T = TypeVar("T")
_END: Any = object()
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


def read_ahead(items: Iterable[T], ahead: int = 2) -> Iterator[T]:
    """The same items, the next ones made by a thread while one is worked on."""
    source = iter(items)
    with ThreadPoolExecutor(1) as pool:
        for (found,) in map_chunks(
            pool, lambda _: next(source, _END), ([_END] for _ in count()), ahead
        ):
            if found is _END:
                return
            yield found


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
    pool = ProcessPoolExecutor(workers, _Workers(), initializer=_leave_with_parent)
    try:
        yield pool
    except BrokenProcessPool as error:
        raise DataError(
            "a worker process was killed, perhaps for memory: run the same command again, "
            "with fewer --workers"
        ) from error
    except GeneratorExit:
        raise
    except BaseException as error:
        if not isinstance(error, Exception):  # an interrupt waits for nobody's work
            _end_workers()
        raise
    finally:
        pool.shutdown(cancel_futures=True)


class _Worker(SpawnProcess):
    """A process that leaves interrupts to its parent, from its first import on."""

    def start(self) -> None:
        with deaf_children():
            super().start()


class _Workers(SpawnContext):
    """Starts clean processes: a forked child of one with threads (polars, arrow) may hang."""

    Process = _Worker


def _end_workers() -> None:
    for process in multiprocessing.active_children():
        if isinstance(process, _Worker):
            process.kill()


def _leave_with_parent() -> None:
    """End this worker when its parent dies; a killed parent cannot tell it to."""
    parent = multiprocessing.parent_process()

    def watch() -> None:
        if parent is not None:
            parent.join()
            os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
