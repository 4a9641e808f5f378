"""The best of many maps, and their softmax, on an interpolated grid, without making all of them.

Letters: L map, h w grid of positions, c contenders of a cell, W columns and p rows of pixels, H W
pixels.

Two things are wanted at every pixel: the largest map, and the logarithm of the sum under the
softmax. A thousand maps of a million pixels would be 4 GB and a minute.

The largest is found exactly. Between four neighbouring positions (a cell) an interpolated value
lies between the least and the largest of the four, so only maps whose largest is no less than the
best least one can win there: a handful.

The sum needs all maps, but is smooth inside a cell: it is computed at a few points of each cell and
interpolated by the polynomial through them. How few depends on how far the scaled values of
neighbours lie apart; `_NODES` keeps the error of the logarithm below `ERROR`, and beyond its last
line there is no shortcut. Where a decision hangs on less, `log_sum_exp_at` is exact.
"""

from dataclasses import dataclass
from functools import reduce
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
from array_api_compat import device, is_torch_array
from numpy.typing import NDArray

from ovseg.inference.groups import largest, later_if_larger
from ovseg.inference.resize import as_array, contiguous, resize_bilinear, source_positions, taken
from ovseg.models.interface import Array, array_namespace, to_numpy

PIECE = 2_000_000
"""Values that are worked on at once."""

ERROR = 1e-4

_NODES = ((0.5, 4), (1.0, 6), (1.5, 8), (2.0, 12))
"""Root mean square difference of scaled neighbours, and the nodes per side of a cell it takes."""

_ALL = 4  # maps up to which all are sooner compared than chosen from
_FEW = 8  # contenders of the whole image up to which they are compared everywhere
_MANY = 16  # contenders of a cell from which NumPy compares them along the last axis
_SHORT = 32  # maps up to which the plain sum is as quick


def strongest_on_grid(maps: Array, shape: tuple[int, int]) -> tuple[Array, Array]:
    """The largest of the interpolated maps at every pixel and its number; the first of equals.

    Args:
        maps: float [h, w, L].
        shape: rows and columns (H, W) of the result.

    Returns:
        value and index of the map, [H, W] each.
    """
    contenders = _contenders(maps)
    if contenders.few is not None:
        value, index = _strongest_of_few(taken(maps, contenders.few), shape)
        return value, as_index(contenders.few, maps)[index]
    xp: Any = array_namespace(maps)
    band, down = _cells(shape[0], maps.shape[0])
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
        cell, across = _cells(width, maps.shape[1])
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


def _strongest_of_few(maps: Array, shape: tuple[int, int]) -> tuple[Array, Array]:
    """All of a few maps [h, w, l] at every pixel, compared: value and number, [H, W] each."""
    grids = contiguous(array_namespace(maps).permute_dims(maps, (2, 0, 1)))  # [l, h, w]
    if is_torch_array(maps):
        return largest(resize_bilinear(grids, shape))
    place = _Place.of(maps, shape[1])
    left = grids[:, :, place.left]
    between = left + place.share * (grids[:, :, place.right] - left)  # [l, h, W]
    band, down = _cells(shape[0], maps.shape[0])
    below = np.minimum(band + 1, maps.shape[0] - 1)
    weights = as_array(down, maps)[:, None]
    step = max(PIECE // (maps.shape[2] * shape[1]), 1)
    found = []
    for start in range(0, shape[0], step):
        rows = slice(start, start + step)
        top, bottom = between[:, band[rows]], between[:, below[rows]]  # [l, p, W]
        found.append(largest(top + weights[rows] * (bottom - top)))
    values, winners = zip(*found, strict=True)
    return np.concatenate(values), np.concatenate(winners)


def nodes_needed(maps: Array, scale: float, shape: tuple[int, int]) -> int | None:
    """Nodes per side of a cell that `log_sum_exp` takes; None where the plain way is better.

    Args:
        maps: float [h, w, L].
        scale: what they are multiplied by.
        shape: rows and columns (H, W) of the result.
    """
    if maps.shape[2] <= _SHORT:
        return None
    spread = scale * max(_usual_step(maps, axis) for axis in (0, 1))
    cells = max(maps.shape[0] - 1, 1) * max(maps.shape[1] - 1, 1)
    nodes = next((number for limit, number in _NODES if spread <= limit), None)
    return nodes if nodes and 2 * cells * nodes**2 < shape[0] * shape[1] else None


def log_sum_exp(maps: Array, scale: float, shape: tuple[int, int], nodes: int) -> Array:
    """log sum exp(scale * value) over the maps at every pixel, [H, W]; see `nodes_needed`."""
    xp: Any = array_namespace(maps)
    (at_rows, to_rows), (at_columns, to_columns) = (
        _node_tables(pixels, positions, nodes)
        for pixels, positions in zip(shape, maps.shape[:2], strict=True)
    )
    rows, columns = as_array(at_rows, maps), xp.matrix_transpose(as_array(at_columns, maps))
    step = max(PIECE // (len(at_rows) * len(at_columns)), 1)
    sums = RunningSum()
    for start in range(0, maps.shape[2], step):
        piece = xp.permute_dims(maps[..., start : start + step], (2, 0, 1)) * scale
        sums.add(rows @ (piece @ columns))  # [q, nodes of rows, nodes of columns]
    to_columns = xp.matrix_transpose(as_array(to_columns, maps))
    return as_array(to_rows, maps) @ (sums.logarithm() @ to_columns)


class RunningSum:
    """log sum exp over the first axis of pieces that come one after another."""

    def __init__(self) -> None:
        self._highest: Array = None
        self._total: Array = None

    def add(self, piece: Array) -> None:
        """Take in a piece, [q, H, W]."""
        xp: Any = array_namespace(piece)
        top = xp.max(piece, axis=0)
        if self._highest is None:
            self._highest, self._total = top, xp.sum(xp.exp(piece - top), axis=0)
            return
        reached = xp.maximum(top, self._highest)
        before = self._total * xp.exp(self._highest - reached)
        self._total = before + xp.sum(xp.exp(piece - reached), axis=0)
        self._highest = reached

    def logarithm(self) -> Array:
        """Of the sum so far, [H, W]."""
        xp: Any = array_namespace(self._highest)
        return self._highest + xp.log(self._total)


def log_sum_exp_at(
    maps: Array, scale: float, shape: tuple[int, int], rows: Array, columns: Array
) -> Array:
    """`log_sum_exp` without a shortcut at some pixels, [n], given by their rows and columns."""
    xp: Any = array_namespace(maps)
    found = []
    step = max(PIECE // maps.shape[2], 1)
    for start in range(0, rows.shape[0], step):
        own = slice(start, start + step)
        (top, bottom, down), (left, right, across) = (
            _neighbours(pixels[own], size, positions, maps)
            for pixels, size, positions in zip((rows, columns), shape, maps.shape[:2], strict=True)
        )
        upper = maps[top, left] + across * (maps[top, right] - maps[top, left])  # [n, L]
        lower = maps[bottom, left] + across * (maps[bottom, right] - maps[bottom, left])
        values = scale * (upper + down * (lower - upper))
        highest = xp.max(values, axis=1, keepdims=True)
        total = xp.sum(xp.exp(values - highest), axis=1)
        found.append(highest[:, 0] + xp.log(total))
    return xp.concat(found)


def _neighbours(
    pixels: Array, size: int, positions: int, like: Array
) -> tuple[Array, Array, Array]:
    """Positions before and after each pixel of one axis, and the share of the second, [n, 1]."""
    cells, into = _cells(size, positions)
    first = as_index(cells, like)[pixels]
    last = as_index(np.minimum(cells + 1, positions - 1), like)[pixels]
    return first, last, as_array(into, like)[pixels][:, None]


def _usual_step(maps: Array, axis: int) -> float:
    """Root mean square difference between neighbours along an axis of [h, w, L]."""
    xp: Any = array_namespace(maps)
    if maps.shape[axis] < 2:
        return 0.0
    steps = maps[1:] - maps[:-1] if axis == 0 else maps[:, 1:] - maps[:, :-1]
    return float(xp.mean(steps * steps)) ** 0.5


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


def can_win(least: Array, largest: Array) -> Array:
    """Which maps can be the first of the largest somewhere, bool [..., L].

    A map whose largest value is below the best least one cannot be. One whose largest value equals
    that can at most tie, and is then behind the first map that has it as its least.

    Args:
        least, largest: bounds of each map's values, float [..., L].
    """
    xp: Any = array_namespace(least)
    bar = xp.max(least, axis=-1, keepdims=True)
    champion = xp.argmax(least, axis=-1)[..., None]
    number = xp.arange(least.shape[-1], device=device(least))
    return (largest > bar) | ((largest == bar) & (number <= champion))


def _padded(possible: Array, counts: Array) -> Array:
    """The numbers of the true entries of each row of [n, L], ascending, [n, c]."""
    xp: Any = array_namespace(possible)
    row, number = xp.nonzero(possible)
    starts = xp.cumulative_sum(counts) - counts
    slot = xp.arange(row.shape[0], device=device(possible)) - starts[row]
    table = xp.repeat(number[starts][:, None], int(xp.max(counts)), axis=1)
    table[row, slot] = number
    return table


def _cells(pixels: int, positions: int) -> tuple[np.ndarray, np.ndarray]:
    """The cell of each pixel of one axis, and how far into it the pixel lies, 0..1."""
    at = source_positions(positions, pixels)
    cell = np.minimum(np.floor(at).astype(np.int64), max(positions - 2, 0))
    return cell, at - cell


def as_index(values: np.ndarray, like: Array) -> Array:
    """Indices as an array of the kind and device of `like`."""
    xp: Any = array_namespace(like)
    return xp.asarray(values, device=device(like))


def _node_tables(pixels: int, positions: int, nodes: int) -> tuple[np.ndarray, np.ndarray]:
    """For one axis: positions to nodes [nodes, positions] and nodes to pixels [pixels, nodes].

    The nodes are Chebyshev's, the same number in each cell; a pixel takes Lagrange's polynomial
    through those of its cell.
    """
    inside = (1 - np.cos((np.arange(nodes) + 0.5) * np.pi / nodes)) / 2  # 0..1, ascending
    cells = max(positions - 1, 1)
    to_nodes = np.zeros((cells * nodes, positions))
    for cell in range(cells):
        own = slice(cell * nodes, (cell + 1) * nodes)
        to_nodes[own, cell] = 1 - inside
        to_nodes[own, min(cell + 1, positions - 1)] += inside
    cell_of_pixel, into = _cells(pixels, positions)
    to_pixels = np.zeros((pixels, cells * nodes))
    for node in range(nodes):
        others = np.delete(inside, node)
        basis = np.prod((into[:, None] - others) / (inside[node] - others), axis=1)
        to_pixels[np.arange(pixels), cell_of_pixel * nodes + node] = basis
    return to_nodes, to_pixels
