"""The largest of many maps on an interpolated grid, without making all of them.

Letters: L map, l maps of a few, h w grid of positions, c contenders of a cell, W columns and p rows
of pixels, H W pixels.

It is found exactly. Between four neighbouring positions (a cell) an interpolated value lies between
the least and the largest of the four, so only maps whose largest is no less than the best least one
can win there: a handful of a thousand.
"""

from dataclasses import dataclass
from functools import reduce
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
from array_api_compat import device, is_torch_array
from numpy.typing import NDArray

from ovseg.inference.maxima import can_win, largest, later_if_larger
from ovseg.inference.resize import (
    as_array,
    as_index,
    cells,
    contiguous,
    resize_bilinear,
    taken,
)
from ovseg.models.interface import Array, array_namespace, to_numpy

PIECE = 2_000_000
"""Values that are worked on at once."""

_ALL = 4  # maps up to which all are sooner compared than chosen from
_FEW = 8  # contenders of the whole image up to which they are compared everywhere
_MANY = 16  # contenders of a cell from which NumPy compares them along the last axis


def strongest_on_grid(
    maps: Array, shape: tuple[int, int], rows_wanted: slice | None = None
) -> tuple[Array, Array]:
    """The largest of the interpolated maps at every pixel and its number; the first of equals.

    Args:
        maps: float [h, w, L].
        shape: rows and columns (H, W) of the image.
        rows_wanted: of the image; all by default.

    Returns:
        value and index of the map, [H, W] each.
    """
    contenders = _contenders(maps)
    if contenders.few is not None:
        value, index = _strongest_of_few(taken(maps, contenders.few), shape, rows_wanted)
        return value, as_index(contenders.few, maps)[index]
    xp: Any = array_namespace(maps)
    band, down = (each[rows_wanted or slice(None)] for each in cells(shape[0], maps.shape[0]))
    place = _Place.of(maps, shape[1])
    weights = as_array(down, maps)[:, None]  # [H, 1]
    edges = [0, *(np.flatnonzero(np.diff(band)) + 1).tolist(), len(band)]
    found = []
    for start, stop in pairwise(edges):  # rows of pixels between the same two rows of positions
        first = int(band[start])
        rows = maps[first], maps[min(first + 1, maps.shape[0] - 1)]  # [w, L] each
        choice = contenders.of_columns(first, place.left)  # [c, W]
        step = max(PIECE // ((stop - start) * shape[1]), 1)
        pieces = [choice[at : at + step] for at in range(0, choice.shape[0], step)]
        compared = [_compared(rows, weights[start:stop], place, piece) for piece in pieces]
        found.append(reduce(later_if_larger, compared))
    values, winners = zip(*found, strict=True)
    return xp.concat(values, axis=0), xp.concat(winners, axis=0)


class _Place(NamedTuple):
    """Where each column of pixels lies: positions to its left and right, share of the right one."""

    left: Array
    right: Array
    share: Array

    @classmethod
    def of(cls, maps: Array, width: int) -> "_Place":
        cell, across = cells(width, maps.shape[1])
        right = np.minimum(cell + 1, maps.shape[1] - 1)
        return cls(as_index(cell, maps), as_index(right, maps), as_array(across, maps))


def _compared(
    rows: tuple[Array, Array], weights: Array, place: _Place, choice: Array
) -> tuple[Array, Array]:
    """The largest of chosen maps [c, W] at pixels [p, W] between two rows of positions [w, L]."""
    if is_torch_array(choice) or choice.shape[0] <= _MANY:
        top, bottom = (_along(row, place, choice) for row in rows)  # [c, W]
        between = top[:, None] + weights * (bottom - top)[:, None]  # [c, p, W]
        value, index = largest(between)
    else:  # NumPy is quicker along a last axis
        turned = _Place(*(each[:, None] for each in place))
        top, bottom = (_along(row, turned, choice.T) for row in rows)  # [W, c]
        between = top + weights[..., None] * (bottom - top)  # [p, W, c]
        index = np.argmax(between, axis=-1)
        value = np.take_along_axis(between, index[..., None], axis=-1)[..., 0]
    columns = as_index(np.arange(choice.shape[1]), choice)
    return value, choice[index, columns]


def _along(row: Array, place: _Place, choice: Array) -> Array:
    """Chosen maps of a row of positions [w, L] at the columns of pixels."""
    left = row[place.left, choice]
    return left + place.share * (row[place.right, choice] - left)


def _strongest_of_few(
    maps: Array, shape: tuple[int, int], rows_wanted: slice | None
) -> tuple[Array, Array]:
    """All of a few maps [h, w, l] at every pixel, compared: value and number, [H, W] each."""
    xp: Any = array_namespace(maps)
    grids = contiguous(xp.permute_dims(maps, (2, 0, 1)))  # [l, h, w]
    if is_torch_array(maps) and rows_wanted is None:
        return largest(resize_bilinear(grids, shape))
    place = _Place.of(maps, shape[1])
    left, right = (xp.take(grids, places, axis=2) for places in (place.left, place.right))
    between = left + place.share * (right - left)  # [l, h, W]
    band, down = (each[rows_wanted or slice(None)] for each in cells(shape[0], maps.shape[0]))
    below = as_index(np.minimum(band + 1, maps.shape[0] - 1), maps)
    above, weights = as_index(band, maps), as_array(down, maps)[:, None]
    step = max(PIECE // shape[1], 1)
    found = []
    for start in range(0, len(band), step):
        rows = slice(start, start + step)

        def at_rows(columns: Array, rows: slice = rows) -> Array:
            """One map at columns of pixels, [h, W], at rows of pixels too, [p, W]."""
            top = columns[above[rows]]
            return top + weights[rows] * (columns[below[rows]] - top)

        best = largest(at_rows(between[0])[None])
        for number in range(1, maps.shape[2]):  # one by one, which stay in the caches
            best = later_if_larger(best, (at_rows(between[number]), number))
        found.append(best)
    values, winners = zip(*found, strict=True)
    return xp.concat(values), xp.concat(winners)


@dataclass(frozen=True)
class _Contenders:
    """Maps that can be the largest somewhere in a cell between four positions.

    Attributes:
        few: those of the whole image, ascending; None where there are too many of them.
        cells: those of each cell of each band, ascending, [h - 1, c, w - 1]; a cell with fewer than
            c names its first again.
        counts: the most that a cell of each band has, [h - 1].
    """

    few: NDArray[np.int64] | None
    cells: Array = None
    counts: tuple[int, ...] = ()

    def of_columns(self, band: int, cell: Array) -> Array:
        """Those of each column of pixels in a band, by the cell it lies in: [c, W]."""
        return self.cells[band, : self.counts[band]][:, cell]


def _contenders(maps: Array) -> _Contenders:
    xp: Any = array_namespace(maps)
    if maps.shape[2] <= _ALL:
        return _Contenders(np.arange(maps.shape[2]))
    least, most = maps, maps
    for axis in (0, 1):
        if maps.shape[axis] > 1:
            least = xp.minimum(*_neighbouring(least, axis))
            most = xp.maximum(*_neighbouring(most, axis))
    possible = can_win(least, most)  # [h-1, w-1, L]
    anywhere = to_numpy(xp.nonzero(xp.any(possible, axis=(0, 1)))[0])
    if len(anywhere) <= _FEW:
        return _Contenders(anywhere)
    counts = xp.sum(xp.astype(possible, xp.int64), axis=2)  # [h-1, w-1]
    table = _padded(xp.reshape(possible, (-1, maps.shape[2])), xp.reshape(counts, (-1,)))
    cells = xp.permute_dims(xp.reshape(table, (*counts.shape, -1)), (0, 2, 1))
    return _Contenders(None, cells, tuple(xp.max(counts, axis=1).tolist()))


def _neighbouring(values: Array, axis: int) -> tuple[Array, Array]:
    return (values[:-1], values[1:]) if axis == 0 else (values[:, :-1], values[:, 1:])


def _padded(possible: Array, counts: Array) -> Array:
    """The numbers of the true entries of each row of [n, L], ascending, [n, c]."""
    xp: Any = array_namespace(possible)
    row, number = xp.nonzero(possible)
    starts = xp.cumulative_sum(counts) - counts
    slot = xp.arange(row.shape[0], device=device(possible)) - starts[row]
    table = xp.repeat(number[starts][:, None], int(xp.max(counts)), axis=1)
    table[row, slot] = number
    return table
