"""The one place that knows of several processes."""

import os
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, TypeVar

from ovseg.errors import MissingDependencyError

if TYPE_CHECKING:
    from torch import Tensor

T = TypeVar("T")


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


@dataclass(frozen=True)
class Processes:
    """The processes that work together: this one's rank, how many there are, its device.

    Attributes:
        rank: 0 for the one that prints.
        size: 1 where there is only this one.
        device: the device meant for this process, as torch names it; None where it may choose.
    """

    rank: int = 0
    size: int = 1
    device: str | None = None

    def wait(self) -> None:
        """Go on when every process has come here."""
        if self.size > 1:
            from accelerate import PartialState

            PartialState().wait_for_everyone()

    def gather(self, value: T) -> list[T]:
        """The values of all processes in the order of their ranks, in every process."""
        if self.size == 1:
            return [value]
        from accelerate.utils import gather_object

        return list(gather_object([value]))


def processes() -> Processes:
    """The processes that a launcher such as `accelerate launch` has started, or this one alone.

    Raises:
        MissingDependencyError: there are several, and accelerate is not installed.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) <= 1:
        return Processes()
    try:
        from accelerate import PartialState
    except ImportError as error:
        raise MissingDependencyError("accelerate", "eval", "several processes") from error
    state = PartialState()
    return Processes(state.process_index, state.num_processes, str(state.device))


def mean_over_processes(values: "Tensor") -> "Tensor":
    """Mean of a tensor over all processes, without gradients; its own in a single one."""
    from torch import distributed

    if not (distributed.is_available() and distributed.is_initialized()):
        return values
    total = values.clone()
    distributed.all_reduce(total)
    return total / distributed.get_world_size()
