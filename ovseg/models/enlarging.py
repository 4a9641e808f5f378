"""Values of positions at those of a finer grid.

Letters: B image, N position, P position of the finer grid, K value, h w grid.

Written with the array API: torch, NumPy and exported graphs run the same lines.
"""

from dataclasses import replace
from typing import Any

from ovseg.models.interface import Array, GroupedImage, array_namespace


def at_grid(grouped: GroupedImage) -> GroupedImage:
    """The same with embeddings at all positions of its grid."""
    return replace(grouped, embedding=to_grid(grouped.embedding, grouped))


def comparable(grouped: GroupedImage) -> Array:
    """Embeddings as wide as those of classes, at all positions of the grid, float [B, P, C]."""
    embedding = at_grid(grouped).embedding
    if grouped.weights is None:
        return embedding
    xp: Any = array_namespace(embedding)
    return xp.concat([embedding, grouped.weights[..., 1:]], axis=-1)


def to_grid(values: Array, grouped: GroupedImage) -> Array:
    """Values where embeddings are, [B, N, K], at all positions of the grid, [B, P, K]."""
    if grouped.weights is None:
        return values
    return enlarged(values, grouped.grid, factor(grouped.weights.shape[1], values.shape[1]))


def factor(fine: int, coarse: int) -> int:
    """By how much a grid of so many positions is finer than one of fewer, along both sides."""
    return round((fine / coarse) ** 0.5)


def enlarged(values: Array, grid: tuple[int, int], times: int) -> Array:
    """Values of positions, [B, N, K], at those of a grid (h, w), [B, P, K], bilinearly.

    The grid is finer by a power of two along both sides.
    """
    xp: Any = array_namespace(values)
    rows, columns = grid[0] // times, grid[1] // times
    maps = xp.reshape(values, (values.shape[0], rows, columns, values.shape[2]))
    while times > 1:
        maps = _doubled(xp, _doubled(xp, maps, 1), 2)
        times //= 2
    return xp.reshape(maps, (values.shape[0], grid[0] * grid[1], values.shape[2]))


def _doubled(xp: Any, maps: Array, axis: int) -> Array:
    """Twice as many along an axis of [B, h, w, K]: each two lie a quarter off the one before."""
    first, last = [slice(None)] * 4, [slice(None)] * 4
    first[axis], last[axis] = slice(0, 1), slice(-1, None)
    but_last, but_first = [slice(None)] * 4, [slice(None)] * 4
    but_last[axis], but_first[axis] = slice(None, -1), slice(1, None)
    before = xp.concat([maps[tuple(first)], maps[tuple(but_last)]], axis=axis)
    behind = xp.concat([maps[tuple(but_first)], maps[tuple(last)]], axis=axis)
    most = 0.75 * maps
    pairs = xp.stack([most + 0.25 * before, most + 0.25 * behind], axis=axis + 1)
    shape = list(maps.shape)
    shape[axis] = 2 * shape[axis]
    return xp.reshape(pairs, tuple(shape))
