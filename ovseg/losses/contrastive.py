"""Which caption belongs to which image, and which prompt to which answer of the entity decoder.

Image-caption contrast and masked entity completion (Xu et al., equations 4 and 5) are one loss.

Letters: B row of this process, A row of all processes, C embedding width.
"""

import torch
from torch import Tensor
from torch.nn import functional

from ovseg.distributed import gather_rows


def contrastive_loss(
    left: Tensor,
    right: Tensor,
    scale: Tensor,
    valid: Tensor | None = None,
    rank: int = 0,
    world_size: int = 1,
) -> Tensor:
    """Symmetric cross-entropy between paired rows, over the batch of all processes.

    Averaged over processes, as data parallel training averages gradients, the results are the loss
    of the whole batch. Computed in float32 at least: exponentials of cosines times 100 do not fit
    half precision.

    Args:
        left, right: embeddings whose rows belong together, float [B, C], not normalised.
        scale: what cosines are multiplied by, float [].
        valid: rows that count, bool [B]; others are neither targets nor negatives. All by default.
        rank, world_size: this process and how many there are; B is the same in each.

    Returns:
        The loss, float []; 0 (with zero gradients) where no row counts.
    """
    left, right = _unit(left), _unit(right)
    if valid is None:
        valid = torch.ones(len(left), dtype=torch.bool, device=left.device)
    all_left = gather_rows(left, world_size)  # [A, C]
    all_right = gather_rows(right, world_size)
    all_valid = gather_rows(valid, world_size)  # [A]
    target = torch.arange(len(left), device=left.device) + rank * len(left)
    total = _cross_entropy(scale * left @ all_right.T, target, valid, all_valid)
    total = total + _cross_entropy(scale * right @ all_left.T, target, valid, all_valid)
    return total / 2 * world_size / all_valid.sum().clamp_min(1)


def _unit(x: Tensor) -> Tensor:
    return functional.normalize(x if x.dtype == torch.float64 else x.float(), dim=-1)


def _cross_entropy(logits: Tensor, target: Tensor, valid: Tensor, columns: Tensor) -> Tensor:
    """Sum over valid rows, among valid columns. A finite floor keeps rows without any from NaN."""
    logits = logits.masked_fill(~columns, torch.finfo(logits.dtype).min)
    losses = functional.cross_entropy(logits, target, reduction="none")  # [B]
    return losses.where(valid, 0).sum()
