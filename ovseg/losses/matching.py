"""Which texts belong to which images, from a table of scores with several right answers.

Image-caption contrast is the case of one right answer a row; words at positions and several
captions of an image are the general one. A place of the table that is neither right nor surely
wrong (a word that nobody happened to write, another photo with the same caption) is left out.

Letters: I image, T text.
"""

import torch
from torch import Tensor
from torch.nn import functional


def matching_loss(
    scores: Tensor, positive: Tensor, counted: Tensor | None = None, *, by_answer: bool = False
) -> Tensor:
    """Symmetric cross-entropy: each right answer against the wrong ones of its row and its column.

    Right answers do not compete with each other. A row is the mean over its right answers; rows
    and columns without any count for nothing.

    Args:
        scores: logits, float [I, T].
        positive: right answers, bool [I, T].
        counted: places that are wrong answers where they are not right, bool [I, T]; all by
            default.
        by_answer: among the rows every right answer counts the same, not every row: images with
            many words count more, while each word, a column, still counts as every other.

    Returns:
        The mean over rows and columns, float []; 0 (with zero gradients) where nothing is right.
    """
    scores = scores if scores.dtype == torch.float64 else scores.float()
    negative = ~positive if counted is None else counted & ~positive
    rows = _one_way(scores, positive, negative, by_answer)
    return (rows + _one_way(scores.T, positive.T, negative.T)) / 2


def _one_way(scores: Tensor, positive: Tensor, negative: Tensor, by_answer: bool = False) -> Tensor:
    # A finite floor keeps rows without any wrong answer from NaN.
    floor = torch.finfo(scores.dtype).min / 2
    against = torch.logsumexp(scores.masked_fill(~negative, floor), dim=1, keepdim=True)  # [I, 1]
    losses = functional.softplus(against - scores)  # -log of e^s / (e^s + sum of e^wrong)
    right = positive.sum(dim=1)
    if by_answer:
        return losses.where(positive, 0).sum() / right.sum().clamp_min(1)
    by_row = losses.where(positive, 0).sum(dim=1) / right.clamp_min(1)
    return by_row.sum() / (right > 0).sum().clamp_min(1)


def sigmoid_loss(
    scores: Tensor, positive: Tensor, bias: Tensor, counted: Tensor | None = None
) -> Tensor:
    """Every place a question of its own: right or wrong (SigLIP, Zhai et al. 2023; SAIL).

    Args:
        scores: logits without the bias, float [I, T].
        positive, counted: as `matching_loss`.
        bias: added to every logit, float [].

    Returns:
        The sum over counted places, by the number of rows, float [].
    """
    scores = scores if scores.dtype == torch.float64 else scores.float()
    judged = torch.ones_like(positive) if counted is None else counted | positive
    sign = positive.to(scores.dtype) * 2 - 1
    losses = functional.softplus(-sign * (scores + bias))
    return losses.where(judged, 0).sum() / max(len(scores), 1)
