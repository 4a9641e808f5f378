"""Maps carried from earlier frames to the next, by which positions look alike.

DINO's video protocol (Caron et al., ICCV 2021, section 4.2.2; Jabri et al., NeurIPS 2020): every
position of a frame takes the maps of the few positions most like it, near it, in the first frame
and the last ones. Nothing is trained.

Letters: N position of a grid h w, S position of any context frame, C feature width, L map.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from array_api_compat import device
from numpy.typing import NDArray

from ovseg.models.interface import Array, array_namespace


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
        seen = xp.stack([frame.features for frame in context])  # [F, N, C]
        bands = [self._of_row(row, features, seen, grid) for row in range(grid[0])]
        turns = max(len(chosen) for chosen, _ in bands)
        for chosen, shares in bands:
            missing = turns - len(chosen)
            chosen += [chosen[0]] * missing
            shares += [0 * shares[0]] * missing
        return (
            [xp.concat([chosen[turn] for chosen, _ in bands]) for turn in range(turns)],
            [xp.concat([shares[turn] for _, shares in bands]) for turn in range(turns)],
        )

    def _of_row(
        self, row: int, features: Array, seen: Array, grid: tuple[int, int]
    ) -> tuple[list[Array], list[Array]]:
        """What the positions of one row of the grid take; a row at a time stays in the caches."""
        xp: Any = array_namespace(features)
        height, width = grid
        radius = self.radius or max(grid)
        first, stop = max(row - radius, 0), min(row + radius + 1, height)
        sources = xp.reshape(seen[:, first * width : stop * width], (-1, seen.shape[-1]))
        alike = features[row * width : (row + 1) * width] @ sources.T  # [w, F * rows * w]
        if self.radius:
            far = xp.asarray(_far(width, radius), device=device(features))  # [w, w]
            alike = xp.reshape(alike, (width, -1, width)) + far[:, None]
            alike = xp.reshape(alike, (width, -1))
        chosen, cosines = self._likeliest(alike)
        weights = [xp.exp((each - cosines[0]) / self.temperature) for each in cosines]
        total = sum(weights[1:], weights[0])
        frame_size = (stop - first) * width
        skipped = [first * width + (at // frame_size) * (height * width) for at in chosen]
        places = [at % frame_size + more for at, more in zip(chosen, skipped, strict=True)]
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


@lru_cache(maxsize=8)
def _far(count: int, radius: int) -> NDArray[np.float32]:
    """0 for two of so many places in a line that are near each other, -inf for others."""
    apart = np.abs(np.arange(count)[:, None] - np.arange(count))
    return np.where(apart <= radius, np.float32(0), np.float32(-np.inf))
