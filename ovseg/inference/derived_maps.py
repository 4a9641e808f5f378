"""Score maps made of other score maps: their mean, cleaned, resized, several phrases as one class.

Letters: L map (a label or a phrase), l maps of one piece, Q phrase, K class, H W image.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any

import numpy as np

from ovseg.inference.bands import Band
from ovseg.inference.maps import Refiner, ScoreMaps, kept
from ovseg.inference.resize import Columns, resize_bilinear
from ovseg.models.interface import Array, array_namespace


@dataclass(frozen=True)
class MeanMaps:
    """The mean of several views' maps; those of mirrored views are mirrored back."""

    views: Sequence[ScoreMaps]
    flipped: Sequence[bool]

    @property
    def count(self) -> int:
        return self.views[0].count

    @property
    def shape(self) -> tuple[int, int]:
        return self.views[0].shape

    def banded(self, band: Band) -> "MeanMaps":
        """The same at some rows of the image; of views that can be had so."""
        return MeanMaps([view.banded(band) for view in self.views], self.flipped)  # type: ignore[attr-defined]

    def bounds(self) -> tuple[Array, Array]:
        least, largest = zip(*(view.bounds() for view in self.views), strict=True)
        return sum(least) / len(least), sum(largest) / len(largest)

    def piece(self, columns: Columns) -> Array:
        total: Any = None
        for maps, flipped in zip(self.views, self.flipped, strict=True):
            piece = maps.piece(columns)
            if flipped:
                piece = array_namespace(piece).flip(piece, axis=-1)
            total = piece if total is None else total + piece
        return total / len(self.views)


def mean_of(views: Sequence[ScoreMaps], flipped: Sequence[bool]) -> ScoreMaps:
    """The views' mean, or the only view as it is."""
    return views[0] if len(views) == 1 and not flipped[0] else MeanMaps(views, flipped)


@dataclass(frozen=True)
class RefinedMaps:
    """Maps that follow what is in the image."""

    maps: ScoreMaps
    refiner: Refiner

    @property
    def count(self) -> int:
        return self.maps.count

    @property
    def shape(self) -> tuple[int, int]:
        return self.refiner.shape

    def bounds(self) -> tuple[Array, Array]:
        return kept(*self.maps.bounds(), [self.refiner])

    def piece(self, columns: Columns) -> Array:
        return self.refiner.refine(self.maps.piece(columns))


@dataclass(frozen=True)
class ResizedMaps:
    """Maps brought to another size."""

    maps: ScoreMaps
    shape: tuple[int, int]

    @property
    def count(self) -> int:
        return self.maps.count

    def bounds(self) -> tuple[Array, Array]:
        return self.maps.bounds()

    def piece(self, columns: Columns) -> Array:
        return resize_bilinear(self.maps.piece(columns), self.shape)


@dataclass(frozen=True)
class MergedMaps:
    """For each class the best of its phrases' maps.

    Attributes:
        maps: of the phrases, those of a class side by side.
        classes: class of each phrase, never decreasing.
    """

    maps: ScoreMaps
    classes: tuple[int, ...]

    @property
    def count(self) -> int:
        return len(self._starts) - 1

    @property
    def shape(self) -> tuple[int, int]:
        return self.maps.shape

    def bounds(self) -> tuple[Array, Array]:
        least, most = self.maps.bounds()
        return best_of_classes(least, self.classes), best_of_classes(most, self.classes)

    def piece(self, columns: Columns) -> Array:
        wanted = np.arange(self.count)[columns]
        phrases = [np.arange(self._starts[one], self._starts[one + 1]) for one in wanted]
        found = self.maps.piece(np.concatenate(phrases))
        xp: Any = array_namespace(found)
        stops = np.cumsum([len(each) for each in phrases]).tolist()
        starts = [0, *stops[:-1]]
        pairs = zip(starts, stops, strict=True)
        return xp.stack([xp.max(found[start:stop], axis=0) for start, stop in pairs])

    @cached_property
    def _starts(self) -> list[int]:
        """First phrase of each class, and behind the last."""
        changes = np.flatnonzero(np.diff(np.array(self.classes))) + 1
        return [0, *changes.tolist(), len(self.classes)]


def best_of_classes(scores: Array, classes: tuple[int, ...]) -> Array:
    """From a column per phrase to one per class that has some, by maximum: [..., Q] -> [..., K]."""
    xp: Any = array_namespace(scores)
    changes = np.flatnonzero(np.diff(np.array(classes))) + 1
    edges = [0, *changes.tolist(), len(classes)]
    return xp.stack([xp.max(scores[..., a:b], axis=-1) for a, b in pairwise(edges)], axis=-1)
