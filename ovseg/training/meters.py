"""Statistics between two lines of the log, gathered without waiting for the device.

Letters: B image, G group, N patch.
"""

import math
import sys
import time
from dataclasses import dataclass, field

import torch
from torch import Tensor

from ovseg.training.step import StepResult


@dataclass
class Meter:
    """Sums since the last line.

    Attributes:
        rows: losses and gradient norm of each step, float [5], still on the device.
        assignment: of patches to groups in the newest step, float [B, G, N].
        pairs, flops: of this process.
        waited: seconds in which nothing was done for want of data.
    """

    rows: list[Tensor] = field(default_factory=list)
    assignment: Tensor | None = None
    pairs: int = 0
    flops: float = 0.0
    waited: float = 0.0
    started: float = field(default_factory=time.perf_counter)

    def add(self, result: StepResult, norm: Tensor) -> None:
        """Note a step."""
        values = (result.total, result.contrastive, result.entity, result.mask, norm)
        self.rows.append(torch.stack([value.detach().float() for value in values]))
        self.assignment = result.assignment

    @property
    def seconds(self) -> float:
        """Since the last line, at least a microsecond."""
        return max(time.perf_counter() - self.started, 1e-6)

    def means(self) -> Tensor:
        """Mean of each column over its finite values, float [5]; NaN where there is none."""
        table = torch.stack(self.rows).double()  # [steps, 5]
        return table.masked_fill(~table.isfinite(), math.nan).nanmean(dim=0)


@torch.no_grad()
def assignment_entropy(soft: Tensor) -> Tensor:
    """Entropy of each patch over the groups, mean, as a share of the highest possible, float [].

    Args:
        soft: assignment, [B, G, N], adding up to 1 over the groups.
    """
    soft = soft.float()
    entropy = -(soft * soft.clamp_min(1e-12).log()).sum(dim=1).mean()
    return entropy / math.log(max(soft.shape[1], 2))


@torch.no_grad()
def groups_used(soft: Tensor) -> Tensor:
    """Mean number of groups of an image that have the most of some patch, float [].

    Args:
        soft: assignment, [B, G, N].
    """
    winner = soft.argmax(dim=1)  # [B, N]
    used = torch.zeros(soft.shape[:2], device=soft.device).scatter(1, winner, 1.0)
    return used.sum(dim=1).mean()


def memory_in_use(device: torch.device) -> int:
    """Most bytes that were in use at once: on a GPU the tensors', else the process's."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    try:
        import resource
    except ImportError:  # Windows does not tell in this way
        return 0
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
