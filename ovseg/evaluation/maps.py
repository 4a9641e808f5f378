"""Score maps of whole images, made in pieces: averaged over windows and views, refined, compared.

Letters: L map (a label or a phrase), l maps of one piece, H W original image.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from array_api_compat import array_namespace, device, is_torch_array
from numpy.typing import NDArray

from ovseg.inference.query_maps import ImageMaps
from ovseg.inference.resize import interpolation_table, resize_bilinear
from ovseg.inference.score_maps import Box
from ovseg.models.interface import Array, GroupedImage, to_numpy

PIECE = 16_000_000
"""Values of one piece of maps: 64 MB in float32."""


@dataclass(frozen=True)
class RegionMaps:
    """Scores of groups, averaged over the windows of one view, at the original size.

    Attributes:
        scores: float [M, G, L].
        regions: the group of each pixel of each window, int [M, height, width].
        boxes: the M windows.
        view_shape: rows and columns of the view they were cut from.
        shape: rows and columns (H, W) of the maps.
    """

    scores: Array
    regions: Array
    boxes: Sequence[Box]
    view_shape: tuple[int, int]
    shape: tuple[int, int]

    @property
    def count(self) -> int:
        """How many maps there are, L."""
        return int(self.scores.shape[-1])

    def piece(self, start: int, stop: int) -> Array:
        """Maps `start` to `stop`, float [l, H, W]."""
        return self.chosen(np.arange(start, stop))

    def chosen(self, columns: NDArray[np.int64]) -> Array:
        """The maps of some columns, float [l, H, W]."""
        xp: Any = array_namespace(self.scores)
        like = {"dtype": self.scores.dtype, "device": device(self.scores)}
        total = xp.zeros((len(columns), *self.view_shape), **like)
        times = xp.zeros(self.view_shape, **like)
        wanted = xp.asarray(columns, device=device(self.scores))
        for scores, region, box in zip(self.scores, self.regions, self.boxes, strict=True):
            by_column = xp.matrix_transpose(xp.take(scores, wanted, axis=1))  # [l, G]
            pixels = xp.take(by_column, xp.reshape(region, (-1,)), axis=1)
            rows, across = box.slices
            total[:, rows, across] += xp.reshape(pixels, (len(columns), box.height, box.width))
            times[rows, across] += 1
        return resized(total / times, self.shape)

    def contenders(self, first: int = 0) -> NDArray[np.int64]:
        """Columns from `first` on that can be the largest of those somewhere, in order.

        Averages and resizing stay within the range of what they mix. So a column that nowhere
        exceeds the least score of all can at most tie, and of those the first wins: it stays.
        """
        scores = to_numpy(self.scores)[..., first:]
        rising = scores.max(axis=(0, 1)) > scores.min()
        rising[0] = True
        return np.flatnonzero(rising) + first


@dataclass(frozen=True)
class ChosenMaps:
    """Some columns of region maps, in order."""

    maps: RegionMaps
    columns: NDArray[np.int64]

    @property
    def count(self) -> int:
        """How many maps there are, L."""
        return len(self.columns)

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns (H, W) of the maps."""
        return self.maps.shape

    def piece(self, start: int, stop: int) -> Array:
        """Maps `start` to `stop`, float [l, H, W]."""
        return self.maps.chosen(self.columns[start:stop])


@dataclass(frozen=True)
class GridMaps:
    """Scores of positions, averaged over the windows of one view, at the original size.

    Resizing each window, averaging and resizing to the original size are all linear, apart for
    rows and columns, because windows lie in rows and columns too: one matrix per axis does all
    three.

    Attributes:
        grids: scores of the positions of every window, float [M, h, w, L].
        boxes: the M windows, row by row.
        view_shape: rows and columns of the view they were cut from.
        shape: rows and columns (H, W) of the maps.
    """

    grids: Array
    boxes: Sequence[Box]
    view_shape: tuple[int, int]
    shape: tuple[int, int]

    @property
    def count(self) -> int:
        """How many maps there are, L."""
        return int(self.grids.shape[-1])

    def piece(self, start: int, stop: int) -> Array:
        """Maps `start` to `stop`, float [l, H, W]."""
        xp: Any = array_namespace(self.grids)
        rows, columns = self._axes  # [H, R h], [W, C w]
        height, width = self.grids.shape[1:3]
        down, across = rows.shape[1] // height, columns.shape[1] // width  # R, C windows
        chosen = xp.reshape(self.grids[..., start:stop], (down, across, height, width, -1))
        block = xp.permute_dims(chosen, (4, 0, 2, 1, 3))  # [l, R, h, C, w]
        block = xp.reshape(block, (-1, down * height, across * width))
        return rows @ (block @ xp.matrix_transpose(columns))

    @cached_property
    def _axes(self) -> tuple[Array, Array]:
        box = self.boxes[0]
        tops = sorted({box.top for box in self.boxes})
        lefts = sorted({box.left for box in self.boxes})
        height, width = self.grids.shape[1:3]
        rows = _axis(tops, box.height, height, self.view_shape[0], self.shape[0])
        columns = _axis(lefts, box.width, width, self.view_shape[1], self.shape[1])
        xp: Any = array_namespace(self.grids)
        like = {"dtype": self.grids.dtype, "device": device(self.grids)}
        return xp.asarray(rows, **like), xp.asarray(columns, **like)


def _axis(starts: Sequence[int], side: int, positions: int, view: int, pixels: int) -> np.ndarray:
    """Weight of each position of each window for each original pixel of one axis.

    Args:
        starts: first pixel of each of the S windows in the view.
        side: pixels of a window.
        positions: of a window's grid.
        view: pixels of the view.
        pixels: of the original image.

    Returns:
        float64 [pixels, S * positions]; each row sums to 1.
    """
    in_window = interpolation_table(positions, side)  # [side, positions]
    placed = np.zeros((view, len(starts), positions))
    for index, start in enumerate(starts):
        placed[start : start + side, index] = in_window
    placed /= placed.sum((1, 2), keepdims=True)  # how many windows cover the pixel
    return interpolation_table(view, pixels) @ placed.reshape(view, -1)


@dataclass(frozen=True)
class AveragedMaps:
    """The mean of several views' maps; those of mirrored views are mirrored back."""

    views: Sequence[ImageMaps]
    flipped: Sequence[bool]

    @property
    def count(self) -> int:
        """How many maps there are, L."""
        return self.views[0].count

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns (H, W) of the maps."""
        return self.views[0].shape

    def piece(self, start: int, stop: int) -> Array:
        """Maps `start` to `stop`, float [l, H, W]."""
        total: Any = None
        for maps, flipped in zip(self.views, self.flipped, strict=True):
            piece = maps.piece(start, stop)
            if flipped:
                piece = array_namespace(piece).flip(piece, axis=-1)
            total = piece if total is None else total + piece
        return total / len(self.views)


def region_map(grouped: GroupedImage, size: tuple[int, int]) -> Array | None:
    """The group of each pixel of each window, int [M, *size]; None for dense models.

    Shares are resized bilinearly before the largest is taken.
    """
    if grouped.assignment is None:
        return None
    xp: Any = array_namespace(grouped.assignment)
    windows, groups, _ = grouped.assignment.shape
    grids = xp.reshape(grouped.assignment, (windows, groups, *grouped.grid))
    return largest(resized(grids, size), axis=1)[1]


def resized(maps: Array, size: tuple[int, int]) -> Array:
    """Maps [..., h, w] at another size, bilinear, corners not aligned, not antialiased.

    In torch by its own kernel, which published numbers were measured with.
    """
    if not is_torch_array(maps):
        return resize_bilinear(maps, size)
    from torch.nn.functional import interpolate

    stack = maps.reshape(1, -1, *maps.shape[-2:])
    result = interpolate(stack, size=size, mode="bilinear", align_corners=False)
    return result.reshape(*maps.shape[:-2], *size)


def averaged(views: Sequence[ImageMaps], flipped: Sequence[bool]) -> ImageMaps:
    """The views' mean, or the only view as it is."""
    return views[0] if len(views) == 1 else AveragedMaps(views, flipped)


def strongest(maps: ImageMaps, first: int = 0) -> tuple[Array, Array]:
    """Index and value of the largest map from `first` on at every pixel, [H, W] each.

    The first of equals wins, as in argmax over all of them.
    """
    step = max(PIECE // (maps.shape[0] * maps.shape[1]), 1)
    best: Any = None
    winner: Any = None
    for start in range(first, maps.count, step):
        piece = maps.piece(start, min(start + step, maps.count))
        xp: Any = array_namespace(piece)
        value, index = largest(piece, axis=0)
        index = index + start
        if best is None:
            best, winner = value, index
        else:
            winner = xp.where(value > best, index, winner)
            best = xp.maximum(value, best)
    return winner, best


def largest(maps: Array, axis: int) -> tuple[Array, Array]:
    """The largest value along an axis and its index; the first of equals.

    Torch finds both in one pass, in a fifth of the time that its argmax takes.
    """
    if is_torch_array(maps):
        found = maps.max(dim=axis)
        return found.values, found.indices
    return np.max(maps, axis=axis), np.argmax(maps, axis=axis)
