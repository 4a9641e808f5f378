"""Torch's own threads, shared among worker threads."""

from collections.abc import Iterator
from contextlib import contextmanager


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
