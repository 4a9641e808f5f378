"""The one place that knows of several processes."""

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


def cpu_count() -> int:
    """Processors this process may use, which in a container is fewer than the machine has."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def gather_rows(rows: "Tensor", world_size: int) -> "Tensor":
    """Rows of all processes in the order of their ranks, [world_size * B, ...].

    Gradients flow back to the process that each row came from. Every process must call it, with the
    same number of rows; a single one gets its own rows back.
    """
    if world_size == 1:
        return rows
    import torch
    from torch import distributed
    from torch.distributed.nn.functional import all_gather

    if rows.requires_grad and torch.is_grad_enabled():
        return torch.cat(all_gather(rows))
    parts = [torch.empty_like(rows) for _ in range(world_size)]
    distributed.all_gather(parts, rows.contiguous())
    return torch.cat(parts)
