"""How the classifier is read at every position of an image.

Letters: B image, H W pixels, h w grid rows and columns, N = h*w position, D feature, C class,
S kind of surroundings.

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
ROUNDS = 2
"""How often they are mixed."""


class Reading(NamedTuple):
    """Probabilities at every position, float [B, h*w, C + S], and the grid (h, w)."""

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
        logits = ((fine + coarse) / 2).flatten(2).mT  # [B, N, C]
        shares = affinity(features)
        for _ in range(ROUNDS):
            logits = shares @ logits
        surroundings = probability(self.surroundings(pixels))
        found = torch.cat([logits.softmax(dim=-1), surroundings], dim=-1)
        return Reading(found, grid)


def affinity(features: Tensor) -> Tensor:
    """How much each position takes from which, float [B, N, N], each row summing to 1.

    Positions of like features share what they see, so that a class spreads over its object and a
    stray one is outvoted. Features are compared without what all positions have in common.
    """
    vectors = features.flatten(2).mT  # [B, N, D]
    vectors = functional.normalize(vectors - vectors.mean(dim=1, keepdim=True), dim=-1)
    return (SHARPNESS * vectors @ vectors.mT).softmax(dim=-1)
