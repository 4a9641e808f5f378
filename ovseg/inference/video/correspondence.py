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

from ovseg.inference.refine.affinity import unit_rows
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
            features: of that frame's positions, float [N, C].
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
        alike = self._likeness(unit_rows(features), context, grid)  # [N, S]
        rows = xp.arange(alike.shape[0], device=device(alike))
        chosen: list[Array] = []
        cosines: list[Array] = []
        while len(chosen) < alike.shape[1]:
            best = xp.argmax(alike, axis=1)
            cosine = alike[rows, best]
            if len(chosen) >= self.top:
                cosine = xp.where(cosine == cosines[self.top - 1], cosine, -xp.inf)
                if bool(xp.all(cosine == -xp.inf)):
                    break
            chosen.append(best)
            cosines.append(cosine)
            alike[rows, best] = -xp.inf
        weights = [xp.exp((each - cosines[0]) / self.temperature) for each in cosines]
        total = sum(weights[1:], weights[0])
        return chosen, [weight / total for weight in weights]

    def _likeness(
        self, features: Array, context: Sequence[Remembered], grid: tuple[int, int]
    ) -> Array:
        """Cosines with every position of the context, -inf where they are too far away, [N, S]."""
        xp: Any = array_namespace(features)
        alike = xp.concat([features @ frame.features.T for frame in context], axis=1)
        if self.radius:
            far = xp.asarray(_far(grid, self.radius), device=device(features))
            number = features.shape[0]
            for start in range(0, alike.shape[1], number):
                alike[:, start : start + number] += far
        return alike


def near(grid: tuple[int, int], radius: int) -> NDArray[np.bool_]:
    """Which positions are within so many rows and columns of each other, [N, N]."""
    rows, columns = (np.abs(np.arange(side)[:, None] - np.arange(side)) <= radius for side in grid)
    return np.einsum("ij,kl->ikjl", rows, columns).reshape(grid[0] * grid[1], -1)


@lru_cache(maxsize=4)
def _far(grid: tuple[int, int], radius: int) -> NDArray[np.float32]:
    """0 for two positions that are near each other, -inf for others, [N, N]."""
    return np.where(near(grid, radius), np.float32(0), np.float32(-np.inf))
