"""Keeping each tower's own neighbourhoods: the regulariser of STRUCTURE (arXiv 2506.16895).

Letters: B row, D width of a tower, C embedding width.
"""

import torch
from torch import Tensor

from ovseg.losses.pooling import unit


def neighbourhood_loss(
    original: Tensor, aligned: Tensor, temperature: float = 0.05, levels: int = 1
) -> Tensor:
    """How far the neighbourhoods of a batch are from those that the frozen tower sees, float [].

    Rows are brought to unit length and the batch's mean is taken off; P = softmax(X X' / t) and
    Q = softmax(Z Z' / t) say who is whose neighbour. The loss is the Jensen-Shannon divergence of
    their rows, averaged over rows and over the powers P^l, Q^l of `levels`.

    Args:
        original: the tower's features, float [B, D]; no gradient flows into them.
        aligned: the same rows after the trained part, float [B, C].
        temperature: t.
        levels: neighbours of neighbours up to this many steps.
    """
    p = step = _neighbours(original.detach(), temperature)
    q = aligned_step = _neighbours(aligned, temperature)
    total = _divergence(p, q)
    for _ in range(levels - 1):
        p, q = p @ step, q @ aligned_step
        total = total + _divergence(p, q)
    return total / levels


def _neighbours(x: Tensor, temperature: float) -> Tensor:
    """Probability of going from each row to each other, [B, B]."""
    x = unit(x)
    x = x - x.mean(dim=0)
    return (x @ x.T / temperature).softmax(dim=1)


def _divergence(p: Tensor, q: Tensor) -> Tensor:
    """Jensen-Shannon divergence of rows, their mean, in nats."""
    middle = (p + q) / 2
    return (_relative(p, middle) + _relative(q, middle)).mean() / 2


def _relative(p: Tensor, m: Tensor) -> Tensor:
    """Kullback-Leibler divergence of each row, [B]; 0 log 0 is 0."""
    tiny = torch.finfo(p.dtype).tiny
    return (p * (p.clamp_min(tiny).log() - m.clamp_min(tiny).log())).sum(dim=1)
