"""What is found at positions, shared among those that look alike.

A class spreads so over its object, and a stray one is outvoted. Plain tensor operations: where a
graph is traced, no line asks how large an image is.

Letters: B image, N position, M key, D feature, C channel.
"""

import torch
from torch import Tensor
from torch.nn import functional

PIECE = 16_000_000
"""Shares that are held at once, so that memory does not grow with the square of the positions."""


def affinity(queries: Tensor, keys: Tensor, sharpness: float) -> Tensor:
    """How much each query takes from which key, float [B, N, M], each row summing to 1.

    Args:
        queries: features without what all of the image have in common, float [B, N, D].
        keys: likewise, float [B, M, D].
        sharpness: what their cosines are multiplied by before the softmax.
    """
    return (sharpness * cosines(queries, keys)).softmax(dim=-1)


def cosines(queries: Tensor, keys: Tensor) -> Tensor:
    """Of each of [B, N, D] with each of [B, M, D], float [B, N, M]."""
    return functional.normalize(queries, dim=-1) @ functional.normalize(keys, dim=-1).mT


def mixed(values: Tensor, features: Tensor, sharpness: float, rounds: int) -> Tensor:
    """Values of positions, [B, N, C], each made a mean over those of like features, [B, N, D].

    Args:
        sharpness: as `affinity`.
        rounds: how often.
    """
    own = features - features.mean(dim=1, keepdim=True)
    for _ in range(rounds):
        values = torch.cat([affinity(part, own, sharpness) @ values for part in _parts(own)], dim=1)
    return values


def _parts(queries: Tensor) -> tuple[Tensor, ...]:
    """Queries [B, N, D] a few at a time, as all are compared with all."""
    if torch.compiler.is_compiling():
        return (queries,)
    positions = queries.shape[0] * queries.shape[1]
    return queries.split(max(PIECE // max(positions, 1), 1), dim=1)
