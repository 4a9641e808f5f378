"""Worker threads: chunks of work in order, and torch's own threads shared among them."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor, Future
from contextlib import contextmanager
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")


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


def compute_threads() -> int:
    """How many threads torch computes one operation with on the CPU."""
    import torch

    return torch.get_num_threads()


@contextmanager
def shared_by(workers: int) -> Iterator[None]:
    """Share torch's computing threads among worker threads that are started within.

    Several operations at once, on a thread each, finish sooner than one after the other on all
    threads: nobody waits for the slowest share of each.
    """
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(max(before // workers, 1))
    try:
        yield
    finally:
        torch.set_num_threads(before)
