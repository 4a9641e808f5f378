"""LPOSS: the patches of all windows of an image as one graph.

Stojnic et al., CVPR 2025, section 3. Patches are linked by the likeness of their features and by
how near they are in the image; the same place seen by two windows is two nodes, strongly linked.

Letters: n node, C feature width, L map, k neighbour, b rows worked on at once.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from array_api_compat import device, is_torch_array
from numpy.typing import NDArray

from ovseg.inference.refine.propagation import LabelPropagation, inverse_root
from ovseg.inference.resize import as_array, as_index
from ovseg.models.interface import Array, array_namespace

HELD = 24_000_000
"""Weights that are held at once: of more nodes they are laid out again for every product."""


@dataclass(frozen=True)
class PatchGraph:
    """The neighbours of every patch, and how much each counts.

    Attributes:
        settings: of the propagation.
        neighbours: node numbers, int [n, k].
        likeness: of each neighbour, 0 for the node itself, float [n, k].
    """

    settings: LabelPropagation
    neighbours: Array
    likeness: Array

    @classmethod
    def of(
        cls, features: Array, places: NDArray[np.float64], settings: LabelPropagation
    ) -> "PatchGraph":
        """The graph of patches.

        Args:
            features: of unit length, float [n, C].
            places: row and column of each patch in pixels of the whole image, [n, 2].
            settings: of the propagation.
        """
        xp: Any = array_namespace(features)
        count = len(features)
        at = as_array(places, features)
        kept = min(settings.neighbours, count)
        found = []
        for rows in _blocks(count, count):
            likeness, nearest = _largest(features[rows] @ features.T, kept)
            near = xp.clip(likeness, 0, None) ** settings.gamma
            away = at[rows][:, None] - at[nearest]  # [b, k, 2]
            distance = xp.sqrt(xp.sum(away * away, axis=-1)) ** settings.power
            near = near * xp.exp(-settings.sigma * distance)
            itself = as_index(np.arange(rows.start, rows.stop), nearest)[:, None]
            found.append((nearest, xp.where(nearest == itself, 0 * near, near)))
        nearest, near = zip(*found, strict=True)
        return cls(settings, xp.concat(nearest), xp.concat(near))

    def propagate(self, scores: Array) -> Array:
        """Z for the scores of all patches, float [n, L]; not multiplied by 1 - alpha."""
        return self.settings.solve(self.normalised, scores)

    def normalised(self, values: Array) -> Array:
        """S times values [n, L]."""
        return self._root * self._weigh(self._root * values)

    @cached_property
    def _root(self) -> Array:
        xp: Any = array_namespace(self.likeness)
        return inverse_root(self._weigh(xp.ones_like(self.likeness[:, :1])))  # [n, 1]

    def _weigh(self, values: Array) -> Array:
        """W = K + K' times values [n, L]: mutual neighbours count twice."""
        if self._whole is not None:
            return self._whole @ values + self._whole.T @ values
        xp: Any = array_namespace(values)
        total = xp.zeros_like(values)
        for rows in _blocks(*self._shape):
            block = self._laid_out(rows)  # [b, n]
            total[rows] += block @ values
            total += block.T @ values[rows]
        return total

    @cached_property
    def _whole(self) -> Array | None:
        """K, where there is room for all of it."""
        count = self._shape[0]
        return self._laid_out(slice(0, count)) if count * count <= HELD else None

    def _laid_out(self, rows: slice) -> Array:
        """Rows of K with a column for every node, [b, n]."""
        xp: Any = array_namespace(self.likeness)
        near = self.likeness[rows]
        block = xp.zeros((len(near), self._shape[1]), dtype=near.dtype, device=device(near))
        numbers = as_index(np.arange(len(near)), near)[:, None]
        block[numbers, self.neighbours[rows]] = near
        return block

    @property
    def _shape(self) -> tuple[int, int]:
        return len(self.likeness), len(self.likeness)


def _blocks(rows: int, columns: int) -> Iterator[slice]:
    """Rows in pieces of at most a third of what may be held."""
    step = max(HELD // 3 // columns, 1)
    for start in range(0, rows, step):
        yield slice(start, min(start + step, rows))


def _largest(values: Array, count: int) -> tuple[Array, Array]:
    """The largest of each row of [b, n] and where they are, [b, count] each, in no order."""
    if is_torch_array(values):
        found = values.topk(count, dim=1, sorted=False)
        return found.values, found.indices
    where = np.argpartition(values, values.shape[1] - count, axis=1)[:, -count:]
    return np.take_along_axis(values, where, axis=1), where
