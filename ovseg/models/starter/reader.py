"""How the classifier is read at every position of an image.

Letters: B image, H W pixels, h w rows and columns of features, N = h*w, M = KEYS*KEYS key, D
feature, C class, S kind of surroundings, P = 4*N position of the result.

Written as a module of plain tensor operations, without a line that asks how large the image is, so
that what is exported is what is run here. Every step was measured; docs/starter.md has the table.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from ovseg.models.normalisation import IMAGENET, PLUS_MINUS_ONE, Renormalisation
from ovseg.models.starter.network import STRIDE, EfficientNetLite
from ovseg.models.starter.saliency import SaliencyNetwork
from ovseg.models.starter.surroundings import Surroundings, probability

CELL = STRIDE // 2
"""Pixels from one position of the result to the next."""
SHARPNESS = 6.5
"""What cosines of features are multiplied by before the softmax that mixes them."""
APARTNESS = 6.0
"""What is taken off where one of two shows an object and the other does not."""
ROUNDS = 5
"""How often they are mixed."""
KEYS = 22
"""Rows and columns of the places that are mixed with each other, however large the image is."""
CONTRAST = 1.0
"""How steeply the evidence rises with the deviations from the image's mean."""
USUAL = 0.15
"""What surroundings count, beside objects whose position does not stand out."""
EPSILON = 1e-3
"""Added to a deviation that may be zero."""
FLOOR = 0.1
"""What objects and surroundings count at least, before the power below."""
STEEPNESS = 1.5
"""The power of what a class counts by how much its position stands out."""
COARSE_SHARE = 0.4
"""What the logits of the half-sized image weigh."""
SHARPENING = 0.5
"""How much of what a blur would take away is added to the half-sized image."""


class PositionReading(NamedTuple):
    """Probabilities at every position, float [B, P, C + S], and the grid of positions.

    Those of the classes sum to the probability that there is any of them.
    """

    probabilities: Tensor
    grid: tuple[int, int]


class PositionReader(nn.Module):
    """Probabilities at every position, from two scales, smoothed along the features.

    Args:
        network: the classifier, C classes.
        surroundings: S kinds, which come behind the classes.
        saliency: tells objects, whatever they are, from what surrounds them.
    """

    def __init__(
        self, network: EfficientNetLite, surroundings: Surroundings, saliency: SaliencyNetwork
    ) -> None:
        super().__init__()
        self.network = network
        self.surroundings = surroundings
        self.saliency = saliency
        self.renormalise = Renormalisation(PLUS_MINUS_ONE, IMAGENET)

    def forward(self, pixels: Tensor) -> PositionReading:
        """Read normalised images, float [B, 3, H, W], sides multiples of twice the stride."""
        features = self.network.features(pixels)  # [B, D, h, w]
        half = functional.avg_pool2d(pixels, 2)
        salience = self.saliency(self.renormalise(half))  # [B, 1, 2h, 2w]
        coarse = self.network.features(sharpened(half))
        keys = Keys(at_keys(features), at_keys(salience), self._logits(features, coarse))
        logits = mixed(features, functional.avg_pool2d(salience, 2), keys)  # [B, N, C]
        objects = logits.softmax(dim=-1) * evidence(logits)
        standing_out = (1 - FLOOR) * salience.flatten(2).mT  # [B, P, 1]
        surroundings = probability(self.surroundings(pixels)) * USUAL
        grid = (pixels.shape[-2] // CELL, pixels.shape[-1] // CELL)
        return PositionReading(
            torch.cat(
                [
                    finer(objects, grid) * (FLOOR + standing_out) ** STEEPNESS,
                    finer(surroundings, grid) * (1 - standing_out),
                ],
                dim=-1,
            ),
            grid,
        )

    def _logits(self, fine: Tensor, coarse: Tensor) -> Tensor:
        """Class logits at the keys, of two scales, float [B, M, C].

        The classifier is linear, so that mean features have mean logits.
        """
        both = (1 - COARSE_SHARE) * at_keys(fine) + COARSE_SHARE * at_keys(coarse)
        return self.network.classifier(both)


class Keys(NamedTuple):
    """Places spread evenly over an image, and what is there."""

    features: Tensor  # [B, M, D]
    salience: Tensor  # [B, M, 1]
    logits: Tensor  # [B, M, C]


def mixed(features: Tensor, salience: Tensor, keys: Keys) -> Tensor:
    """Class logits shared among places of like features, float [B, N, C].

    A class spreads so over its object, and a stray one is outvoted. All take from the same number
    of keys, so that time and memory grow with the features and not with their square.

    Args:
        features: float [B, D, h, w].
        salience: float [B, 1, h, w].
        keys: what to take from.
    """
    vectors = features.flatten(2).mT  # [B, N, D]
    common = vectors.mean(dim=1, keepdim=True)
    centred = keys.features - common
    among_keys = affinity(centred, centred, apart(keys.salience, keys.salience))
    shared = torch.linalg.matrix_power(among_keys, ROUNDS - 1) @ keys.logits
    distance = apart(salience.flatten(2).mT, keys.salience)
    return affinity(vectors - common, centred, distance) @ shared


def affinity(queries: Tensor, keys: Tensor, distance: Tensor) -> Tensor:
    """How much each query takes from which key, float [B, N, M], each row summing to 1.

    Args:
        queries: features without what all of the image have in common, float [B, N, D].
        keys: likewise, float [B, M, D].
        distance: what else keeps the two apart, float [B, N, M].
    """
    cosines = functional.normalize(queries, dim=-1) @ functional.normalize(keys, dim=-1).mT
    return (SHARPNESS * cosines - APARTNESS * distance).softmax(dim=-1)


def apart(one: Tensor, other: Tensor) -> Tensor:
    """How much salience differs, float [B, N, M], of [B, N, 1] and [B, M, 1]."""
    return (one - other.mT).abs()


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


def sharpened(pixels: Tensor) -> Tensor:
    """Images [B, 3, H, W] with more contrast at edges, which halving takes away."""
    blurred = functional.avg_pool2d(pixels, 3, 1, padding=1, count_include_pad=False)
    return pixels + SHARPENING * (pixels - blurred)


def finer(values: Tensor, grid: tuple[int, int]) -> Tensor:
    """Values at every second position, float [B, N, X], at all of a grid, float [B, P, X]."""
    maps = values.mT.unflatten(-1, (grid[0] // 2, grid[1] // 2))
    enlarged = functional.interpolate(maps, grid, mode="bilinear", align_corners=False)
    return enlarged.flatten(2).mT


def at_keys(values: Tensor) -> Tensor:
    """A map, float [B, X, h, w], read at the keys, float [B, M, X]."""
    at = functional.interpolate(values, (KEYS, KEYS), mode="bilinear", align_corners=False)
    return at.flatten(2).mT
