"""Which group each pixel belongs to.

Letters: M window, G group, h w grid of positions, H' W' view, H W original image.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ovseg.inference.bands import Band, bands_of, joined
from ovseg.inference.encode import EncodedView
from ovseg.inference.maxima import largest, later_if_larger
from ovseg.inference.resize import resize_bilinear, resize_rows, source_positions
from ovseg.inference.views import Box
from ovseg.models.interface import Array, GroupedImage, array_namespace, to_numpy

PIECE = 4_000_000
"""Values of share maps that are compared at once."""


def regions(grouped: GroupedImage, size: tuple[int, int]) -> Array | None:
    """The group with the largest share of each pixel, int [M, *size]; None for dense models.

    Shares are resized bilinearly before they are compared; the first of equals wins.
    """
    if grouped.assignment is None:
        return None
    xp: Any = array_namespace(grouped.assignment)
    shares = xp.reshape(grouped.assignment, (*grouped.assignment.shape[:2], *grouped.grid))
    return xp.stack([_largest_share(each, size) for each in shares])


def _largest_share(shares: Array, size: tuple[int, int]) -> Array:
    """Index of the largest of G maps [G, h, w] at every pixel, a piece of the groups at a time."""
    bands = bands_of(size)
    if len(bands) > 1:
        found = (_largest_of(shares, size, band) for band in bands)
        return joined(found, size)[1]
    return _largest_of(shares, size, None)[1]


def _largest_of(shares: Array, size: tuple[int, int], band: Band | None) -> tuple[Array, Array]:
    """Largest share and its index at every pixel, or at those of a band."""
    pixels = (size[0] if band is None else band.size) * size[1]
    step = max(PIECE // pixels, 1)
    best: Any = None
    for start in range(0, shares.shape[0], step):
        piece = shares[start : start + step]
        if band is None:
            value, index = largest(resize_bilinear(piece, size))
        else:
            value, index = largest(resize_rows(piece, size, band.rows))
        best = (value, index) if best is None else later_if_larger(best, (value, index + start))
    return best


def group_map(
    encoded: EncodedView, found: Array | None, size: tuple[int, int], *, direct: bool
) -> NDArray[np.int32]:
    """The group of each pixel of the original image, int32 [*size].

    Groups count through the windows (window m, group g is m * G + g); a pixel in several windows
    names its group in the one whose centre is nearest.

    Args:
        encoded: a view and its windows.
        found: the `regions` of the windows, or of the whole image if `direct`; None for dense
            models, whose pixels belong to the position nearest to them.
        size: rows and columns (H, W).
        direct: whether one grid covers the image.
    """
    grid, boxes = encoded.grouped.grid, encoded.view.boxes
    if direct:
        if found is None:
            return nearest_position(grid, size)
        return to_numpy(found[0]).astype(np.int32, copy=False)
    padding = encoded.view.padding
    if found is None:
        inside = nearest_position(grid, padding.shape)
        inside = inside[padding.above :, padding.before :][: boxes[0].height, : boxes[0].width]
        return _in_nearest_window([inside] * len(boxes), grid[0] * grid[1], encoded, size)
    groups = int(encoded.grouped.embedding.shape[1])
    return _in_nearest_window([to_numpy(each) for each in found], groups, encoded, size)


def _in_nearest_window(
    inside: Sequence[NDArray[np.integer]], groups: int, encoded: EncodedView, size: tuple[int, int]
) -> NDArray[np.int32]:
    """From the group of each pixel of each window to that of each pixel of the image."""
    boxes, shape = encoded.view.boxes, encoded.view.shape
    row, column = (
        ((np.arange(pixels) + 0.5) * view / pixels).astype(np.int64)
        for pixels, view in zip(size, shape, strict=True)
    )
    result = np.zeros(size, np.int32)
    for band in bands_of(size, PIECE // len(boxes)):
        own = row[band.rows]
        owner = np.argmin([_distance(box, own, column) for box in boxes], axis=0)
        for index, box in enumerate(boxes):
            rows, columns = np.nonzero(owner == index)
            place = (own[rows] - box.top, column[columns] - box.left)
            result[band.first + rows, columns] = inside[index][place] + index * groups
    return result


def _distance(box: Box, row: NDArray, column: NDArray) -> NDArray[np.float64]:
    """Squared distance of pixels of the view from a window's centre, [rows, columns]."""
    down = row[:, None] - box.top - box.height / 2
    across = column[None] - box.left - box.width / 2
    return down**2 + across**2


def nearest_position(grid: tuple[int, int], shape: tuple[int, int]) -> NDArray[np.int32]:
    """Index of the position nearest to each pixel, int32 [H, W]."""
    row, column = (
        np.floor(source_positions(positions, pixels) + 0.5).astype(np.int32)
        for positions, pixels in zip(grid, shape, strict=True)
    )
    return row[:, None] * grid[1] + column[None, :]
