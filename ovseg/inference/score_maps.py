"""Score maps of overlapping windows: averaged, brought to the original size, compared.

Letters: M window, G group, K column of scores (background first), k chunk of columns, h w grid rows
and columns, H W pixels.

A score map of 1,000 classes would fill gigabytes, so columns go in chunks with a running maximum,
and columns that can nowhere win are left out.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from array_api_compat import device

from ovseg.inference.masks import LabelMap, label_map
from ovseg.inference.resize import resize_bilinear
from ovseg.models.interface import Array, array_namespace, to_numpy

PIECE = 16_000_000
"""Most values of a chunk of score maps, at the resized or the original size."""


@dataclass(frozen=True)
class Box:
    """A window's place, in pixels: rows top..top+height, columns left..left+width."""

    top: int
    left: int
    height: int
    width: int

    @property
    def slices(self) -> tuple[slice, slice]:
        """Rows and columns to index an image [..., H, W] with."""
        rows = slice(self.top, self.top + self.height)
        return rows, slice(self.left, self.left + self.width)


@dataclass(frozen=True)
class ScoredWindows:
    """The windows of one image, all of one size, encoded and scored.

    Attributes:
        boxes: places of the M windows.
        scores: of background and classes per group, float [M, G, K].
        grid: rows and columns (h, w) of the positions in a window.
        assignment: share of each position in each group, float [M, G, h*w]; None where group g is
            position g.
    """

    boxes: list[Box]
    scores: Array
    grid: tuple[int, int]
    assignment: Array | None


def windowed_label_map(
    windows: ScoredWindows, shape: tuple[int, int], size: tuple[int, int]
) -> LabelMap:
    """Average the windows' score maps, resize them bilinearly and take the best label.

    Of equal scores the first label wins. Groups count through the windows (window m, group g is
    m * G + g); a pixel in several windows names its group in the one whose centre is nearest.

    Args:
        windows: cover the image without a gap.
        shape: rows and columns of the image the windows were cut from.
        size: rows and columns wanted.
    """
    xp: Any = array_namespace(windows.scores)
    groups = _groups(windows)
    columns = _contenders(to_numpy(windows.scores))
    chunk = max(1, PIECE // max(shape[0] * shape[1], size[0] * size[1]))
    best = winner = None
    for start in range(0, len(columns), chunk):
        chosen = xp.asarray(columns[start : start + chunk], device=device(windows.scores))
        maps = resize_bilinear(_mean_scores(windows, groups, chosen, shape), size)  # [k, *size]
        value, index = xp.max(maps, axis=0), chosen[xp.argmax(maps, axis=0)]
        if best is None:
            best, winner = value, index
        else:
            winner = xp.where(value > best, index, winner)
            best = xp.maximum(value, best)
    return LabelMap(winner, best, _nearest_groups(windows, groups, shape, size))


def _groups(windows: ScoredWindows) -> list[Array]:
    """The group of each pixel of each window, int [height, width]."""
    pixels = (windows.boxes[0].height, windows.boxes[0].width)
    return [
        label_map(
            windows.scores[index, :, :1],
            windows.grid,
            pixels,
            None if windows.assignment is None else windows.assignment[index],
        ).groups
        for index in range(len(windows.boxes))
    ]


def _contenders(scores: npt.NDArray) -> npt.NDArray[np.int64]:
    """Columns that can win somewhere, in order, for scores [M, G, K].

    Averages and resizing never leave the range of what they mix. So a column that holds the lowest
    score of all everywhere can at most tie, and then the first column of those wins: it stays.
    """
    highest = scores.max(axis=(0, 1))
    scored = np.isfinite(highest)  # a background that is not asked for is -inf
    rising = scored & (highest > scores[..., scored].min())
    rising[np.argmax(scored)] = True
    return np.flatnonzero(rising)


def _mean_scores(
    windows: ScoredWindows, groups: list[Array], columns: Array, shape: tuple[int, int]
) -> Array:
    """Mean over the windows of each pixel, float [k, H, W]."""
    scores = windows.scores
    xp: Any = array_namespace(scores)
    total = xp.zeros((columns.shape[0], *shape), dtype=scores.dtype, device=device(scores))
    count = xp.zeros(shape, dtype=scores.dtype, device=device(scores))
    for index, box in enumerate(windows.boxes):
        rows, cols = box.slices
        by_column = xp.take(scores[index], columns, axis=1).T  # [k, G]
        total[:, rows, cols] += _window_map(windows, by_column, groups[index], box)
        count[rows, cols] += 1
    return total / count


def _window_map(windows: ScoredWindows, by_column: Array, groups: Array, box: Box) -> Array:
    """Scores [k, G] at the pixels of one window, float [k, height, width]."""
    xp: Any = array_namespace(by_column)
    if windows.assignment is None:
        grids = xp.reshape(by_column, (by_column.shape[0], *windows.grid))
        return resize_bilinear(grids, (box.height, box.width))
    flat = xp.take(by_column, xp.reshape(groups, (-1,)), axis=1)
    return xp.reshape(flat, (by_column.shape[0], box.height, box.width))


def _nearest_groups(
    windows: ScoredWindows, groups: list[Array], shape: tuple[int, int], size: tuple[int, int]
) -> Array:
    """Group of each pixel in the window whose centre is nearest, int [*size]."""
    row = ((np.arange(size[0]) + 0.5) * shape[0] / size[0]).astype(np.int64)[:, None]
    column = ((np.arange(size[1]) + 0.5) * shape[1] / size[1]).astype(np.int64)[None]
    distances = [
        (row - box.top - box.height / 2) ** 2 + (column - box.left - box.width / 2) ** 2
        for box in windows.boxes
    ]
    owner = np.argmin(distances, axis=0)  # [*size]
    result = np.zeros(size, dtype=np.int64)
    for index, box in enumerate(windows.boxes):
        rows, columns = np.nonzero(owner == index)
        inside = to_numpy(groups[index])[row[rows, 0] - box.top, column[0, columns] - box.left]
        result[rows, columns] = inside + index * windows.scores.shape[1]
    return result
