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
from typing import Any

import numpy as np
from array_api_compat import device

from ovseg.inference.groups import largest, later_if_larger
from ovseg.inference.resize import as_array, source_positions
from ovseg.models.interface import Array, array_namespace

PIECE = 2_000_000
"""Values that are worked on at once."""

ERROR = 1e-4

_NODES = ((0.5, 4), (1.0, 6), (1.5, 8), (2.0, 12))
"""Root mean square difference of scaled neighbours, and the nodes per side of a cell it takes."""

_ALL = 4  # maps up to which all are sooner compared than chosen from
_FEW = 8  # contenders of the whole image up to which they are compared everywhere
_SHORT = 32  # maps up to which the plain sum is as quick


def strongest_on_grid(maps: Array, shape: tuple[int, int]) -> tuple[Array, Array]:
    """The largest of the interpolated maps at every pixel and its number; the first of equals.

    Args:
        maps: float [h, w, L].
        shape: rows and columns (H, W) of the result.

    Returns:
        value and index of the map, [H, W] each.
    """
    xp: Any = array_namespace(maps)
    band_of_row, down = _cells(shape[0], maps.shape[0])
    cell_of_column, across = _cells(shape[1], maps.shape[1])
    contenders = _contenders(maps)
    right = np.minimum(cell_of_column + 1, maps.shape[1] - 1)
    left, right = as_index(cell_of_column, maps), as_index(right, maps)
    share, weights = as_array(across, maps), as_array(down, maps)[:, None]
    values, winners = [], []
    for band in np.unique(band_of_row).tolist():
        choice = contenders.of_columns(band, left)  # [c, W] or [c, 1]
        rows = maps[band], maps[min(band + 1, maps.shape[0] - 1)]  # [w, L] each
        first, end = np.searchsorted(band_of_row, (band, band + 1)).tolist()
        best: Any = None
        step = max(PIECE // ((end - first) * shape[1]), 1)
        for start in range(0, choice.shape[0], step):
            some = choice[start : start + step]
            ends = (row[left, some] for row in rows), (row[right, some] for row in rows)
            top, bottom = (a + share * (b - a) for a, b in zip(*ends, strict=True))  # [c, W]
            between = top[:, None] + weights[first:end] * (bottom - top)[:, None]  # [c, p, W]
            value, index = largest(between)
            found = value, _chosen(some, index)
            best = found if best is None else later_if_larger(best, found)
        values.append(best[0])
        winners.append(best[1])
    return xp.concat(values, axis=0), xp.concat(winners, axis=0)


def _chosen(choice: Array, index: Array) -> Array:
    """The entries of choice [c, W or 1] that are meant by indices [p, W]."""
    if choice.shape[1] == 1:
        return choice[:, 0][index]
    columns = as_index(np.arange(choice.shape[1]), choice)
    return choice[index, columns]


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
        few: the same for all cells, ascending, [c, 1]; None where there are too many of them.
        cells: for each band of cells those of each cell, ascending, [w - 1, c]; cells with fewer
            than c name their first again.
    """

    few: Array | None
    cells: list[Array]

    def of_columns(self, band: int, cell: Array) -> Array:
        """Those of each column of pixels in a band, by the cell it lies in: [c, W] or [c, 1]."""
        if self.few is not None:
            return self.few
        xp: Any = array_namespace(cell)
        return xp.matrix_transpose(self.cells[band])[:, cell]


def _contenders(maps: Array) -> _Contenders:
    xp: Any = array_namespace(maps)
    if maps.shape[2] <= _ALL:
        return _Contenders(as_index(np.arange(maps.shape[2]), maps)[:, None], [])
    least, largest_ = maps, maps
    for axis in (0, 1):
        if maps.shape[axis] > 1:
            least = xp.minimum(*_neighbouring(least, axis))
            largest_ = xp.maximum(*_neighbouring(largest_, axis))
    possible = can_win(least, largest_)  # [h-1, w-1, L]
    anywhere = xp.nonzero(xp.any(possible, axis=(0, 1)))[0]
    if anywhere.shape[0] <= _FEW:
        return _Contenders(anywhere[:, None], [])
    return _Contenders(None, [_padded(band) for band in possible])


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


def _padded(possible: Array) -> Array:
    """The numbers of the true entries of each row of [w, L], ascending, [w, c]."""
    xp: Any = array_namespace(possible)
    row, number = xp.nonzero(possible)
    counts = xp.sum(xp.astype(possible, xp.int64), axis=1)
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
