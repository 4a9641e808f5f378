"""Softmax over many queries on an interpolated grid, for a fraction of all their maps.

Letters: Q query, h w grid of positions, c candidates of a cell, H W pixels.

Two things are wanted at every pixel: the best query, and the logarithm of the sum under the
softmax. A thousand queries at a million pixels would be 4 GB and a minute.

The best query is found exactly. Between four neighbouring positions (a cell) an interpolated value
lies between the least and the largest of the four, so only queries whose largest is no less than
the best least one can win there: a handful.

The sum needs all queries, but is smooth inside a cell: it is computed at a few points of each cell
and interpolated by the polynomial through them. How few depends on how far the scaled values of
neighbours lie apart; `_NODES` keeps the error of the logarithm below `ERROR`, and beyond its last
line there is no shortcut. Where a decision hangs on less, `log_sum_exp_at` is exact.
"""

from typing import Any

import numpy as np
from array_api_compat import device

from ovseg.inference.resize import as_array, source_positions
from ovseg.models.interface import Array, array_namespace

PIECE = 4_000_000
"""Values that are worked on at once."""

ERROR = 1e-4

_NODES = ((0.5, 4), (1.0, 6), (1.5, 8), (2.0, 12))
"""Root mean square difference of scaled neighbours, and the nodes per side of a cell it takes."""

_FEW = 32  # queries up to which the plain way is as quick


def best_query(maps: Array, shape: tuple[int, int]) -> tuple[Array, Array]:
    """The largest of the interpolated values of every pixel and its query; the first of equals.

    Args:
        maps: float [h, w, Q].
        shape: rows and columns (H, W) of the result.

    Returns:
        value and index of the query, [H, W] each.
    """
    xp: Any = array_namespace(maps)
    band_of_row, down = _cells(shape[0], maps.shape[0])
    cell_of_column, across = _cells(shape[1], maps.shape[1])
    place, share = as_index(cell_of_column, maps), as_array(across, maps)[:, None]
    values, winners = [], []
    for band in np.unique(band_of_row).tolist():
        upper, lower = maps[band], maps[min(band + 1, maps.shape[0] - 1)]  # [w, Q]
        candidates = _candidates(upper, lower)[place]  # [W, c]
        weights = as_array(down[band_of_row == band], maps)[:, None, None]  # [p, 1, 1]
        top, bottom = (_along(row, candidates, place, share) for row in (upper, lower))  # [W, c]
        between = top + weights * (bottom - top)  # [p, W, c]
        values.append(xp.max(between, axis=2))
        winner = xp.argmax(between, axis=2)
        columns = xp.arange(shape[1], device=device(maps))
        winners.append(candidates[columns, winner])
    return xp.concat(values, axis=0), xp.concat(winners, axis=0)


def nodes_needed(maps: Array, scale: float, shape: tuple[int, int]) -> int | None:
    """Nodes per side of a cell that `log_sum_exp` takes; None where the plain way is better.

    Args:
        maps: float [h, w, Q].
        scale: what they are multiplied by.
        shape: rows and columns (H, W) of the result.
    """
    if maps.shape[2] <= _FEW:
        return None
    spread = scale * max(_usual_step(maps, axis) for axis in (0, 1))
    cells = max(maps.shape[0] - 1, 1) * max(maps.shape[1] - 1, 1)
    nodes = next((number for limit, number in _NODES if spread <= limit), None)
    return nodes if nodes and 2 * cells * nodes**2 < shape[0] * shape[1] else None


def log_sum_exp(maps: Array, scale: float, shape: tuple[int, int], nodes: int) -> Array:
    """log sum exp(scale * value) over the queries at every pixel, [H, W]; see `nodes_needed`."""
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
        upper = maps[top, left] + across * (maps[top, right] - maps[top, left])  # [n, Q]
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
    """Root mean square difference between neighbours along an axis of [h, w, Q]."""
    xp: Any = array_namespace(maps)
    if maps.shape[axis] < 2:
        return 0.0
    steps = maps[1:] - maps[:-1] if axis == 0 else maps[:, 1:] - maps[:, :-1]
    return float(xp.mean(steps * steps)) ** 0.5


def _candidates(upper: Array, lower: Array) -> Array:
    """Queries that can win in each cell between two rows of positions [w, Q], ascending.

    Returns:
        indices [w - 1, c]; cells with fewer candidates than c are filled up with others, which do
        no harm.
    """
    xp: Any = array_namespace(upper)
    largest, least = xp.maximum(upper, lower), xp.minimum(upper, lower)
    if upper.shape[0] > 1:
        largest = xp.maximum(largest[:-1], largest[1:])
        least = xp.minimum(least[:-1], least[1:])
    possible = largest >= xp.max(least, axis=1, keepdims=True)  # [w-1, Q]
    number = int(xp.max(xp.sum(xp.astype(possible, xp.int64), axis=1)))
    # Candidates first; ascending order among those kept makes the first of equals win.
    order = xp.argsort(xp.astype(~possible, xp.int64), axis=1, stable=True)[:, :number]
    return xp.sort(order, axis=1)


def _along(row: Array, candidates: Array, place: Array, share: Array) -> Array:
    """Values of the candidates between two neighbours of a row of positions [w, Q]: [W, c]."""
    right = place + (1 if row.shape[0] > 1 else 0)
    left_values, right_values = row[place[:, None], candidates], row[right[:, None], candidates]
    return left_values + share * (right_values - left_values)


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
