"""From cosines of queries to one label per pixel, as the dense CLIP methods decide it.

Letters: Q query (a phrase; a class may have several), q queries of one piece, K class with
background as class 0, H W pixels.

Probabilities are a softmax over all queries at each pixel, a class has that of its best query, and
pixels where no class is likely enough are background. Queries come in pieces: the best of them and
the sum under the softmax are kept, never all (`ImageMaps`, `grid_softmax`).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import log
from typing import Any

import numpy as np
from array_api_compat import device

from ovseg.inference.grid_softmax import (
    ERROR,
    RunningSum,
    as_index,
    best_query,
    log_sum_exp,
    log_sum_exp_at,
    nodes_needed,
)
from ovseg.inference.query_maps import GridMaps, ImageMaps
from ovseg.models.interface import Array, array_namespace

PIECE = 4_000_000
"""Values of one piece of maps: 16 MB in float32, and a few times that while it is worked on."""


@dataclass(frozen=True)
class PixelRule:
    """How cosines become labels.

    Attributes:
        scale: what cosines are multiplied by before the softmax.
        threshold: probability below which a pixel is background, 0 for no such rule.
        area_threshold: share of all foreground pixels that a class must exceed, or its pixels go
            to the next best class (SCLIP); None for no such rule.
    """

    scale: float = 40.0
    threshold: float = 0.0
    area_threshold: float | None = None


@dataclass(frozen=True)
class PixelLabels:
    """What each pixel shows.

    Attributes:
        labels: class, integer [H, W]; 0 is background.
        probability: of the best class there, before the threshold, float [H, W].
        normaliser: logarithm of the sum under the softmax over the queries, float [H, W].
        dropped: classes that the area rule took out.
    """

    labels: Array
    probability: Array
    normaliser: Array
    dropped: tuple[int, ...] = ()


def label_pixels(maps: ImageMaps, query_classes: Sequence[int], rule: PixelRule) -> PixelLabels:
    """Label every pixel; the first class wins a tie.

    Args:
        maps: cosines of the queries.
        query_classes: class of each query, never decreasing; 0 for words of the background.
        rule: scale and thresholds.
    """
    classes = np.asarray(query_classes, dtype=np.int64)
    best, winner, normaliser = _running_softmax(maps, rule.scale)
    labels = _classes_at(winner, classes)
    dropped = small_classes(labels, rule.area_threshold)
    if dropped:
        best, winner = _running_maximum(maps, rule.scale, ~np.isin(classes, dropped))
        labels = _classes_at(winner, classes)
    if isinstance(maps, GridMaps) and rule.threshold > 0:
        normaliser = _exact_near_threshold(maps, best, normaliser, rule)
    return apply_threshold(labels, best, normaliser, rule.threshold, dropped)


def apply_threshold(
    labels: Array,
    best: Array,
    normaliser: Array,
    threshold: float,
    dropped: tuple[int, ...] = (),
) -> PixelLabels:
    """Unlikely pixels become background; `best` is the scaled cosine of the winner, [H, W]."""
    xp: Any = array_namespace(best)
    probability = xp.exp(best - normaliser)
    labels = xp.where(probability < threshold, xp.zeros_like(labels), labels)
    return PixelLabels(labels, probability, normaliser, dropped)


def small_classes(labels: Array, area_threshold: float | None) -> tuple[int, ...]:
    """Foreground classes of at most this share of the foreground, classes without pixels too."""
    if area_threshold is None:
        return ()
    xp: Any = array_namespace(labels)
    found, counts = (np.asarray(a.tolist()) for a in xp.unique_counts(labels))
    foreground = found > 0
    bar = area_threshold * counts[foreground].sum()
    return tuple(int(c) for c in found[foreground & (counts <= bar)])


def class_probabilities(
    maps: ImageMaps, query_classes: Sequence[int], rule: PixelRule, renormalise: bool = False
) -> Array:
    """Probability of every class at every pixel, float [K, H, W]: as large as it sounds.

    The area rule is applied, the threshold is not. `renormalise` divides by the sum over the
    classes, as NACLIP does; labels do not change.
    """
    found = label_pixels(maps, query_classes, rule)
    xp: Any = array_namespace(found.probability)
    layers = []
    for label in range(max(query_classes) + 1):
        own = [q for q, c in enumerate(query_classes) if c == label]
        if not own or label in found.dropped:
            layers.append(xp.zeros_like(found.probability))
            continue
        best = xp.max(maps.piece(own[0], own[-1] + 1), axis=0)
        layers.append(xp.exp(best * rule.scale - found.normaliser))
    probabilities = xp.stack(layers)
    return probabilities / xp.sum(probabilities, axis=0) if renormalise else probabilities


def _running_softmax(maps: ImageMaps, scale: float) -> tuple[Array, Array, Array]:
    """Largest scaled cosine, its query, and log-sum-exp over the queries, each [H, W]."""
    if isinstance(maps, GridMaps) and (nodes := nodes_needed(maps.cosines, scale, maps.shape)):
        best, winner = best_query(maps.cosines, maps.shape)
        return best * scale, winner, log_sum_exp(maps.cosines, scale, maps.shape, nodes)
    best = winner = None
    sums = RunningSum()
    for start, piece in _pieces(maps, scale):
        xp: Any = array_namespace(piece)
        sums.add(piece)
        value, index = xp.max(piece, axis=0), xp.argmax(piece, axis=0) + start
        winner = index if best is None else xp.where(value > best, index, winner)
        best = value if best is None else xp.maximum(value, best)
    return best, winner, sums.logarithm()


def _running_maximum(maps: ImageMaps, scale: float, allowed: np.ndarray) -> tuple[Array, Array]:
    """Largest scaled cosine among the allowed queries, and its query, each [H, W]."""
    if isinstance(maps, GridMaps):
        chosen = as_index(np.flatnonzero(allowed), maps.cosines)
        best, winner = best_query(maps.cosines[..., chosen], maps.shape)
        return best * scale, chosen[winner]
    best = winner = None
    for start, piece in _pieces(maps, scale):
        xp: Any = array_namespace(piece)
        kept = np.flatnonzero(allowed[start : start + piece.shape[0]])
        if not kept.size:
            continue
        chosen = xp.asarray(kept, device=device(piece))
        piece = xp.take(piece, chosen, axis=0)
        value, index = xp.max(piece, axis=0), xp.argmax(piece, axis=0)
        index = chosen[index] + start
        if best is None:
            best, winner = value, index
        else:
            winner = xp.where(value > best, index, winner)
            best = xp.maximum(value, best)
    return best, winner


def _exact_near_threshold(maps: GridMaps, best: Array, normaliser: Array, rule: PixelRule) -> Array:
    """The normaliser without a shortcut where it decides between a class and background."""
    xp: Any = array_namespace(best)
    margin = best - normaliser - log(rule.threshold)
    rows, columns = xp.nonzero(xp.abs(margin) <= 2 * ERROR)
    if rows.shape[0]:
        exact = log_sum_exp_at(maps.cosines, rule.scale, maps.shape, rows, columns)
        normaliser[rows, columns] = exact
    return normaliser


def _pieces(maps: ImageMaps, scale: float) -> Iterator[tuple[int, Array]]:
    """Scaled maps of some queries at a time, with the number of the first."""
    step = max(PIECE // (maps.shape[0] * maps.shape[1]), 1)
    for start in range(0, maps.count, step):
        yield start, maps.piece(start, min(start + step, maps.count)) * scale


def _classes_at(winner: Array, classes: np.ndarray) -> Array:
    """The class of the query at each pixel, [H, W]."""
    xp: Any = array_namespace(winner)
    return xp.asarray(classes, device=device(winner))[winner]
