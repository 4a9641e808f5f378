"""Score maps of whole images, made in pieces so that all of them never coexist.

A thousand maps of a million pixels are 4 GB. Averaging over windows and views, resizing and
refining treat maps alike and apart, so a piece of them at a time will do; and none of these leaves
the range of what it mixes, so few of a thousand have to be made at all (`bounds`).

Letters: M window, R C windows in a column and in a row, G group, L map (a label or a phrase), l
maps of one piece, h w grid of positions, H' W' view, H W original image.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Protocol

import numpy as np
from array_api_compat import device, is_torch_array
from numpy.typing import NDArray

from ovseg.distributed import one_blas_thread
from ovseg.inference.bands import Band
from ovseg.inference.encode import EncodedView
from ovseg.inference.resize import (
    Columns,
    as_array,
    contiguous,
    interpolation_table,
    resize_bilinear,
    resize_rows,
    taken,
)
from ovseg.inference.views import Box, View
from ovseg.models.interface import Array, array_namespace


class ScoreMaps(Protocol):
    """`count` maps at the pixels of an image of `shape` (H, W)."""

    @property
    def count(self) -> int: ...

    @property
    def shape(self) -> tuple[int, int]: ...

    def bounds(self) -> tuple[Array, Array]:
        """What no value of each map falls below or exceeds, float [L] each."""
        ...

    def piece(self, columns: Columns) -> Array:
        """Some of the maps, float [l, H, W]."""
        ...


class Refiner(Protocol):
    """What cleans the maps of one image, each on its own."""

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns (H, W) of the maps it makes."""
        ...

    @property
    def keeps_range(self) -> bool:
        """Whether no value leaves the range of those in its map."""
        ...

    def refine(self, maps: Array) -> Array:
        """Maps [l, h, w], cleaned: [l, H, W]."""
        ...


@dataclass(frozen=True)
class Axis:
    """How positions of windows make up pixels along one axis; every row of a table sums to 1.

    Attributes:
        windows: how many there are, S.
        to_view: weight of each position of each window for each pixel of the view, float64
            [view, S * positions].
        to_pixels: the same for each pixel of the original image, [pixels, S * positions].
    """

    windows: int
    to_view: NDArray[np.float64]
    to_pixels: NDArray[np.float64]

    @classmethod
    def of_windows(
        cls, starts: Sequence[int], side: int, padded: int, before: int, positions: int,
        view: int, pixels: int, align_corners: bool = False,
    ) -> "Axis":  # fmt: skip
        """Windows resized to their pixels, averaged where they overlap, then resized together.

        Args:
            starts: first pixel of each window in the view.
            side: pixels of a window without its padding.
            padded: with it.
            before: pixels of padding before the window.
            positions: of a padded window's grid.
            view: pixels of the view.
            pixels: of the original image.
            align_corners: whether the outermost positions lie on a window's outermost pixels.
        """
        in_window = interpolation_table(positions, padded, align_corners)[before : before + side]
        placed = np.zeros((view, len(starts), positions))
        for index, start in enumerate(starts):
            placed[start : start + side, index] = in_window
        placed /= placed.sum((1, 2), keepdims=True)  # how many windows cover the pixel
        to_view = placed.reshape(view, -1)
        return cls(len(starts), to_view, interpolation_table(view, pixels) @ to_view)

    @classmethod
    def direct(cls, positions: int, pixels: int, align_corners: bool = False) -> "Axis":
        """One grid over the whole image, brought to its pixels at once."""
        return cls(1, np.eye(positions), interpolation_table(positions, pixels, align_corners))


@dataclass(frozen=True)
class PositionMaps:
    """Scores of positions, averaged over the windows of one view, at the original size.

    Resizing each window, averaging and resizing to the original size are all linear, apart for
    rows and columns, because windows lie in rows and columns too: one matrix per axis does all
    three.

    Attributes:
        grids: scores of the positions of every window, row by row, float [M, h, w, L].
        down, across: the tables of the two axes.
        align_corners: what the tables were made with.
        band: the rows of the image that the maps are of; None for all.
    """

    grids: Array
    down: Axis
    across: Axis
    align_corners: bool = False
    band: Band | None = None

    @classmethod
    def of(
        cls, scores: Array, encoded: EncodedView, shape: tuple[int, int], *, direct: bool,
        align_corners: bool = False,
    ) -> "PositionMaps":  # fmt: skip
        """Scores per position, float [M, h*w, L]; `direct` where one grid covers the image."""
        xp: Any = array_namespace(scores)
        grid, view = encoded.grouped.grid, encoded.view
        grids = xp.reshape(scores, (len(view.boxes), *grid, scores.shape[-1]))
        if direct:
            return cls.on_grid(grids[0], shape, align_corners)
        return cls(grids, *_axes(view, grid, shape, align_corners), align_corners)

    @classmethod
    def on_grid(
        cls, scores: Array, shape: tuple[int, int], align_corners: bool = False
    ) -> "PositionMaps":
        """Scores of one grid over the whole image, [h, w, L], brought straight to its pixels."""
        sides = zip(scores.shape[:2], shape, strict=True)
        down, across = (Axis.direct(*each, align_corners) for each in sides)
        return cls(scores[None], down, across, align_corners)

    @property
    def count(self) -> int:
        return int(self.grids.shape[-1])

    @property
    def shape(self) -> tuple[int, int]:
        rows, columns = self.whole_shape
        return rows if self.band is None else self.band.size, columns

    @property
    def whole_shape(self) -> tuple[int, int]:
        """Rows and columns (H, W) of the image, whatever band the maps are of."""
        return len(self.down.to_pixels), len(self.across.to_pixels)

    def banded(self, band: Band) -> "PositionMaps":
        """The same at some rows of the image."""
        return replace(self, band=band)

    @property
    def grid(self) -> Array | None:
        """The scores, [h, w, L], where a pixel is merely interpolated between four of them."""
        if self.align_corners:  # the shortcuts for such grids know half a position inside alone
            return None
        _, height, width, _ = self.grids.shape
        own = len(self.down.to_view) == height and len(self.across.to_view) == width
        return self.grids[0] if own and self.grids.shape[0] == 1 else None

    def bounds(self) -> tuple[Array, Array]:
        xp: Any = array_namespace(self.grids)
        return xp.min(self.grids, axis=(0, 1, 2)), xp.max(self.grids, axis=(0, 1, 2))

    def piece(self, columns: Columns) -> Array:
        rows, across = self._tables
        return _multiply(rows, self._block(columns), across)

    def at_view(self, rows: NDArray[np.int64], columns: NDArray[np.int64]) -> Array:
        """All maps at some rows and columns of the view's pixels, float [rows, columns, L]."""
        xp: Any = array_namespace(self.grids)
        tables = (self.down.to_view[rows], self.across.to_view[columns])
        down, across = (as_array(table, self.grids) for table in tables)
        return xp.permute_dims(_multiply(down, self._block(slice(None)), across), (1, 2, 0))

    def _block(self, columns: Columns) -> Array:
        """The positions of all windows side by side, contiguous, float [l, R h, C w]."""
        xp: Any = array_namespace(self.grids)
        _, height, width, _ = self.grids.shape
        down, across = self.down.windows, self.across.windows
        chosen = xp.reshape(taken(self.grids, columns), (down, across, height, width, -1))
        block = xp.permute_dims(chosen, (4, 0, 2, 1, 3))  # [l, R, h, C, w]
        return contiguous(xp.reshape(block, (-1, down * height, across * width)))

    @cached_property
    def _tables(self) -> tuple[Array, Array]:
        rows = slice(None) if self.band is None else self.band.rows
        return (
            as_array(self.down.to_pixels[rows], self.grids),
            as_array(self.across.to_pixels, self.grids),
        )


def _axes(
    view: View, grid: tuple[int, int], shape: tuple[int, int], align_corners: bool
) -> tuple[Axis, Axis]:
    box, padding = view.boxes[0], view.padding
    tops = sorted({each.top for each in view.boxes})
    lefts = sorted({each.left for each in view.boxes})
    return (
        Axis.of_windows(
            tops, box.height, padding.shape[0], padding.above, grid[0], view.shape[0], shape[0],
            align_corners,
        ),
        Axis.of_windows(
            lefts, box.width, padding.shape[1], padding.before, grid[1], view.shape[1], shape[1],
            align_corners,
        ),
    )  # fmt: skip


@dataclass(frozen=True)
class WindowMaps:
    """Scores of positions, refined in each window, averaged over the windows of one view.

    Attributes:
        grids: scores of the positions of every window, float [M, h, w, L].
        refiners: the steps for each of the M windows, without their padding.
        view: the windows.
        shape: rows and columns (H, W) of the maps.
        align_corners: whether the outermost positions lie on a window's outermost pixels.
    """

    grids: Array
    refiners: Sequence[Sequence[Refiner]]
    view: View
    shape: tuple[int, int]
    align_corners: bool = False

    @property
    def count(self) -> int:
        return int(self.grids.shape[-1])

    def bounds(self) -> tuple[Array, Array]:
        xp: Any = array_namespace(self.grids)
        least, most = xp.min(self.grids, axis=(0, 1, 2)), xp.max(self.grids, axis=(0, 1, 2))
        return kept(least, most, self.refiners[0])

    def piece(self, columns: Columns) -> Array:
        xp: Any = array_namespace(self.grids)
        chosen = xp.permute_dims(taken(self.grids, columns), (0, 3, 1, 2))  # [M, l, h, w]
        padding = self.view.padding
        windows = []
        for maps, refiners, box in zip(chosen, self.refiners, self.view.boxes, strict=True):
            whole = resize_bilinear(contiguous(maps), padding.shape, self.align_corners)
            rows = slice(padding.above, padding.above + box.height)
            across = slice(padding.before, padding.before + box.width)
            inside = whole[:, rows, across]
            for refiner in refiners:
                inside = refiner.refine(inside)
            windows.append(inside)
        mean = _mean_of_windows(windows, self.view.boxes, self.view.shape)
        return resize_bilinear(mean, self.shape)


def _mean_of_windows(
    windows: Sequence[Array], boxes: Sequence[Box], shape: tuple[int, int]
) -> Array:
    """Maps of windows [l, height, width] averaged where they overlap, [l, H', W']."""
    xp: Any = array_namespace(windows[0])
    like = {"dtype": windows[0].dtype, "device": device(windows[0])}
    total = xp.zeros((windows[0].shape[0], *shape), **like)
    times = xp.zeros(shape, **like)
    for maps, box in zip(windows, boxes, strict=True):
        rows, across = box.slices
        total[:, rows, across] += maps
        times[rows, across] += 1
    return total / times


@dataclass(frozen=True)
class RegionMaps:
    """Scores of groups, averaged over the windows of one view, at the original size.

    Attributes:
        scores: float [M, G, L].
        regions: the group of each pixel of each window, int [M, height, width].
        boxes: the M windows.
        view_shape: rows and columns of the view they were cut from.
        whole_shape: rows and columns (H, W) of the image.
        band: the rows of the image that the maps are of; None for all.
    """

    scores: Array
    regions: Array
    boxes: Sequence[Box]
    view_shape: tuple[int, int]
    whole_shape: tuple[int, int]
    band: Band | None = None

    @property
    def shape(self) -> tuple[int, int]:
        rows, columns = self.whole_shape
        return rows if self.band is None else self.band.size, columns

    def banded(self, band: Band) -> "RegionMaps":
        """The same at some rows of the image."""
        if not self.whole:
            return replace(self, band=band)
        shape = (band.size, self.whole_shape[1])
        return RegionMaps(
            self.scores, self.regions[:, band.rows], (Box(0, 0, *shape),), shape, shape
        )

    @property
    def count(self) -> int:
        return int(self.scores.shape[-1])

    @property
    def whole(self) -> bool:
        """Whether one window is the whole image at its original size: regions are then final."""
        return len(self.boxes) == 1 and self.view_shape == self.whole_shape

    def bounds(self) -> tuple[Array, Array]:
        xp: Any = array_namespace(self.scores)
        return xp.min(self.scores, axis=(0, 1)), xp.max(self.scores, axis=(0, 1))

    def piece(self, columns: Columns) -> Array:
        xp: Any = array_namespace(self.scores)
        windows = []
        for scores, region, box in zip(
            taken(self.scores, columns), self.regions, self.boxes, strict=True
        ):
            by_column = contiguous(xp.matrix_transpose(scores))  # [l, G]
            pixels = xp.take(by_column, xp.reshape(region, (-1,)), axis=1)
            windows.append(xp.reshape(pixels, (-1, box.height, box.width)))
        mean = _mean_of_windows(windows, self.boxes, self.view_shape)
        if self.band is None:
            return resize_bilinear(mean, self.whole_shape)
        return resize_rows(mean, self.whole_shape, self.band.rows)


def kept(least: Array, most: Array, refiners: Sequence[Refiner]) -> tuple[Array, Array]:
    """Bounds that hold behind some steps."""
    if all(refiner.keeps_range for refiner in refiners):
        return least, most
    xp: Any = array_namespace(least)
    return xp.full_like(least, -float("inf")), xp.full_like(most, float("inf"))


def _multiply(down: Array, block: Array, across: Array) -> Array:
    """Both tables applied: [P, p] and [Q, q] to [l, p, q] give [l, P, Q]."""
    xp: Any = array_namespace(block)
    if is_torch_array(block):
        return down @ (block @ xp.matrix_transpose(across))
    with one_blas_thread():
        return down @ (block @ xp.matrix_transpose(across))
