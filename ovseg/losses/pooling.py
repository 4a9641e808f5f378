"""From scores at positions to the score of a whole image, and Talk2DINO's choice of heads.

A word is somewhere in an image, not everywhere: what counts is how well its best positions fit.

Letters: B image, T text, N position, H head, C embedding width.
"""

import math
from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

Pooling = Literal["mean", "maximum", "attention"]


def position_scores(positions: Tensor, texts: Tensor) -> Tensor:
    """Cosine of every text at every position, float [B, T, N].

    Args:
        positions: float [B, N, C], not normalised.
        texts: float [T, C], not normalised.
    """
    positions, texts = unit(positions), unit(texts)
    return torch.einsum("bnc,tc->btn", positions, texts)


def pooled(scores: Tensor, pooling: Pooling, sharpness: float) -> Tensor:
    """One score for each row of positions, [..., N] to [...]."""
    return _POOLINGS[pooling](scores, sharpness)


def smooth_maximum(scores: Tensor, sharpness: float) -> Tensor:
    """`log(mean(exp(sharpness * s))) / sharpness`: between the mean (0) and the maximum (infinity).

    Args:
        scores: float [..., N].
        sharpness: above 0.
    """
    largest = torch.logsumexp(sharpness * scores, dim=-1)
    return (largest - math.log(scores.shape[-1])) / sharpness


def own_attention(scores: Tensor, sharpness: float) -> Tensor:
    """Mean of the scores, weighted by their own softmax, through which no gradient flows.

    Every position learns in proportion to its weight alone: with gradients through the weights a
    score could rise by making the others smaller.

    Args:
        scores: float [..., N].
        sharpness: what scores are multiplied by before the softmax.
    """
    weights = (sharpness * scores.detach()).softmax(dim=-1)
    return (weights * scores).sum(dim=-1)


def _mean(scores: Tensor, sharpness: float) -> Tensor:
    del sharpness
    return scores.mean(dim=-1)


_POOLINGS: dict[Pooling, Callable[[Tensor, float], Tensor]] = {
    "mean": _mean,
    "maximum": smooth_maximum,
    "attention": own_attention,
}


def chosen_heads(heads: Tensor, texts: Tensor) -> Tensor:
    """Of each image's head vectors the one nearest to its own caption, float [B, C].

    Talk2DINO's selection (Barsellotti et al. 2024, section 3.2): no gradient flows through the
    choice.

    Args:
        heads: float [B, H, C], not normalised.
        texts: each image's own caption, float [B, C], not normalised.
    """
    with torch.no_grad():
        likeness = torch.einsum("bhc,bc->bh", unit(heads), unit(texts))
        best = likeness.argmax(dim=1)  # [B]
    return heads[torch.arange(len(heads), device=heads.device), best]


def unit(x: Tensor) -> Tensor:
    """Rows of length 1, in float32 at least."""
    return functional.normalize(x if x.dtype == torch.float64 else x.float(), dim=-1)
