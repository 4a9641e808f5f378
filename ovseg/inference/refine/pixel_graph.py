"""LPOSS+: the pixels of the network's image as a graph, linked where colours are alike.

Stojnic et al., CVPR 2025, section 3.3. The weight of a pixel and another in the square about it is
exp(-|difference in L*a*b*| / tau). A pixel has some 170 neighbours and a handful of maps, too few
to keep a processor busy; so pixels are taken in square tiles, and a tile's weights for all pixels
within reach of any of its own are one matrix, zero where they are not neighbours.

Letters: H W pixels, R C tiles down and across, t pixels of a tile, e pixels in its reach, L map.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from array_api_compat import device, is_torch_array
from numpy.typing import NDArray

from ovseg.inference.refine.colour import lab
from ovseg.inference.refine.propagation import LabelPropagation, inverse_root
from ovseg.inference.resize import as_array
from ovseg.models.interface import Array, array_namespace

SIDE = 8
"""Pixels of a tile's side."""

HELD = 120_000_000
"""Weights that are held: beyond, each row of tiles has its own worked out for every product."""

_LAB_RANGE = (100.0, 128.0, 128.0)
_FAR = 1e4  # a colour so different from every other that its weight is 0


@dataclass(frozen=True)
class PixelGraph:
    """The pixels of one image.

    Attributes:
        settings: of the propagation.
        colours: L*a*b* over its range, float [3, H, W].
    """

    settings: LabelPropagation
    colours: Array

    keeps_range = False

    @classmethod
    def of(cls, image: Array, settings: LabelPropagation) -> "PixelGraph":
        """The graph of an image, RGB in 0..1, float [3, H, W]."""
        xp: Any = array_namespace(image)
        scaled = [c / most for c, most in zip(lab(image), _LAB_RANGE, strict=True)]
        return cls(settings, xp.stack(scaled))

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns (H, W)."""
        return self.colours.shape[1], self.colours.shape[2]

    def refine(self, maps: Array) -> Array:
        """Maps [L, H, W] spread over the pixels, times 1 - alpha so that they keep their size."""
        return (1 - self.settings.alpha) * self.propagate(maps)

    def propagate(self, maps: Array) -> Array:
        """Z for maps [L, H, W], not multiplied by 1 - alpha."""
        xp: Any = array_namespace(maps)
        across = xp.reshape(maps, (maps.shape[0], -1)).T  # [H W, L]
        found = self.settings.solve(self.normalised, across)
        return xp.reshape(found.T, maps.shape)

    def normalised(self, values: Array) -> Array:
        """S times values of the pixels, row by row, [H W, L]."""
        return self._root * self._weigh(self._root * values)

    @cached_property
    def _root(self) -> Array:
        xp: Any = array_namespace(self.colours)
        ones = xp.ones_like(xp.reshape(self.colours[0], (-1, 1)))
        return inverse_root(self._weigh(ones))  # [H W, 1]

    def _weigh(self, values: Array) -> Array:
        """W times values [H W, L]."""
        xp: Any = array_namespace(values)
        height, width = self.shape
        near = self._reached(xp.reshape(values, (height, width, -1)), 0.0)  # [R, C, e, L]
        bands = []
        for tiles, weights in zip(near, self._weights(), strict=True):
            weights = xp.astype(weights, values.dtype, copy=False)
            bands.append(self._joined(weights @ tiles))  # [8, W, L]
        return xp.reshape(xp.concat(bands)[:height], (height * width, -1))

    def _joined(self, tiles: Array) -> Array:
        """A row of tiles [C, t, L] as rows of pixels, [8, W, L]."""
        xp: Any = array_namespace(tiles)
        squares = xp.reshape(tiles, (tiles.shape[0], SIDE, SIDE, -1))  # [C, 8, 8, L]
        rows = xp.permute_dims(squares, (1, 0, 2, 3))
        return xp.reshape(rows, (SIDE, -1, tiles.shape[2]))[:, : self.shape[1]]

    def _reached(self, values: Array, beyond: float) -> Array:
        """For every tile the values [H, W, L] of all pixels within its reach, [R, C, e, L].

        Those outside of the image are `beyond`.
        """
        xp: Any = array_namespace(values)
        (height, width), reach = self.shape, self.settings.reach
        down, across = (-(-length // SIDE) for length in (height, width))
        shape = (down * SIDE + 2 * reach, across * SIDE + 2 * reach, values.shape[2])
        padded = xp.full(shape, beyond, dtype=values.dtype, device=device(values))
        padded[reach : reach + height, reach : reach + width] = values
        return _squares(padded, SIDE + 2 * reach)

    def _weights(self) -> Iterator[Array]:
        """Weights of every row of tiles, [C, t, e]."""
        if self._held is not None:
            yield from self._held
            return
        for row in self._colours_reached:
            yield self._of_row(row)

    @cached_property
    def _held(self) -> list[Array] | None:
        """All of them, where there is room."""
        rows, columns, reached, _ = self._colours_reached.shape
        if rows * columns * SIDE * SIDE * reached > HELD:
            return None
        return [self._of_row(row) for row in self._colours_reached]

    @cached_property
    def _colours_reached(self) -> Array:
        xp: Any = array_namespace(self.colours)
        return self._reached(xp.permute_dims(self.colours, (1, 2, 0)), _FAR)  # [R, C, e, 3]

    def _of_row(self, colours: Array) -> Array:
        """Weights of a row of tiles from the colours [C, e, 3] within their reach: [C, t, e]."""
        xp: Any = array_namespace(colours)
        side, reach = SIDE + 2 * self.settings.reach, self.settings.reach
        squares = xp.reshape(colours, (colours.shape[0], side, side, 3))
        own = squares[:, reach : reach + SIDE, reach : reach + SIDE]
        own = xp.reshape(own, (colours.shape[0], -1, 3))  # [C, t, 3]
        total: Any = None
        for channel in range(3):
            away = own[:, :, None, channel] - colours[:, None, :, channel]
            away *= away
            if total is None:
                total = away
            else:
                total += away
        distance = xp.sqrt(total)
        distance *= -1 / self.settings.tau
        weights = xp.exp(distance)
        weights *= self._neighbouring
        return weights

    @cached_property
    def _neighbouring(self) -> Array:
        """Which pixels within a tile's reach are neighbours of which of its own, 0 or 1, [t, e]."""
        return as_array(_neighbouring(self.settings.reach), self.colours)


def _squares(padded: Array, side: int) -> Array:
    """Squares of a side, one per tile, of [rows, columns, L]: [R, C, side * side, L]."""
    if is_torch_array(padded):
        found = padded.unfold(0, side, SIDE).unfold(1, side, SIDE)  # [R, C, L, side, side]
        found = found.permute(0, 1, 3, 4, 2)
    else:
        views = np.lib.stride_tricks.sliding_window_view(padded, (side, side), axis=(0, 1))
        found = views[::SIDE, ::SIDE].transpose(0, 1, 3, 4, 2)
    return found.reshape(*found.shape[:2], side * side, found.shape[4])


def _neighbouring(reach: int) -> NDArray[np.float64]:
    """Of every pixel of a tile the other pixels at most `reach` away along both axes, [t, e]."""
    own, all_of = np.arange(SIDE), np.arange(SIDE + 2 * reach) - reach
    away = np.abs(own[:, None] - all_of)  # along one axis
    near = away <= reach
    itself = away == 0
    both = near[:, None, :, None] & near[None, :, None, :]
    both &= ~(itself[:, None, :, None] & itself[None, :, None, :])
    return both.reshape(SIDE * SIDE, -1).astype(np.float64)
