"""Batches on their way to the device, made ahead of time by worker processes."""

import signal
from collections.abc import Iterable, Iterator
from typing import Any, cast

import cv2
import torch
from torch.utils.data import DataLoader

from ovseg.training.batch import Batch
from ovseg.training.feed.maker import BatchMaker
from ovseg.training.feed.pairs import Draw

_AHEAD = 4  # batches that each worker makes before they are needed


def load_batches(
    maker: BatchMaker, sampler: Iterable[list[Draw]], workers: int, device: torch.device
) -> Iterator[Batch]:
    """The sampler's batches, in its order whatever the number of workers; still on the host."""
    loader: DataLoader[Any] = DataLoader(
        cast(Any, maker),  # whole batches by __getitems__ are all the loader asks it for
        batch_sampler=sampler,
        num_workers=workers,
        collate_fn=_as_it_is,
        pin_memory=device.type == "cuda",
        prefetch_factor=_AHEAD if workers else None,
        worker_init_fn=_prepare_worker,
        # Draws nothing from torch's generator, whose state belongs to the training.
        generator=torch.Generator(),
    )
    return iter(loader)


def _as_it_is(batch: Any) -> Any:
    """The maker's items are batches already."""
    return batch


def _prepare_worker(number: int) -> None:
    """One thread each; signals meant for the run are left to the process that can save it."""
    del number
    cv2.setNumThreads(0)
    for name in ("SIGINT", "SIGTERM", "SIGUSR1"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
