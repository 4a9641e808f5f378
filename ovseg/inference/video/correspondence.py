"""Maps carried from earlier frames to the next, by which positions look alike.

DINO's video protocol (Caron et al., ICCV 2021, section 4.2.2; Jabri et al., NeurIPS 2020): every
position of a frame takes the maps of the few positions most like it, near it, in the first frame
and the last ones. Nothing is trained.

Letters: N position of a grid h w, S position of any context frame, C feature width, L map.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from array_api_compat import device
from numpy.typing import NDArray

from ovseg.distributed import one_blas_thread
from ovseg.models.interface import Array, array_namespace

_TILE = 8  # rows and columns: of 4 to 16, the quickest


@dataclass(frozen=True)
class Remembered:
    """An earlier frame.

    Attributes:
        features: of its positions, of length 1, float [N, C].
        maps: what is carried on from there, float [N, L].
    """

    features: Array
    maps: Array


@dataclass(frozen=True)
class Correspondence:
    """Settings of the protocol.

    Attributes:
        last: frames that are remembered beside the first.
        radius: rows and columns that something may move from one frame to the next, in positions; 0
            for any number.
        top: positions of all remembered frames that one takes from.
        temperature: cosines are divided by it before the exponential.
    """

    last: int = 7
    radius: int = 12
    top: int = 5
    temperature: float = 0.1

    def carry(self, features: Array, context: Sequence[Remembered], grid: tuple[int, int]) -> Array:
        """The maps of remembered frames at the positions of the next one, float [N, L].

        Args:
            features: of that frame's positions, of length 1, float [N, C].
            context: frames of the same grid.
            grid: rows and columns (h, w).
        """
        chosen, shares = self.affinity(features, context, grid)
        xp: Any = array_namespace(features)
        maps = xp.concat([frame.maps for frame in context])  # [S, L]
        carried = [share[:, None] * maps[at] for at, share in zip(chosen, shares, strict=True)]
        return sum(carried[1:], carried[0])

    def affinity(
        self, features: Array, context: Sequence[Remembered], grid: tuple[int, int]
    ) -> tuple[list[Array], list[Array]]:
        """What each position takes: places [N] in the context, in turns, and shares that sum to 1.

        There are `top` turns; and more of them where several are as alike as the last.
        """
        xp: Any = array_namespace(features)
        seen = xp.stack([xp.reshape(frame.features, (*grid, -1)) for frame in context])  # [F h w C]
        now = xp.reshape(features, (*grid, -1))
        with one_blas_thread():
            tiles = [self._of_tile(now, seen, rows, columns) for rows, columns in _tiles(grid)]
        turns = max(len(chosen) for chosen, _ in tiles)
        for chosen, shares in tiles:
            missing = turns - len(chosen)
            chosen += [chosen[0]] * missing
            shares += [0 * shares[0]] * missing
        back = xp.asarray(_from_tiles(grid), device=device(features))
        return (
            [xp.concat([chosen[turn] for chosen, _ in tiles])[back] for turn in range(turns)],
            [xp.concat([shares[turn] for _, shares in tiles])[back] for turn in range(turns)],
        )

    def _of_tile(
        self, now: Array, seen: Array, rows: slice, columns: slice
    ) -> tuple[list[Array], list[Array]]:
        """What the positions of one tile take; what is near a tile stays in the caches."""
        xp: Any = array_namespace(now)
        count, height, width, channels = seen.shape
        radius = self.radius or max(height, width)
        down, across = _around(rows, radius, height), _around(columns, radius, width)
        queries = xp.reshape(now[rows, columns], (-1, channels))
        near = xp.reshape(seen[:, down, across], (count, -1, channels))
        # A frame at a time: equal features then have equal products, to the last bit.
        alike = [queries @ near[frame].T for frame in range(count)]  # [n, rows * columns] each
        if self.radius:
            apart = _far(height, radius)[rows, down][:, None, :, None]
            apart = apart + _far(width, radius)[columns, across][:, None]
            far = xp.asarray(apart.reshape(len(queries), -1), device=device(now))
            alike = [each + far for each in alike]
        chosen, cosines = self._likeliest(xp.concat(alike, axis=1))
        weights = [xp.exp((each - cosines[0]) / self.temperature) for each in cosines]
        total = sum(weights[1:], weights[0])
        wide, size = across.stop - across.start, near.shape[1]
        places = [
            at // size * (height * width)
            + (down.start + at % size // wide) * width
            + across.start
            + at % wide
            for at in chosen
        ]
        return places, [weight / total for weight in weights]

    def _likeliest(self, alike: Array) -> tuple[list[Array], list[Array]]:
        """Columns of the largest values of each row and the values, in turns; changes `alike`."""
        xp: Any = array_namespace(alike)
        rows = xp.arange(alike.shape[0], device=device(alike))
        chosen: list[Array] = []
        values: list[Array] = []
        while len(chosen) < alike.shape[1]:
            best = xp.argmax(alike, axis=1)
            value = alike[rows, best]
            if len(chosen) >= self.top:
                value = xp.where(value == values[self.top - 1], value, -xp.inf)
                if bool(xp.all(value == -xp.inf)):
                    break
            chosen.append(best)
            values.append(value)
            alike[rows, best] = -xp.inf
        return chosen, values


def near(grid: tuple[int, int], radius: int) -> NDArray[np.bool_]:
    """Which positions are within so many rows and columns of each other, [N, N]."""
    rows, columns = (_far(side, radius) == 0 for side in grid)
    return np.einsum("ij,kl->ikjl", rows, columns).reshape(grid[0] * grid[1], -1)


def _tiles(grid: tuple[int, int]) -> Iterator[tuple[slice, slice]]:
    """Rows and columns of each tile of a grid."""
    for top in range(0, grid[0], _TILE):
        for left in range(0, grid[1], _TILE):
            yield (
                slice(top, min(top + _TILE, grid[0])),
                slice(left, min(left + _TILE, grid[1])),
            )


@lru_cache(maxsize=8)
def _from_tiles(grid: tuple[int, int]) -> NDArray[np.int64]:
    """Where each position of a grid stands when tile follows tile, [N]."""
    positions = np.arange(grid[0] * grid[1]).reshape(grid)
    return np.argsort(np.concatenate([positions[tile].ravel() for tile in _tiles(grid)]))


def _around(places: slice, radius: int, count: int) -> slice:
    """What is near any of these, of so many places in a line."""
    return slice(max(places.start - radius, 0), min(places.stop + radius, count))


@lru_cache(maxsize=8)
def _far(count: int, radius: int) -> NDArray[np.float32]:
    """0 for two of so many places in a line that are near each other, -inf for others."""
    apart = np.abs(np.arange(count)[:, None] - np.arange(count))
    return np.where(apart <= radius, np.float32(0), np.float32(-np.inf))
