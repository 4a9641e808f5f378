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

from array_api_compat import array_namespace, device

from ovseg.model.interface import Array
from ovseg.zeroshot.interpolation import interpolation, resize_maps
from ovseg.zeroshot.refine import Affinity


class QueryMaps(Protocol):
    """Cosines of `count` queries at the pixels of an image of `shape`."""

    @property
    def count(self) -> int: ...

    @property
    def shape(self) -> tuple[int, int]: ...

    def piece(self, start: int, stop: int) -> Array:
        """Maps of queries `start` to `stop`, float [q, H, W]."""
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
        return resize_maps(xp.permute_dims(self.cosines[..., start:stop], (2, 0, 1)), self.shape)


@dataclass(frozen=True)
class Placement:
    """Where a window of an image came from, in pixels of that image.

    Attributes:
        top, left, height, width: the window.
        padded: rows and columns of what the model saw: the window, with `above` and `before`
            pixels added above it and to the left of it and the rest below and to the right.
    """

    top: int
    left: int
    height: int
    width: int
    padded: tuple[int, int]
    above: int = 0
    before: int = 0


@dataclass(frozen=True)
class WindowMaps:
    """Overlapping windows: cosines of each, averaged where they overlap, then resized.

    Attributes:
        cosines: float [W', h, w, Q].
        placements: one per window.
        image_shape: rows and columns of the image that the windows cut up.
        shape: rows and columns (H, W) of the maps.
    """

    cosines: Array
    placements: Sequence[Placement]
    image_shape: tuple[int, int]
    shape: tuple[int, int]

    @property
    def count(self) -> int:
        return self.cosines.shape[3]

    def piece(self, start: int, stop: int) -> Array:
        return resize_maps(self.averaged(start, stop), self.shape)

    def averaged(self, start: int, stop: int) -> Array:
        """Maps of some queries at the size of the image that was cut up, [q, H', W']."""
        xp: Any = array_namespace(self.cosines)
        like = {"dtype": self.cosines.dtype, "device": device(self.cosines)}
        total = xp.zeros((stop - start, *self.image_shape), **like)
        times = xp.zeros(self.image_shape, **like)
        for cosines, place in zip(self.cosines, self.placements, strict=True):
            rows = slice(place.top, place.top + place.height)
            columns = slice(place.left, place.left + place.width)
            maps = xp.permute_dims(cosines[..., start:stop], (2, 0, 1))  # [q, h, w]
            total[:, rows, columns] += window_maps(maps, place)
            times[rows, columns] += 1
        return total / times


def window_maps(maps: Array, place: Placement) -> Array:
    """Maps [q, h, w] of what the model saw, at the size of the window, padding cut off."""
    xp: Any = array_namespace(maps)
    rows = interpolation(maps, place.padded[0], maps.shape[1])
    columns = interpolation(maps, place.padded[1], maps.shape[2])
    rows = rows[place.above : place.above + place.height]
    columns = columns[place.before : place.before + place.width]
    return rows @ (maps @ xp.matrix_transpose(columns))


@dataclass(frozen=True)
class RefinedMaps:
    """Maps that follow the edges of the image."""

    maps: QueryMaps
    affinity: Affinity

    @property
    def count(self) -> int:
        return self.maps.count

    @property
    def shape(self) -> tuple[int, int]:
        return self.affinity.shape

    def piece(self, start: int, stop: int) -> Array:
        return self.affinity.refine(self.maps.piece(start, stop))
