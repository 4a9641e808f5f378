"""From score maps to one label per pixel.

Letters: L map (a label, or a phrase; a class may have several), K class with background as class 0,
H W pixels.

Maps come in pieces (`ScoreMaps`), and those that can nowhere be the largest never: what is kept is
the best so far, and for probabilities the sum under the softmax.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import log
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ovseg.inference.bands import bands_of, joined
from ovseg.inference.derived_maps import MeanMaps
from ovseg.inference.grid import strongest_on_grid
from ovseg.inference.maps import PositionMaps, RegionMaps, ScoreMaps
from ovseg.inference.maxima import can_win, largest, later_if_larger
from ovseg.inference.resize import Columns, as_index, taken
from ovseg.inference.softmax import (
    ERROR,
    RunningSum,
    log_sum_exp,
    log_sum_exp_at,
    nodes_needed,
)
from ovseg.models.interface import Array, array_namespace, to_numpy

PIECE = 5_000_000
"""Values of one piece of maps: 20 MB in float32, and a few times that while it is worked on."""


def strongest(maps: ScoreMaps, first: int = 0) -> tuple[Array, Array]:
    """The largest of the maps from `first` on at every pixel, [H, W], and its number, [H, W].

    The first of equals wins. Large images are gone through band by band, where their maps allow.
    """
    columns = slice(first, maps.count)
    bands = list(_banded(maps))
    if len(bands) < 2:
        return _strongest(maps, columns)
    return joined((_strongest(band, columns) for band in bands), maps.shape)


def _banded(maps: ScoreMaps) -> Iterator[ScoreMaps]:
    """The maps at band after band; none where they are only to be had as a whole."""
    whole = maps.views if isinstance(maps, MeanMaps) else [maps]
    if all(isinstance(each, PositionMaps | RegionMaps) for each in whole):
        able: Any = maps
        yield from (able.banded(band) for band in bands_of(maps.shape))


def _strongest(maps: ScoreMaps, columns: Columns) -> tuple[Array, Array]:
    if isinstance(maps, PositionMaps) and maps.grid is not None:
        rows = None if maps.band is None else maps.band.rows
        value, index = strongest_on_grid(taken(maps.grid, columns), maps.whole_shape, rows)
    elif isinstance(maps, RegionMaps) and maps.whole:
        value, index = _of_whole_regions(maps, columns)
    else:
        return _in_pieces(maps, columns)
    if isinstance(columns, slice):
        return value, index + columns.start if columns.start else index
    return value, as_index(columns, index)[index]


def _of_whole_regions(maps: RegionMaps, columns: Columns) -> tuple[Array, Array]:
    """A table with an entry per group says the best map of each of its pixels."""
    xp: Any = array_namespace(maps.scores)
    scores = taken(maps.scores[0], columns)  # [G, l]
    region = maps.regions[0]
    return xp.max(scores, axis=1)[region], xp.argmax(scores, axis=1)[region]


def _in_pieces(maps: ScoreMaps, columns: Columns) -> tuple[Array, Array]:
    numbers = np.arange(maps.count)[columns]
    least, most = (to_numpy(taken(bound, columns)) for bound in maps.bounds())
    numbers = numbers[can_win(least, most)]
    best: Any = None
    for chosen in _steps(maps, numbers):
        value, index = largest(maps.piece(chosen))
        found = value, as_index(chosen, index)[index]
        best = found if best is None else later_if_larger(best, found)
    return best


def _steps(maps: ScoreMaps, numbers: NDArray[np.int64]) -> Iterator[NDArray[np.int64]]:
    """At most as many maps at a time as a piece holds, all pieces of about one size."""
    most = max(PIECE // (maps.shape[0] * maps.shape[1]), 1)
    step = max(-(-len(numbers) // max(-(-len(numbers) // most), 1)), 1)
    for start in range(0, len(numbers), step):
        yield numbers[start : start + step]


@dataclass(frozen=True)
class PixelRule:
    """How cosines become labels, as the dense CLIP methods decide it.

    Probabilities are a softmax over all phrases at each pixel, a class has that of its best phrase,
    and pixels where no class is likely enough are background (`PixelLabels.at`).

    Attributes:
        scale: what cosines are multiplied by before the softmax; None where maps are probabilities
            already.
        area_threshold: share of all foreground pixels that a class must exceed, or its pixels go
            to the next best class that does (SCLIP); None for no such rule.
    """

    scale: float | None = 40.0
    area_threshold: float | None = None


@dataclass(frozen=True)
class PixelLabels:
    """What each pixel shows.

    Attributes:
        best: class, integer [H, W], whatever its probability.
        probability: of that class, float [H, W].
        dropped: classes that the area rule took out.
    """

    best: Array
    probability: Array
    dropped: tuple[int, ...] = ()

    def at(self, threshold: float) -> Array:
        """The best class, and 0, the background, where its probability is below the threshold."""
        xp: Any = array_namespace(self.best)
        return xp.where(self.probability < threshold, 0, self.best)


def label_pixels(
    maps: ScoreMaps,
    phrase_classes: Sequence[int],
    rule: PixelRule,
    thresholds: Sequence[float] = (),
) -> PixelLabels:
    """Find the best class of every pixel; the first class wins a tie.

    Args:
        maps: cosines of the phrases.
        phrase_classes: class of each phrase, never decreasing; 0 for words of the background.
        rule: the scale, and which classes are too small.
        thresholds: probabilities at which `PixelLabels.at` has to be exact; elsewhere they may be
            off by 1 in 10,000.
    """
    bands = list(_banded(maps)) if rule.area_threshold is None else []
    if len(bands) < 2:
        return _label_pixels(maps, phrase_classes, rule, thresholds)
    found = (_label_pixels(band, phrase_classes, rule, thresholds) for band in bands)
    probability, best = joined(((one.probability, one.best) for one in found), maps.shape)
    return PixelLabels(best, probability)


def _label_pixels(
    maps: ScoreMaps,
    phrase_classes: Sequence[int],
    rule: PixelRule,
    thresholds: Sequence[float],
) -> PixelLabels:
    classes = np.asarray(phrase_classes, dtype=np.int64)
    scale = 1.0 if rule.scale is None else rule.scale
    if rule.scale is None:
        best, winner = strongest(maps)
        normaliser: Array = None
    else:
        best, winner, normaliser = _softmax(maps, scale)
    labels = as_index(classes, winner)[winner]
    dropped = small_classes(labels, rule.area_threshold, phrase_classes)
    left = np.flatnonzero(~np.isin(classes, dropped))
    xp: Any = array_namespace(best)
    if not len(left):  # every class has probability 0: the first, which is the background
        return PixelLabels(xp.zeros_like(labels), xp.zeros_like(best), dropped)
    if np.isin(to_numpy(xp.unique_values(labels)), dropped).any():
        best, winner = _strongest(maps, left)
        best = best * scale
        labels = as_index(classes, winner)[winner]
    if rule.scale is None:
        return PixelLabels(labels, best, dropped)
    for threshold in thresholds:
        if threshold > 0:
            normaliser = _exact_near(threshold, maps, best, normaliser, scale)
    return PixelLabels(labels, xp.exp(best - normaliser), dropped)


def small_classes(
    labels: Array, area_threshold: float | None, classes: Sequence[int]
) -> tuple[int, ...]:
    """Foreground classes of at most this share of the foreground, those without pixels too.

    Args:
        labels: integers [H, W].
        area_threshold: the share, 0..1; None for no such rule.
        classes: all that could have won, some of them perhaps more than once; 0 is the background.
    """
    if area_threshold is None:
        return ()
    xp: Any = array_namespace(labels)
    found, counts = (to_numpy(a) for a in xp.unique_counts(labels))
    pixels = dict(zip(found.tolist(), counts.tolist(), strict=True))
    foreground = sorted(set(classes) - {0})
    bar = area_threshold * sum(pixels.get(each, 0) for each in foreground)
    return tuple(each for each in foreground if pixels.get(each, 0) <= bar)


def _softmax(maps: ScoreMaps, scale: float) -> tuple[Array, Array, Array]:
    """Scaled largest map, its number and log sum exp of all scaled ones, [H, W] each."""
    if isinstance(maps, PositionMaps) and (grid := maps.grid) is not None:
        shape, band = maps.whole_shape, maps.band
        if nodes := nodes_needed(grid, scale, shape):
            best, winner = strongest_on_grid(grid, shape, None if band is None else band.rows)
            rows = slice(None) if band is None else band.rows
            return best * scale, winner, log_sum_exp(grid, scale, shape, nodes, rows)
    found: Any = None
    sums = RunningSum()
    for chosen in _steps(maps, np.arange(maps.count)):
        start = int(chosen[0])
        piece = maps.piece(slice(start, start + len(chosen))) * scale
        sums.add(piece)
        value, index = largest(piece)
        later = value, index + start
        found = later if found is None else later_if_larger(found, later)
    return *found, sums.logarithm()


def _exact_near(
    threshold: float, maps: ScoreMaps, best: Array, normaliser: Array, scale: float
) -> Array:
    """The normaliser without a shortcut where it decides between a class and background."""
    if not isinstance(maps, PositionMaps) or (grid := maps.grid) is None:
        return normaliser
    xp: Any = array_namespace(best)
    first = 0 if maps.band is None else maps.band.first
    margin = best - normaliser - log(threshold)
    rows, columns = xp.nonzero(xp.abs(margin) <= 2 * ERROR)
    if rows.shape[0]:
        exact = log_sum_exp_at(grid, scale, maps.whole_shape, rows + first, columns)
        normaliser[rows, columns] = exact
    return normaliser
