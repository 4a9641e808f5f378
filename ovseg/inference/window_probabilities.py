"""Probabilities in each window, averaged over the windows: how dino.txt and TIPS label images.

Letters: M window, L map, l maps of one piece, h w grid of positions, H' W' view, H W image.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

from array_api_compat import device

from ovseg.inference.encode import EncodedView
from ovseg.inference.resize import Columns, contiguous, resize_bilinear, taken
from ovseg.inference.softmax import RunningSum
from ovseg.inference.views import Box, View
from ovseg.models.interface import Array, array_namespace

PIECE = 4_000_000
"""Values of maps of a window that are summed at once."""


@dataclass(frozen=True)
class WindowProbabilities:
    """A softmax over all maps at the pixels of each window, averaged where windows overlap.

    Attributes:
        grids: scores of the positions of every window, float [M, L, h, w].
        view: the windows.
        shape: rows and columns (H, W) of the maps.
        scale: what scores are multiplied by.
    """

    grids: Array
    view: View
    shape: tuple[int, int]
    scale: float

    @classmethod
    def of(
        cls, scores: Array, encoded: EncodedView, shape: tuple[int, int], scale: float
    ) -> "WindowProbabilities":
        """Of scores per position, float [M, h*w, L]."""
        xp: Any = array_namespace(scores)
        maps = xp.reshape(xp.matrix_transpose(scores), (len(scores), -1, *encoded.grouped.grid))
        return cls(contiguous(maps), encoded.view, shape, scale)

    @property
    def count(self) -> int:
        return int(self.grids.shape[1])

    def bounds(self) -> tuple[Array, Array]:
        xp: Any = array_namespace(self.grids)
        none = xp.zeros_like(self.grids[0, :, 0, 0])
        return none, none + 1

    def piece(self, columns: Columns) -> Array:
        xp: Any = array_namespace(self.grids)
        like = {"dtype": self.grids.dtype, "device": device(self.grids)}
        total: Any = None
        times = xp.zeros(self.view.shape, **like)
        for number, box in enumerate(self.view.boxes):
            found = xp.exp(self._logits(number, columns) - self._normalisers[number])
            if total is None:
                total = xp.zeros((found.shape[0], *self.view.shape), **like)
            rows, across = box.slices
            total[:, rows, across] += found
            times[rows, across] += 1
        return resize_bilinear(total / times, self.shape)

    @cached_property
    def _normalisers(self) -> list[Array]:
        """Log sum exp over all maps at the pixels of each window, [height, width]."""
        return [self._normaliser(number, box) for number, box in enumerate(self.view.boxes)]

    def _normaliser(self, number: int, box: Box) -> Array:
        sums = RunningSum()
        step = max(PIECE // (box.height * box.width), 1)
        for start in range(0, self.count, step):
            sums.add(self._logits(number, slice(start, start + step)))
        return sums.logarithm()

    def _logits(self, number: int, columns: Columns) -> Array:
        """Scaled scores of some maps at the pixels of a window, [l, height, width]."""
        xp: Any = array_namespace(self.grids)
        box, padding = self.view.boxes[number], self.view.padding
        chosen = taken(xp.permute_dims(self.grids[number], (1, 2, 0)), columns)
        maps = contiguous(xp.permute_dims(chosen, (2, 0, 1)))
        whole = resize_bilinear(maps, padding.shape)
        inside = whole[:, padding.above :, padding.before :][:, : box.height, : box.width]
        return self.scale * inside
