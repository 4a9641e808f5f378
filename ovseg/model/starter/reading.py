"""How the classifier is read at every position of an image.

Letters: B image, H W pixels, h w grid rows and columns, N = h*w position, M = KEYS*KEYS key, D
feature, C class, S kind of surroundings.

Written as a module of plain tensor operations, without a line that asks how large the image is, so
that what is exported is what is run here. Every step was measured; docs/starter.md has the table.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from ovseg.model.starter.network import STRIDE, EfficientNetLite
from ovseg.model.starter.surroundings import Surroundings, probability

SHARPNESS = 8.0
"""What cosines of positions are multiplied by before the softmax that mixes them."""
ROUNDS = 6
"""How often they are mixed."""
KEYS = 24
"""Rows and columns of the places that positions take from, however many positions there are."""
CONTRAST = 3.0
"""How steeply the evidence rises with the deviations from the image's mean."""
USUAL = 0.5
"""The evidence of a position as strong as the image's mean: what surroundings count by."""
EPSILON = 1e-3
"""Added to a deviation that may be zero."""


class Reading(NamedTuple):
    """Probabilities at every position, float [B, h*w, C + S], and the grid (h, w).

    Those of the classes sum to the probability that there is any of them, the evidence.
    """

    probabilities: Tensor
    grid: tuple[int, int]


class PositionReader(nn.Module):
    """Probabilities at every position, from two scales, smoothed along the features.

    Args:
        network: the classifier, C classes.
        surroundings: S kinds, which come behind the classes.
    """

    def __init__(self, network: EfficientNetLite, surroundings: Surroundings) -> None:
        super().__init__()
        self.network = network
        self.surroundings = surroundings

    def forward(self, pixels: Tensor) -> Reading:
        """Read normalised images, float [B, 3, H, W], sides multiples of twice the stride."""
        features = self.network.features(pixels)  # [B, D, h, w]
        grid = (pixels.shape[-2] // STRIDE, pixels.shape[-1] // STRIDE)
        fine = self.network.classify(features)  # [B, C, h, w]
        half = self.network(functional.avg_pool2d(pixels, 2))
        coarse = functional.interpolate(half, grid, mode="bilinear", align_corners=False)
        logits = mixed((fine + coarse) / 2, features)  # [B, N, C]
        objects = logits.softmax(dim=-1) * evidence(logits)
        surroundings = probability(self.surroundings(pixels)) * USUAL
        return Reading(torch.cat([objects, surroundings], dim=-1), grid)


def mixed(logits: Tensor, features: Tensor) -> Tensor:
    """Class logits shared among positions of like features, float [B, N, C].

    A class spreads so over its object, and a stray one is outvoted. Positions take from the same
    number of keys, spread evenly over the image, so that time and memory grow with the positions
    and not with their square.

    Args:
        logits: float [B, C, h, w].
        features: float [B, D, h, w].
    """
    vectors = features.flatten(2).mT  # [B, N, D]
    common = vectors.mean(dim=1, keepdim=True)
    keys = _at_keys(features) - common  # [B, M, D]
    values = _at_keys(logits)  # [B, M, C]
    among_keys = affinity(keys, keys)
    for _ in range(ROUNDS - 1):
        values = among_keys @ values
    return affinity(vectors - common, keys) @ values


def affinity(queries: Tensor, keys: Tensor) -> Tensor:
    """How much each query takes from which key, float [B, N, M], each row summing to 1.

    Args:
        queries: features without what all of the image have in common, float [B, N, D].
        keys: likewise, float [B, M, D].
    """
    cosines = functional.normalize(queries, dim=-1) @ functional.normalize(keys, dim=-1).mT
    return (SHARPNESS * cosines).softmax(dim=-1)


def evidence(logits: Tensor) -> Tensor:
    """How likely each position shows any of the classes at all, float [B, N, 1], of [B, N, C].

    The logarithm of the summed exponentials is low where a classifier has seen nothing like it
    (Liu et al., Energy-based Out-of-distribution Detection, NeurIPS 2020); here it is compared with
    the rest of the image.
    """
    energy = logits.logsumexp(dim=-1, keepdim=True)
    centred = energy - energy.mean(dim=1, keepdim=True)
    spread = centred.square().mean(dim=1, keepdim=True).sqrt()
    return torch.sigmoid(CONTRAST * centred / (spread + EPSILON))


def _at_keys(values: Tensor) -> Tensor:
    """A map, float [B, X, h, w], read at the keys, float [B, M, X]."""
    at = functional.interpolate(values, (KEYS, KEYS), mode="bilinear", align_corners=False)
    return at.flatten(2).mT
