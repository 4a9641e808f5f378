"""Score maps of overlapping windows, averaged, brought to the original size and compared.

Letters: M window, G group, K column of scores (background first), k chunk of columns, h w grid rows
and columns, H W pixels.

A score map of 1,000 classes would fill gigabytes, so columns go in chunks with a running maximum,
and columns that can nowhere win are left out.
"""

from dataclasses import dataclass

import numpy as np
from array_api_compat import array_namespace, device

from ovseg.model.interface import Array, GroupedImage
from ovseg.zeroshot.resize import resize_bilinear

SCORE_MAP_BYTES = 128 * 1024 * 1024
"""Most bytes that one chunk of score maps takes, at the resized or the original size."""


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
        return (
            slice(self.top, self.top + self.height),
            slice(self.left, self.left + self.width),
        )


@dataclass(frozen=True)
class ScoredWindows:
    """Windows of one size, cut from one image and scored.

    Attributes:
        boxes: places of the M windows.
        scores: of background and classes per group, float [M, G, K].
        regions: the group of each pixel, int [M, height, width]; None for dense models, whose
            groups are the positions of `grid`.
        grid: rows and columns (h, w) of the positions.
    """

    boxes: list[Box]
    scores: Array
    regions: Array | None
    grid: tuple[int, int]


def region_map(grouped: GroupedImage, size: tuple[int, int]) -> Array | None:
    """The group each pixel belongs to, int [B, *size]: assignments resized, then the largest.

    None for dense models, which have no assignment.
    """
    if grouped.assignment is None:
        return None
    xp = array_namespace(grouped.assignment)
    batch, groups, _ = grouped.assignment.shape
    grids = xp.reshape(grouped.assignment, (batch, groups, *grouped.grid))
    return xp.argmax(resize_bilinear(grids, size), axis=1)


def best_column(
    parts: list[ScoredWindows], shape: tuple[int, int], size: tuple[int, int]
) -> np.ndarray:
    """The column with the highest mean score of each pixel, int64 [*size].

    Of equal scores the first column wins, as in argmax over all of them.

    Args:
        parts: windows that cover the image, in any number of batches.
        shape: rows and columns of the image the windows were cut from.
        size: rows and columns wanted.
    """
    xp = array_namespace(parts[0].scores)
    columns = _contenders(parts)
    per_map = max(shape[0] * shape[1], size[0] * size[1]) * parts[0].scores.dtype.itemsize
    chunk = max(1, SCORE_MAP_BYTES // per_map)
    best = label = None
    for start in range(0, len(columns), chunk):
        chosen = xp.asarray(columns[start : start + chunk], device=device(parts[0].scores))
        maps = resize_bilinear(mean_scores(parts, chosen, shape), size)  # [k, *size]
        highest = xp.max(maps, axis=0)
        winner = xp.reshape(xp.take(chosen, xp.reshape(xp.argmax(maps, axis=0), (-1,))), size)
        if best is None:
            best, label = highest, winner
        else:
            label = xp.where(highest > best, winner, label)
            best = xp.maximum(highest, best)
    return _to_numpy(label)


def _contenders(parts: list[ScoredWindows]) -> np.ndarray:
    """Columns that can win somewhere, in order.

    Averages and resizing never leave the range of what they mix. So a column that holds the lowest
    score of all everywhere can at most tie, and then the first column of those wins: it stays.
    """
    scores = np.concatenate([_to_numpy(part.scores) for part in parts])  # [M, G, K]
    highest = scores.max(axis=(0, 1))
    scored = np.isfinite(highest)  # a background that is not asked for is -inf
    lowest = scores[..., scored].min()
    rising = scored & (highest > lowest)
    rising[np.argmax(scored)] = True
    return np.flatnonzero(rising)


def mean_scores(parts: list[ScoredWindows], columns: Array, shape: tuple[int, int]) -> Array:
    """Mean over the windows of each pixel, float [k, H, W]."""
    scores = parts[0].scores
    xp, where = array_namespace(scores), device(scores)
    total = xp.zeros((columns.shape[0], *shape), dtype=scores.dtype, device=where)
    count = xp.zeros(shape, dtype=scores.dtype, device=where)
    for part in parts:
        for index, box in enumerate(part.boxes):
            rows, cols = box.slices
            total[:, rows, cols] += _window_scores(part, index, columns)
            count[rows, cols] += 1
    return total / count


def _window_scores(part: ScoredWindows, index: int, columns: Array) -> Array:
    """Scores of one window's pixels, float [k, height, width]."""
    xp = array_namespace(part.scores)
    box = part.boxes[index]
    by_column = xp.take(part.scores[index], columns, axis=1).T  # [k, G]
    if part.regions is None:
        grids = xp.reshape(by_column, (columns.shape[0], *part.grid))
        return resize_bilinear(grids, (box.height, box.width))
    pixels = xp.take(by_column, xp.reshape(part.regions[index], (-1,)), axis=1)
    return xp.reshape(pixels, (columns.shape[0], box.height, box.width))


def _to_numpy(array: Array) -> np.ndarray:
    return np.asarray(array.cpu() if hasattr(array, "cpu") else array)
