"""The one place that knows of several processes."""

import os
from collections.abc import Iterable
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


def sum_over_processes(values: "Tensor") -> "Tensor":
    """Sum of a tensor over all processes; gradients flow back to each of them."""
    from torch import distributed

    if not (distributed.is_available() and distributed.is_initialized()):
        return values
    return _sum_function().apply(values)


@cache
def _sum_function() -> Any:
    """The autograd function, made on first use since this module is imported without torch too."""
    import torch
    from torch import distributed

    class SumOverProcesses(torch.autograd.Function):
        @staticmethod
        def forward(context: Any, values: "Tensor") -> "Tensor":
            del context
            total = values.contiguous().clone()
            distributed.all_reduce(total)
            return total

        @staticmethod
        def backward(context: Any, gradient: "Tensor") -> "Tensor":
            # Every process's loss depends on the sum, so each summand wants all their gradients.
            del context
            total = gradient.contiguous().clone()
            distributed.all_reduce(total)
            return total

    return SumOverProcesses


_BUCKET = 32_000_000  # numbers that are sent together; all at once would double the memory


def average_gradients(parameters: "Iterable[Tensor]", world_size: int) -> None:
    """Replace each gradient by its mean over all processes, bucket by bucket.

    Every process must hold gradients for the same parameters. A number that is not finite in one
    process is not finite in all of them afterwards.
    """
    if world_size == 1:
        return
    bucket: list[Tensor] = []
    for parameter in parameters:
        if parameter.grad is None:
            continue
        bucket.append(parameter.grad)
        if sum(gradient.numel() for gradient in bucket) >= _BUCKET:
            _average(bucket, world_size)
            bucket = []
    _average(bucket, world_size)


def _average(bucket: "list[Tensor]", world_size: int) -> None:
    if not bucket:
        return
    import torch
    from torch import distributed

    flat = torch.cat([gradient.flatten() for gradient in bucket])
    distributed.all_reduce(flat)
    flat /= world_size
    for gradient, mean in zip(bucket, flat.split([g.numel() for g in bucket]), strict=True):
        gradient.copy_(mean.view_as(gradient))
