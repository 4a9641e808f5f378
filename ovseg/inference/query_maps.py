"""How well each query fits each pixel, made in pieces so that all queries never coexist.

Letters: Q query, q queries of one piece, C embedding width, W' window, h w grid of positions,
H W pixels of the result. Arrays are torch tensors or NumPy arrays.

Dense methods bring cosines to the size of the image before they compare queries: a thousand of
them at a million pixels are 4 GB. Every step up to there treats queries alike and apart, so a
piece of them at a time will do.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from array_api_compat import device

from ovseg.inference.refine import Affinity
from ovseg.inference.resize import as_array, interpolation_table, resize_bilinear
from ovseg.inference.score_maps import Box
from ovseg.models.interface import Array, array_namespace


class ImageMaps(Protocol):
    """Maps of `count` labels or queries at the pixels of an image of `shape`."""

    @property
    def count(self) -> int: ...

    @property
    def shape(self) -> tuple[int, int]: ...

    def piece(self, start: int, stop: int) -> Array:
        """Maps `start` to `stop`, float [q, H, W]."""
        ...


class QueryMaps(ImageMaps, Protocol):
    """Cosines of queries that can be had on the model's own grid, too."""

    def positions(self) -> Array:
        """All cosines on a grid as fine as the model's own, before any refinement, [h, w, Q]."""
        ...


@dataclass(frozen=True)
class GridMaps:
    """One pass over the image: cosines of a grid of positions, resized once.

    Attributes:
        cosines: float [h, w, Q].
        shape: rows and columns (H, W) of the maps.
    """

    cosines: Array
    shape: tuple[int, int]

    @property
    def count(self) -> int:
        return self.cosines.shape[2]

    def piece(self, start: int, stop: int) -> Array:
        xp: Any = array_namespace(self.cosines)
        return resize_bilinear(
            xp.permute_dims(self.cosines[..., start:stop], (2, 0, 1)), self.shape
        )

    def positions(self) -> Array:
        return self.cosines


@dataclass(frozen=True)
class Padding:
    """What was put around every window before the model saw it, in pixels.

    Attributes:
        shape: rows and columns with the padding.
        above, before: pixels of it above the window and to its left.
    """

    shape: tuple[int, int]
    above: int = 0
    before: int = 0


@dataclass(frozen=True)
class WindowMaps:
    """Overlapping windows: cosines of each, averaged where they overlap, then resized.

    Attributes:
        cosines: float [W', h, w, Q].
        boxes: where each window was in the image that was cut up.
        padding: of every window; they all have one size.
        image_shape: rows and columns of the image that was cut up.
        shape: rows and columns (H, W) of the maps.
    """

    cosines: Array
    boxes: Sequence[Box]
    padding: Padding
    image_shape: tuple[int, int]
    shape: tuple[int, int]

    @property
    def count(self) -> int:
        return self.cosines.shape[3]

    def piece(self, start: int, stop: int) -> Array:
        rows, columns = (np.arange(length) for length in self.image_shape)
        return resize_bilinear(self.averaged(start, stop, rows, columns), self.shape)

    def positions(self) -> Array:
        """The averages at the pixel in the middle of each position of a grid over the image."""
        xp: Any = array_namespace(self.cosines)
        middles = []
        for axis, length in enumerate(self.image_shape):
            step = self.padding.shape[axis] / self.cosines.shape[1 + axis]  # pixels a position
            number = max(int(length / step), 1)
            middles.append(((np.arange(number) + 0.5) * (length / number)).astype(np.int64))
        return xp.permute_dims(self.averaged(0, self.count, *middles), (1, 2, 0))

    def averaged(self, start: int, stop: int, rows: np.ndarray, columns: np.ndarray) -> Array:
        """Mean over the windows at some rows and columns of pixels of the image, ascending.

        Returns:
            float [q, rows, columns].
        """
        xp: Any = array_namespace(self.cosines)
        like = {"dtype": self.cosines.dtype, "device": device(self.cosines)}
        total = xp.zeros((stop - start, len(rows), len(columns)), **like)
        times = xp.zeros((len(rows), len(columns)), **like)
        for index, box in enumerate(self.boxes):
            inside, down = self._taps(rows, box.top, box.height, 0)
            beside, across = self._taps(columns, box.left, box.width, 1)
            maps = xp.permute_dims(self.cosines[index, ..., start:stop], (2, 0, 1))  # [q, h, w]
            total[:, inside, beside] += down @ (maps @ xp.matrix_transpose(across))
            times[inside, beside] += 1
        return total / times

    def _taps(self, pixels: np.ndarray, first: int, length: int, axis: int) -> tuple[slice, Array]:
        """Which of the pixels lie in a window, and the weights of its positions for each."""
        low, high = np.searchsorted(pixels, (first, first + length))
        offset = (self.padding.above, self.padding.before)[axis] - first
        positions = self.cosines.shape[1 + axis]
        table = interpolation_table(positions, self.padding.shape[axis])
        weights = table[pixels[low:high] + offset]
        return slice(low, high), as_array(weights, self.cosines)


@dataclass(frozen=True)
class RefinedMaps:
    """Maps that follow the edges of the image."""

    maps: ImageMaps
    affinity: Affinity

    @property
    def count(self) -> int:
        return self.maps.count

    @property
    def shape(self) -> tuple[int, int]:
        return self.affinity.shape

    def piece(self, start: int, stop: int) -> Array:
        return self.affinity.refine(self.maps.piece(start, stop))


@dataclass(frozen=True)
class RefinedQueries(RefinedMaps):
    """Refined cosines of queries; those at positions stay as they were."""

    maps: QueryMaps

    def positions(self) -> Array:
        return self.maps.positions()
