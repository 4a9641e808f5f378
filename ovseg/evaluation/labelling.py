"""From encoded views to label maps, by a protocol's rule.

Letters: M window, G group, Q phrase, K foreground class, N position, h w grid, H W original image.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from array_api_compat import array_namespace, device

from ovseg.evaluation.encoding import EncodedView
from ovseg.evaluation.maps import (
    ChosenMaps,
    GridMaps,
    RegionMaps,
    averaged,
    region_map,
    resized,
    strongest,
)
from ovseg.evaluation.overlap import label_type
from ovseg.evaluation.protocol import Protocol
from ovseg.evaluation.sets.base import EvaluationSet, Labels
from ovseg.inference.embeddings import EmbeddingCache
from ovseg.inference.pixel_rule import PixelRule, label_pixels
from ovseg.inference.query_maps import ImageMaps, RefinedMaps
from ovseg.inference.refine import Pamr
from ovseg.inference.score_maps import Box
from ovseg.inference.synonyms import best_synonym
from ovseg.models.interface import Array, GroupedImage, SegmentationModel, to_numpy
from ovseg.models.templates import imagenet_templates

Views = Sequence[EncodedView]


class Labeller:
    """Labels the images of one set by one protocol.

    Args:
        model: whose scores are used.
        protocol: as it applies to the set.
        evaluated: the set.
    """

    def __init__(
        self, model: SegmentationModel, protocol: Protocol, evaluated: EvaluationSet
    ) -> None:
        self._model = model
        self._protocol = protocol
        self._background = evaluated.background
        self._count = len(evaluated.classes)
        self._classes = protocol.class_list
        self.threshold = background_threshold(model, protocol, evaluated)
        phrases = protocol.background_words + self._classes.phrases
        cached = EmbeddingCache(model).get(phrases, _templates(model, protocol))
        self._embeddings = model.from_numpy(np.asarray(cached, np.float32))  # [Q, C]

    def labels(self, views: Views, size: tuple[int, int]) -> Labels:
        """Label map of an image of `size` (H, W): 0..K-1, or 0 for background and 1..K."""
        kind = label_type(self._count)
        return to_numpy(self.labels_at(views, size, [self.threshold])[0]).astype(kind, copy=False)

    def labels_at(
        self, views: Views, size: tuple[int, int], thresholds: Sequence[float | None]
    ) -> list[Array]:
        """Label maps at several background thresholds, from one pass of the encoder.

        They are integers [H, W] on the model's device.
        """
        if self._protocol.rule == "probability":
            return self._by_probability(views, size, thresholds)
        return self._by_score(views, size, thresholds)

    def _by_score(
        self, views: Views, size: tuple[int, int], thresholds: Sequence[float | None]
    ) -> list[Array]:
        """Rules `model` and `constant`: the largest mean score, column 0 being the background.

        Only the background's column depends on the threshold, so the others are compared once.
        """
        maps = self._averaged(views, size, thresholds[0])
        winner, best = self._strongest_class(maps)
        xp: Any = array_namespace(winner)
        if not self._background:
            labels = self._narrow(winner - 1)
            return [labels for _ in thresholds]
        found = []
        for threshold in thresholds:
            again = threshold != thresholds[0]
            at_threshold = self._averaged(views, size, threshold) if again else maps
            background = at_threshold.piece(0, 1)[0] >= best  # of equals the first wins
            found.append(self._narrow(xp.where(background, 0, winner)))
        return found

    def _narrow(self, labels: Array) -> Array:
        """Labels in 8 bits, or where those are too few in 32: torch can do little with 16."""
        xp: Any = array_namespace(labels)
        return xp.astype(labels, xp.uint8 if label_type(self._count) is np.uint8 else xp.int32)

    def _averaged(self, views: Views, size: tuple[int, int], threshold: float | None) -> ImageMaps:
        maps = [self._score_maps(view, threshold, size) for view in views]
        return self._refined(averaged(maps, [view.flipped for view in views]), views, size)

    def _strongest_class(self, maps: ImageMaps) -> tuple[Array, Array]:
        """Column and score of the best class at every pixel, background aside."""
        if not isinstance(maps, RegionMaps):
            return strongest(maps, first=1)
        columns = maps.contenders(first=1)
        index, best = strongest(ChosenMaps(maps, columns))
        xp: Any = array_namespace(best)
        return xp.asarray(columns, device=device(best))[index], best

    def _score_maps(
        self, view: EncodedView, threshold: float | None, size: tuple[int, int]
    ) -> ImageMaps:
        scores = best_synonym(self._scores(view.grouped, threshold), self._classes)
        if self._protocol.direct and not self._protocol.window:
            # As if the view had the original size: then nothing is resized a second time.
            view = replace(view, boxes=(Box(0, 0, *size),), shape=size)
        regions = regions_of(view)
        if regions is None:
            return _position_maps(view, scores, size)
        return RegionMaps(scores, regions, view.boxes, view.shape, size)

    def _scores(self, grouped: GroupedImage, threshold: float | None) -> Array:
        """Scores of background and phrases, float [M, G, 1 + Q]."""
        if self._protocol.rule == "model":
            return self._model.score(grouped, self._embeddings, threshold)
        xp: Any = array_namespace(grouped.embedding)
        logits = self._protocol.scale * self._cosines(grouped) + self._protocol.bias
        phrases = 1 / (1 + xp.exp(-logits))
        constant = -float("inf") if threshold is None else threshold
        background = xp.full_like(phrases[..., :1], constant)
        return xp.concat([background, phrases], axis=-1)

    def _by_probability(
        self, views: Views, size: tuple[int, int], thresholds: Sequence[float | None]
    ) -> list[Array]:
        """Rule `probability`: softmax over all phrases at each pixel, best phrase of each class."""
        maps = averaged(
            [self._cosine_maps(view, size) for view in views], [view.flipped for view in views]
        )
        first = 1 if self._background else 0
        of_query = [0] * len(self._protocol.background_words)
        of_query += [label - 1 + first for label in self._classes.phrase_labels]
        rule = PixelRule(self._protocol.scale, 0.0, self._protocol.area_threshold)
        found = label_pixels(self._refined(maps, views, size), of_query, rule)
        xp: Any = array_namespace(found.labels)
        return [
            self._narrow(xp.where(found.probability < (threshold or 0.0), 0, found.labels))
            for threshold in thresholds
        ]

    def _cosine_maps(self, view: EncodedView, size: tuple[int, int]) -> ImageMaps:
        cosines = self._cosines(view.grouped)  # [M, G, Q]
        if view.grouped.assignment is not None:
            cosines = _at_positions(cosines, view.grouped.assignment)
        return _position_maps(view, cosines, size)

    def _cosines(self, grouped: GroupedImage) -> Array:
        """Cosines of groups and phrases, float [M, G, Q]."""
        xp: Any = array_namespace(grouped.embedding)
        return _unit(grouped.embedding) @ xp.matrix_transpose(_unit(self._embeddings))

    def _refined(self, maps: ImageMaps, views: Views, size: tuple[int, int]) -> ImageMaps:
        """The maps after PAMR, guided by the normalised image at their size, if asked for."""
        if self._protocol.refine == "none":
            return maps
        upright = next(view for view in views if not view.flipped)
        guide = resized(self._model.from_numpy(upright.pixels), size)  # [3, H, W]
        pamr = Pamr(self._protocol.pamr_iterations, self._protocol.pamr_dilations)
        return RefinedMaps(maps, pamr.affinity(guide))


def _position_maps(view: EncodedView, scores: Array, size: tuple[int, int]) -> ImageMaps:
    """Maps of scores per position, float [M, N, L]."""
    xp: Any = array_namespace(scores)
    grids = xp.reshape(scores, (len(view.boxes), *view.grouped.grid, scores.shape[-1]))
    return GridMaps(grids, view.boxes, view.shape, size)


def regions_of(view: EncodedView) -> Array | None:
    """The group of each pixel of each window, int [M, height, width]; None for dense models."""
    return region_map(view.grouped, (view.boxes[0].height, view.boxes[0].width))


def _templates(model: SegmentationModel, protocol: Protocol) -> tuple[str, ...]:
    if isinstance(protocol.templates, str):
        return imagenet_templates()
    return protocol.templates or model.templates


def background_threshold(
    model: SegmentationModel, protocol: Protocol, evaluated: EvaluationSet
) -> float | None:
    """The threshold in use; None where the set has no background."""
    if not evaluated.background:
        return None
    return model.threshold if protocol.threshold is None else protocol.threshold


def _unit(vectors: Array) -> Array:
    """Vectors [..., C] at length 1; those of length 0 stay."""
    xp: Any = array_namespace(vectors)
    length = xp.sqrt(xp.sum(vectors * vectors, axis=-1, keepdims=True))
    return vectors / xp.where(length > 0, length, xp.ones_like(length))


def _at_positions(cosines: Array, assignment: Array) -> Array:
    """Cosines [M, G, Q] of the strongest group at each position, [M, N, Q]."""
    xp: Any = array_namespace(cosines)
    strongest_group = xp.argmax(assignment, axis=1)  # [M, N]
    rows = [
        xp.take(cosines[window], strongest_group[window], axis=0)
        for window in range(cosines.shape[0])
    ]
    return xp.stack(rows)
