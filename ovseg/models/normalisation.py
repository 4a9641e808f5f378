"""From one normalisation of pixels to another.

Letters: B image, H W pixels.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn


class Normalisation(NamedTuple):
    """Means and deviations that pixels were normalised with, per channel in 0..1."""

    mean: tuple[float, float, float]
    std: tuple[float, float, float]

    @classmethod
    def of_levels(
        cls, mean: tuple[float, float, float], std: tuple[float, float, float]
    ) -> "Normalisation":
        """From units of 0..255."""
        (r, g, b), (red, green, blue) = mean, std
        return cls((r / 255, g / 255, b / 255), (red / 255, green / 255, blue / 255))


IMAGENET = Normalisation((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
PLUS_MINUS_ONE = Normalisation((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))


class Renormalisation(nn.Module):
    """Undoes one normalisation and applies another: one multiplication and one addition."""

    scale: Tensor
    shift: Tensor

    def __init__(self, before: Normalisation, after: Normalisation) -> None:
        super().__init__()
        (mean, std), (new_mean, new_std) = map(torch.tensor, before), map(torch.tensor, after)
        self.register_buffer("scale", (std / new_std).view(3, 1, 1), persistent=False)
        self.register_buffer("shift", ((mean - new_mean) / new_std).view(3, 1, 1), persistent=False)

    def forward(self, pixels: Tensor) -> Tensor:
        """Of images [B, 3, H, W], or one [3, H, W]."""
        return pixels * self.scale + self.shift
