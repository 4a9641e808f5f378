"""The guided filter: scores become, in every small square, a linear function of the colours.

He, Sun and Tang, TPAMI 2013, section 3.4 (a guide of three channels), by He and Sun's quick way
(arXiv 1505.00996): the functions are found on a smaller image and applied to the whole one. No
training and no features, and what the colours do not tell apart stays smooth.

Letters: L map, H W pixels, h w pixels of the smaller image.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import numpy as np

from ovseg.inference.resize import as_array, resize_bilinear
from ovseg.models.interface import Array, array_namespace

_TAKES = ((0, 0), (0, 1), (0, 2), (1, 1), (1, 2), (2, 2))  # of a symmetric matrix


@dataclass(frozen=True)
class GuidedFilter:
    """Settings of the filter.

    Attributes:
        radius: of the squares, as a share of the shorter side; at least one pixel of the smaller
            image.
        epsilon: variance of colours, of 0..1, below which a square counts as flat.
        side: shorter side in pixels of the image that the functions are found on; a smaller image
            is taken as it is.
    """

    radius: float = 0.02
    epsilon: float = 1e-3
    side: int = 224

    __pydantic_config__: ClassVar[Any] = {"extra": "forbid"}

    def guided_by(self, image: Array) -> "ImageGuide":
        """The filter for the maps of an image, RGB in 0..1, float [3, H, W]."""
        return ImageGuide(image, self)


@dataclass(frozen=True)
class ImageGuide:
    """What the filter needs of one image, worked out once for all its maps.

    Attributes:
        image: RGB in 0..1, float [3, H, W].
        settings: of the filter.
    """

    image: Array
    settings: GuidedFilter

    keeps_range = False  # a linear function goes on beyond the values it was found for

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns (H, W)."""
        return self.image.shape[1], self.image.shape[2]

    def refine(self, maps: Array) -> Array:
        """Maps [L, h, w] of any size, filtered: [L, H, W]."""
        xp: Any = array_namespace(maps)
        small = self._small
        size = (small.shape[1], small.shape[2])
        maps = resize_bilinear(maps, size)
        mean = self._smooth(maps)
        shared = [self._smooth(maps * c) - mean * m for c, m in zip(small, self._mean, strict=True)]
        slopes = [
            sum(self._inverse[row][column] * shared[column] for column in range(3))
            for row in range(3)
        ]
        level = mean - sum(s * m for s, m in zip(slopes, self._mean, strict=True))
        result = resize_bilinear(self._smooth(level), self.shape)
        for slope, channel in zip(slopes, self.image, strict=True):
            result = result + resize_bilinear(self._smooth(slope), self.shape) * channel
        return xp.astype(result, maps.dtype)

    @cached_property
    def _small(self) -> Array:
        """The image that the functions are found on, [3, h, w]: means of its pixels."""
        rows, columns = self.shape
        factor = min(self.settings.side / min(rows, columns), 1.0)
        size = (max(round(rows * factor), 1), max(round(columns * factor), 1))
        return self._averaged(size)

    def _averaged(self, size: tuple[int, int]) -> Array:
        xp: Any = array_namespace(self.image)
        down, across = (
            as_array(_mean_table(length, wanted), self.image)
            for length, wanted in zip(self.shape, size, strict=True)
        )
        return down @ self.image @ xp.matrix_transpose(across)

    @cached_property
    def _tables(self) -> tuple[Array, Array]:
        """Means over the pixels within the radius, along the two axes: [h, h] and [w, w]."""
        rows, columns = self._small.shape[1:]
        radius = max(round(self.settings.radius * min(rows, columns)), 1)
        return (
            as_array(_box_table(rows, radius), self.image),
            as_array(_box_table(columns, radius), self.image),
        )

    def _smooth(self, maps: Array) -> Array:
        """Maps [..., h, w] averaged over the squares."""
        xp: Any = array_namespace(maps)
        down, across = self._tables
        return down @ maps @ xp.matrix_transpose(across)

    @cached_property
    def _mean(self) -> Array:
        return self._smooth(self._small)  # [3, h, w]

    @cached_property
    def _inverse(self) -> list[list[Array]]:
        """The inverse of each square's covariance of colours, epsilon on its diagonal, [h, w]."""
        small, mean = self._small, self._mean
        c = {
            (i, j): self._smooth(small[i] * small[j])
            - mean[i] * mean[j]
            + (self.settings.epsilon if i == j else 0.0)
            for i, j in _TAKES
        }
        rr, rg, rb, gg, gb, bb = (c[each] for each in _TAKES)
        first = (gg * bb - gb * gb, rb * gb - rg * bb, rg * gb - rb * gg)
        size = rr * first[0] + rg * first[1] + rb * first[2]  # the determinant
        second = (rr * bb - rb * rb, rb * rg - rr * gb)
        third = rr * gg - rg * rg
        inverse = [
            [first[0], first[1], first[2]],
            [first[1], second[0], second[1]],
            [first[2], second[1], third],
        ]
        return [[each / size for each in row] for row in inverse]


def _mean_table(length: int, wanted: int) -> np.ndarray:
    """Shares of pixels in the mean of each of fewer ones, float64 [wanted, length]."""
    step = length / wanted
    edges = np.arange(wanted + 1) * step
    low, high = edges[:-1, None], edges[1:, None]
    place = np.arange(length)
    return np.clip(np.minimum(high, place + 1) - np.maximum(low, place), 0, None) / step


def _box_table(length: int, radius: int) -> np.ndarray:
    """Shares of the pixels within a radius, those beyond the edge left out, [length, length]."""
    place = np.arange(length)
    near = (np.abs(place[:, None] - place) <= radius).astype(float)
    return near / near.sum(axis=1, keepdims=True)
