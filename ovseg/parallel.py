"""The one place that knows of several processes."""

import os
from functools import cache
from typing import TYPE_CHECKING, Any

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
    return _gather_function().apply(rows)


@cache
def _gather_function() -> Any:
    """The autograd function, made on first use since this module is imported without torch too."""
    import torch
    from torch import distributed

    class GatherRows(torch.autograd.Function):
        @staticmethod
        def forward(context: Any, rows: "Tensor") -> "Tensor":
            context.count = len(rows)
            parts = [torch.empty_like(rows) for _ in range(distributed.get_world_size())]
            distributed.all_gather(parts, rows.contiguous())
            return torch.cat(parts)

        @staticmethod
        def backward(context: Any, gradient: "Tensor") -> "Tensor":
            # Each process has the gradient of its own loss by all rows; a row wants the sum.
            total = gradient.contiguous().clone()
            distributed.all_reduce(total)
            start = distributed.get_rank() * context.count
            return total[start : start + context.count]

    return GatherRows


def mean_over_processes(values: "Tensor") -> "Tensor":
    """Mean of a tensor over all processes, without gradients; its own in a single one."""
    from torch import distributed

    if not (distributed.is_available() and distributed.is_initialized()):
        return values
    total = values.clone()
    distributed.all_reduce(total)
    return total / distributed.get_world_size()
