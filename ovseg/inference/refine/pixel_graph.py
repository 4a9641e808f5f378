"""LPOSS+: the pixels of the network's image as a graph, linked where colours are alike.

Stojnic et al., CVPR 2025, section 3.3. The weight of a pixel and another in the square about it is
exp(-|difference in L*a*b*| / tau). A pixel has some 170 neighbours and a handful of maps, too few
to keep a processor busy; so pixels are taken in square tiles, and the weights of those pixels of
two tiles that can be neighbours are one matrix, zero where they are not. What a pixel is to
another, that one is to it: each pair of tiles has one matrix, used both ways.

Letters: H W pixels, R C tiles down and across, s side of a tile, t pairs of tiles, a b pixels of
either, L map.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from array_api_compat import device
from numpy.typing import NDArray

from ovseg.inference.refine.colour import lab
from ovseg.inference.refine.propagation import LabelPropagation, inverse_root
from ovseg.inference.resize import as_array
from ovseg.models.interface import Array, array_namespace

SIDE = 8
"""Pixels of a tile's side, or as many as a pixel's neighbours reach if that is more."""

HELD = 120_000_000
"""Weights that are held: beyond, each row of tiles has its own worked out for every product."""

_LAB_RANGE = (100.0, 128.0, 128.0)
_FAR = 1e4  # a colour so different from every other that its weight is 0

_Part = tuple[int, slice, slice, slice, slice]  # of tiles [R, C, L, s, s]
Weights = tuple[tuple[_Part, _Part], Array]
"""Parts of pairs of tiles, and the weights of their pixels, [t, a, b]."""


class Link(NamedTuple):
    """Pixels of a tile and of the next one in some direction that can be neighbours.

    Attributes:
        down, across: tiles from the one to the other.
        first, second: rows and columns of either.
    """

    down: int
    across: int
    first: tuple[slice, slice]
    second: tuple[slice, slice]

    def parts(self, row: int, columns: int) -> tuple[_Part, _Part]:
        """Where the two are, for all pairs of tiles whose first is in a row of so many."""
        start, stop = max(-self.across, 0), columns - max(self.across, 0)
        others = slice(start + self.across, stop + self.across)
        every = slice(None)
        return (
            (row, slice(start, stop), every, *self.first),
            (row + self.down, others, every, *self.second),
        )


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
        return self._untiled(self.settings.solve(self._weigh, self._tiled(maps, 0.0), axes=(0, 2)))

    def normalised(self, values: Array) -> Array:
        """S times values of the pixels, row by row, [H W, L]."""
        xp: Any = array_namespace(values)
        maps = xp.reshape(values.T, (-1, *self.shape))
        found = self._untiled(self._weigh(self._tiled(maps, 0.0)))
        return xp.reshape(found, (values.shape[1], -1)).T

    def _weigh(self, values: Array) -> Array:
        """S times values of the pixels, tile by tile, [R C, L, s s]."""
        xp: Any = array_namespace(values)
        found = xp.zeros_like(values)
        tiles, total = self._squares(values), self._squares(found)
        for row in range(self._tiles[0]):
            for (first, second), weights in self._weights(row):
                weights = xp.astype(weights, values.dtype, copy=False)
                _add(total, first, _flat(tiles[second]) @ xp.matrix_transpose(weights))
                if first != second:
                    _add(total, second, _flat(tiles[first]) @ weights)
        return found

    def _weights(self, row: int) -> Iterable[Weights]:
        """Pairs of tiles whose first is in a row, with the entries of S of their pixels."""
        if self._held is not None:
            return self._held[row]
        return (self._balanced(each, self._root) for each in self._worked_out(row))

    @cached_property
    def _held(self) -> list[list[Weights]] | None:
        """All of them, where there is room."""
        rows, columns = self._tiles
        each = sum(mask.shape[0] * mask.shape[1] for _, mask in self._links)
        if rows * columns * each > HELD:
            return None
        found = [self._worked_out(row) for row in range(rows)]
        root = self._root_of(found)
        return [[self._balanced(each, root) for each in row] for row in found]

    @cached_property
    def _root(self) -> Array:
        """D^-1/2, as tiles [R, C, 1, s, s]."""
        return self._root_of(self._worked_out(row) for row in range(self._tiles[0]))

    def _root_of(self, rows: Iterable[list[Weights]]) -> Array:
        """The same from the weights of all rows of tiles."""
        xp: Any = array_namespace(self.colours)
        degrees = xp.zeros_like(self._coloured[:, :, :1])
        for row in rows:
            for (first, second), weights in row:
                _add(degrees, first, xp.sum(weights, axis=2)[:, None])
                if first != second:
                    _add(degrees, second, xp.sum(weights, axis=1)[:, None])
        return inverse_root(degrees)

    def _balanced(self, found: Weights, root: Array) -> Weights:
        """Entries of S of weights, which change."""
        (first, second), weights = found
        xp: Any = array_namespace(weights)
        weights *= xp.matrix_transpose(_flat(root[first]))  # [t, a, 1]
        weights *= _flat(root[second])  # [t, 1, b]
        return found

    def _worked_out(self, row: int) -> list[Weights]:
        rows, columns = self._tiles
        pairs = [(link.parts(row, columns), mask) for link, mask in self._links
                 if row + link.down < rows]  # fmt: skip
        return [(parts, self._of_pair(*parts, mask)) for parts, mask in pairs]

    def _of_pair(self, first: _Part, second: _Part, neighbours: Array) -> Array:
        """Weights of the pixels of pairs of tiles, [t, a, b]."""
        xp: Any = array_namespace(self.colours)
        ours, theirs = (_flat(self._coloured[part]) for part in (first, second))  # [t, 3, a]
        total: Any = None
        for channel in range(3):
            away = ours[:, channel, :, None] - theirs[:, channel, None, :]
            away *= away
            if total is None:
                total = away
            else:
                total += away
        distance = xp.sqrt(total)
        distance *= -1 / self.settings.tau
        weights = xp.exp(distance)
        weights *= neighbours
        return weights

    @cached_property
    def _links(self) -> list[tuple[Link, Array]]:
        """To the tile itself and to four around it, with which pixels are neighbours, [a, b]."""
        side, reach = self._side, self.settings.reach
        return [
            (link, as_array(_neighbours(link, side, reach), self.colours))
            for link in _links(side, reach)
        ]

    @property
    def _side(self) -> int:
        return max(SIDE, self.settings.reach)

    @property
    def _tiles(self) -> tuple[int, int]:
        """How many there are (R, C)."""
        height, width = self.shape
        return -(-height // self._side), -(-width // self._side)

    @cached_property
    def _coloured(self) -> Array:
        """Colours, as tiles [R, C, 3, s, s]."""
        return self._squares(self._tiled(self.colours, _FAR))

    def _tiled(self, maps: Array, beyond: float) -> Array:
        """Maps [L, H, W] tile by tile, [R C, L, s s]; `beyond` outside of the image."""
        xp: Any = array_namespace(maps)
        (height, width), (rows, columns), side = self.shape, self._tiles, self._side
        whole = (maps.shape[0], rows * side, columns * side)
        if whole != tuple(maps.shape):
            padded = xp.full(whole, beyond, dtype=maps.dtype, device=device(maps))
            padded[:, :height, :width] = maps
            maps = padded
        tiles = xp.reshape(maps, (-1, rows, side, columns, side))
        return xp.reshape(
            xp.permute_dims(tiles, (1, 3, 0, 2, 4)), (rows * columns, -1, side * side)
        )

    def _untiled(self, values: Array) -> Array:
        """Back from `_tiled`, [L, H, W]."""
        xp: Any = array_namespace(values)
        (height, width), (rows, columns), side = self.shape, self._tiles, self._side
        squares = xp.permute_dims(self._squares(values), (2, 0, 3, 1, 4))
        return xp.reshape(squares, (-1, rows * side, columns * side))[:, :height, :width]

    def _squares(self, values: Array) -> Array:
        """A view of tiles in a line [R C, L, s s] as [R, C, L, s, s]."""
        xp: Any = array_namespace(values)
        return xp.reshape(values, (*self._tiles, -1, self._side, self._side))


def _flat(part: Array) -> Array:
    """Rows and columns of tiles [t, L, h, w] as one axis, [t, L, h w]."""
    return array_namespace(part).reshape(part, (*part.shape[:2], -1))


def _add(total: Array, part: _Part, found: Array) -> None:
    """Add values [t, L, a] to a part of tiles [R, C, L, s, s], in place."""
    place = total[part]
    place += array_namespace(found).reshape(found, place.shape)


def _links(side: int, reach: int) -> list[Link]:
    """From a tile to itself, to that on its right, and to the three below."""
    every, low, high = slice(0, side), slice(0, reach), slice(side - reach, side)
    return [
        Link(0, 0, (every, every), (every, every)),
        Link(0, 1, (every, high), (every, low)),
        Link(1, -1, (high, low), (low, high)),
        Link(1, 0, (high, every), (low, every)),
        Link(1, 1, (high, high), (low, low)),
    ]


def _neighbours(link: Link, side: int, reach: int) -> NDArray[np.float64]:
    """Which pixels of the second are at most `reach` away along both axes, and others, [a, b]."""
    moved = (link.down * side, link.across * side)
    place = np.arange(side)
    away = [
        place[theirs][None, :] + step - place[ours][:, None]
        for ours, theirs, step in zip(link.first, link.second, moved, strict=True)
    ]  # along one axis each
    down, across = (np.abs(each) for each in away)
    near = (down <= reach)[:, None, :, None] & (across <= reach)[None, :, None, :]
    itself = (away[0] == 0)[:, None, :, None] & (away[1] == 0)[None, :, None, :]
    both = near & ~itself
    return both.reshape(both.shape[0] * both.shape[1], -1).astype(np.float64)
