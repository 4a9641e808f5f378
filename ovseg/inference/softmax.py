"""The sum under a softmax over many maps on an interpolated grid, without making all of them.

Letters: L map, q maps of one piece, h w grid of positions, H W pixels.

The logarithm of the sum is wanted at every pixel. It needs all maps, of which a thousand of a
million pixels are 4 GB, but is smooth inside a cell between four positions: it is computed at a
few points of each cell and interpolated by the polynomial through them. How few depends on how far
the scaled values of neighbours lie apart; `_NODES` keeps the error of the logarithm below `ERROR`,
and beyond its last line there is no shortcut. Where a decision hangs on less, `log_sum_exp_at` is
exact.
"""

from typing import Any

import numpy as np

from ovseg.inference.resize import as_array, as_index, cells
from ovseg.models.interface import Array, array_namespace

PIECE = 2_000_000
"""Values that are worked on at once."""

ERROR = 1e-4

_NODES = ((0.5, 4), (1.0, 6), (1.5, 8), (2.0, 12))
"""Root mean square difference of scaled neighbours, and the nodes per side of a cell it takes."""

_SHORT = 32  # maps up to which the plain sum is as quick


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


def log_sum_exp(
    maps: Array, scale: float, shape: tuple[int, int], nodes: int, rows_wanted: slice = slice(None)
) -> Array:
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
    return as_array(to_rows[rows_wanted], maps) @ (sums.logarithm() @ to_columns)


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
    cell, into = cells(size, positions)
    first = as_index(cell, like)[pixels]
    last = as_index(np.minimum(cell + 1, positions - 1), like)[pixels]
    return first, last, as_array(into, like)[pixels][:, None]


def _usual_step(maps: Array, axis: int) -> float:
    """Root mean square difference between neighbours along an axis of [h, w, L]."""
    xp: Any = array_namespace(maps)
    if maps.shape[axis] < 2:
        return 0.0
    steps = maps[1:] - maps[:-1] if axis == 0 else maps[:, 1:] - maps[:, :-1]
    return float(xp.mean(steps * steps)) ** 0.5


def _node_tables(pixels: int, positions: int, nodes: int) -> tuple[np.ndarray, np.ndarray]:
    """For one axis: positions to nodes [nodes, positions] and nodes to pixels [pixels, nodes].

    The nodes are Chebyshev's, the same number in each cell; a pixel takes Lagrange's polynomial
    through those of its cell.
    """
    inside = (1 - np.cos((np.arange(nodes) + 0.5) * np.pi / nodes)) / 2  # 0..1, ascending
    count = max(positions - 1, 1)
    to_nodes = np.zeros((count * nodes, positions))
    for cell in range(count):
        own = slice(cell * nodes, (cell + 1) * nodes)
        to_nodes[own, cell] = 1 - inside
        to_nodes[own, min(cell + 1, positions - 1)] += inside
    cell_of_pixel, into = cells(pixels, positions)
    to_pixels = np.zeros((pixels, count * nodes))
    for node in range(nodes):
        others = np.delete(inside, node)
        basis = np.prod((into[:, None] - others) / (inside[node] - others), axis=1)
        to_pixels[np.arange(pixels), cell_of_pixel * nodes + node] = basis
    return to_nodes, to_pixels
