"""PAMR: label scores that follow the edges of the image.

Pixel-adaptive mask refinement (Araslanov and Roth, CVPR 2020, section 3.3): each pixel takes over
the scores of neighbours that look like it, several times. No training, no parameters.

Letters: Q map, C colour channel, M neighbour (8 per dilation), H W pixels. Works on torch tensors
and NumPy arrays alike.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from typing import Any

from array_api_compat import is_torch_array

from ovseg.inference.resize import resize_bilinear
from ovseg.models.interface import Array, array_namespace

_SHARPNESS = 0.1  # share of a channel's local deviation that counts as one unit of difference
_TINY = 1e-8

PIECE = 1_200_000
"""Values of maps that move together: they stay in a processor's caches through all iterations."""


@dataclass(frozen=True)
class Pamr:
    """Settings of the refinement.

    Attributes:
        iterations: how often scores move on to the neighbours.
        dilations: distances in pixels at which a pixel's eight neighbours are taken.
    """

    iterations: int = 10
    dilations: tuple[int, ...] = (8, 16)

    def guided_by(self, image: Array) -> "PixelShares":
        """How much each pixel of a normalised image [C, H, W] takes from which neighbour."""
        return PixelShares(_shares(image, self.dilations), self)


@dataclass(frozen=True)
class PixelShares:
    """The weights of one image, computed once and used for all its maps.

    Attributes:
        weights: share of each neighbour, float [M, H, W], summing to 1 over the neighbours; the
            pixel itself has none.
        settings: what they were made with.
    """

    weights: Array
    settings: Pamr

    keeps_range = True

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of the image."""
        return self.weights.shape[1], self.weights.shape[2]

    def refine(self, maps: Array) -> Array:
        """Maps [Q, h, w] at the image's size and refined: [Q, H, W]. Each map is on its own."""
        maps = resize_bilinear(maps, self.shape, align_corners=True)
        xp: Any = array_namespace(maps)
        step = max(PIECE // (self.shape[0] * self.shape[1]), 1)
        starts = range(0, maps.shape[0], step)
        return xp.concat([self._moved(maps[start : start + step]) for start in starts], axis=0)

    def _moved(self, maps: Array) -> Array:
        """A few maps [q, H, W] after all iterations."""
        xp: Any = array_namespace(maps)
        for _ in range(self.settings.iterations):
            moved = xp.zeros_like(maps)
            neighbours = _neighbours(maps, self.settings.dilations)
            for share, neighbour in zip(self.weights, neighbours, strict=True):
                if is_torch_array(moved):
                    moved.addcmul_(share, neighbour)
                else:
                    moved += share * neighbour
            maps = moved
        return maps


def _shares(image: Array, dilations: tuple[int, ...]) -> Array:
    xp: Any = array_namespace(image)
    unit = _TINY + _SHARPNESS * _local_deviation(image, dilations)  # [C, H, W]
    likeness = [
        -xp.mean(xp.abs(image - neighbour) / unit, axis=0)
        for neighbour in _neighbours(image, dilations)
    ]
    logits = xp.stack(likeness)  # [M, H, W]
    weights = xp.exp(logits - xp.max(logits, axis=0, keepdims=True))
    return weights / xp.sum(weights, axis=0, keepdims=True)


def _local_deviation(image: Array, dilations: tuple[int, ...]) -> Array:
    """Unbiased deviation over all neighbours and, once per dilation, the pixel itself."""
    xp: Any = array_namespace(image)
    count = 9 * len(dilations)
    total, square = xp.zeros_like(image), xp.zeros_like(image)
    for neighbour in _neighbours(image, dilations):
        away = neighbour - image  # around the pixel: no cancellation, and the pixel itself adds 0
        total = total + away
        square = square + away * away
    variance = (square - total * total / count) / (count - 1)
    return xp.sqrt(xp.clip(variance, 0, None))


def _neighbours(maps: Array, dilations: tuple[int, ...]) -> Iterator[Array]:
    """The eight neighbours of every pixel per dilation, edges repeated, each [Q, H, W]."""
    height, width = maps.shape[1], maps.shape[2]
    for dilation in dilations:
        padded = _repeat_edges(maps, dilation)
        for row, column in product((0, dilation, 2 * dilation), repeat=2):
            if (row, column) != (dilation, dilation):
                yield padded[:, row : row + height, column : column + width]


def _repeat_edges(maps: Array, pixels: int) -> Array:
    """Pad [Q, H, W] on all four sides with the outermost values."""
    xp: Any = array_namespace(maps)
    maps = xp.concat([maps[:, :1]] * pixels + [maps] + [maps[:, -1:]] * pixels, axis=1)
    return xp.concat([maps[:, :, :1]] * pixels + [maps] + [maps[:, :, -1:]] * pixels, axis=2)
