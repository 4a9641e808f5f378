"""The one way from pixels to labels: views, encoder, scores, maps, labels, by a protocol.

`ovseg segment`, `ovseg eval`, the evaluation of a training run and the check of an
export all go it.

Letters: M window, G group, Q phrase, K class, N position, h w grid, H W original image.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from ovseg.data.class_list import BACKGROUND, ClassList
from ovseg.data.images import Pixels
from ovseg.inference.encode import EncodedView
from ovseg.inference.groups import group_map, nearest_position, regions
from ovseg.inference.labels import PixelLabels, PixelRule, label_pixels, strongest
from ovseg.inference.maps import (
    PositionMaps,
    RefinedMaps,
    RegionMaps,
    ScoreMaps,
    WindowMaps,
    mean_of,
)
from ovseg.inference.protocol import Protocol
from ovseg.inference.refine import Affinity, Pamr
from ovseg.inference.resize import resize_bilinear
from ovseg.inference.result import Segmentation
from ovseg.inference.text import EmbeddingCache, best_synonym
from ovseg.inference.views import Box, View, views_of
from ovseg.models.interface import Array, GroupedImage, SegmentationModel, array_namespace, to_numpy
from ovseg.models.templates import imagenet_templates

Views = Sequence[EncodedView]


class Labeller:
    """Labels images with some classes by one protocol.

    Labels are 0 for the background and i for the i-th class, whether or not there is a background.

    Args:
        model: whose scores are used.
        protocol: filled in for the model and the classes (`Protocol.for_model`).
        classes: what is asked for.
        cache: of the model's class embeddings; a new one by default.
    """

    def __init__(
        self,
        model: SegmentationModel,
        protocol: Protocol,
        classes: ClassList,
        cache: EmbeddingCache | None = None,
    ) -> None:
        self.model = model
        self.protocol = protocol
        self.classes = classes
        self.threshold = protocol.threshold if protocol.background else None
        phrases = protocol.background_words + classes.phrases
        embeddings = (cache or EmbeddingCache(model)).get(phrases, _templates(protocol))
        self._embeddings = model.from_numpy(np.asarray(embeddings, np.float32))  # [Q, C]
        self._phrase_classes = (*(0 for _ in protocol.background_words), *classes.phrase_labels)

    def views(self, image: Pixels) -> tuple[View, ...]:
        """The looks at an image, uint8 [H, W, 3], that the encoder is to take."""
        return views_of(image, self.protocol, self.model.preprocessing)

    def labels_at(
        self, views: Views, size: tuple[int, int], thresholds: Sequence[float | None]
    ) -> list[Array]:
        """Label maps at several background thresholds, from one pass of the encoder.

        Args:
            views: of one image, encoded.
            size: rows and columns (H, W) wanted.
            thresholds: None where there is to be no background.

        Returns:
            integers [H, W] each, on the model's device.
        """
        picture = _Picture(self, views, size)
        if self.protocol.rule == "probability":
            found = self._probable(picture, self._cosine_maps(picture), thresholds)
            return [found.at(threshold or 0.0) for threshold in thresholds]
        maps = self._score_maps(picture, self._scores_of(views, thresholds[0]))
        if len(thresholds) == 1 or not self.protocol.background:
            return [strongest(maps, self._first)[1]] * len(thresholds)
        best, winner = strongest(maps, first=1)  # the background's column alone varies
        xp: Any = array_namespace(best)
        labels = []
        for threshold in thresholds:
            again = self._score_maps(picture, self._scores_of(views, threshold))
            bar = again.piece(slice(0, 1))[0]
            labels.append(xp.where(bar >= best, 0, winner))  # of equals the first wins
        return labels

    def segment(self, image: Pixels, views: Views) -> Segmentation:
        """All that is known of an image, uint8 [H, W, 3], from its encoded views."""
        picture = _Picture(self, views, (image.shape[0], image.shape[1]))
        if self.protocol.rule == "probability":
            cosines = self._cosine_maps(picture)
            found = self._probable(picture, cosines, [self.threshold])
            labels, scores = found.at(self.threshold or 0.0), found.probability
            groups, group_scores = self._positions(cosines[0], picture)
        else:
            scores_of = self._scores_of(views, self.threshold)
            scores, labels = strongest(self._score_maps(picture, scores_of), self._first)
            groups = group_map(
                views[0], picture.regions[0], picture.size, direct=self.direct(views[0])
            )
            group_scores = scores_of[0]
        return Segmentation(
            image=image,
            classes=(BACKGROUND, *self.classes.names),
            labels=to_numpy(labels).astype(np.uint16),
            scores=to_numpy(scores).astype(np.float32),
            groups=groups.astype(np.int32),
            group_scores=to_numpy(group_scores)
            .astype(np.float32)
            .reshape(-1, 1 + len(self.classes.names)),
        )

    def regions(self, view: EncodedView) -> Array | None:
        """The group of each pixel of each window, int [M, height, width]; None for positions."""
        box = view.view.boxes[0]
        return regions(view.grouped, (box.height, box.width))

    @property
    def _first(self) -> int:
        """The first column that may win: without a background its column is left out."""
        return 0 if self.protocol.background else 1

    @property
    def _in_windows(self) -> bool:
        return self.protocol.refine != "none" and self.protocol.refine_windows

    def direct(self, view: EncodedView) -> bool:
        """Whether the view's only grid goes straight to the original size."""
        return self.protocol.direct and self.protocol.one_pass and len(view.view.boxes) == 1

    def _score_maps(self, picture: "_Picture", scores: Sequence[Array]) -> ScoreMaps:
        """Rules `model` and `constant`: mean over the views of scores per group, [M, G, L] each."""
        maps = [
            self._maps_of(*each, picture)
            for each in zip(scores, picture.regions, picture.views, strict=True)
        ]
        return picture.refined(maps)

    def _maps_of(
        self, scores: Array, found: Array | None, view: EncodedView, picture: "_Picture"
    ) -> ScoreMaps:
        size = picture.size
        if found is None and self._in_windows:
            return picture.refined_windows(scores, view)
        if found is None:
            return self._position_maps(scores, view, size)
        if self.direct(view):  # as if the view had the original size: nothing is resized twice
            return RegionMaps(scores, found, (Box(0, 0, *size),), size, size)
        return RegionMaps(scores, found, view.view.boxes, view.view.shape, size)

    def _scores_of(self, views: Views, threshold: float | None) -> list[Array]:
        return [self._scores(view.grouped, threshold) for view in views]

    def _scores(self, grouped: GroupedImage, threshold: float | None) -> Array:
        """Scores of background and classes, float [M, G, 1 + K]; best synonym per class."""
        if not self.protocol.clean:
            grouped = replace(grouped, heads=None, attention=None)
        if self.protocol.rule == "model":
            scores = self.model.score(grouped, self._embeddings, threshold)
            return best_synonym(scores, self.classes)
        xp: Any = array_namespace(grouped.embedding)
        logits = self.protocol.scale * self._cosines(grouped) + self.protocol.bias
        phrases = 1 / (1 + xp.exp(-logits))
        constant = -float("inf") if threshold is None else threshold
        background = xp.full_like(phrases[..., :1], constant)
        return best_synonym(xp.concat([background, phrases], axis=-1), self.classes)

    def _probable(
        self,
        picture: "_Picture",
        cosines: Sequence[PositionMaps],
        thresholds: Sequence[float | None],
    ) -> PixelLabels:
        """Rule `probability`: softmax over all phrases at each pixel, best phrase of each class."""
        rule = PixelRule(self.protocol.scale, self.protocol.area_threshold)
        bars = [threshold for threshold in thresholds if threshold]
        return label_pixels(picture.refined(cosines), self._phrase_classes, rule, bars)

    def _cosine_maps(self, picture: "_Picture") -> list[PositionMaps]:
        maps = []
        for view in picture.views:
            cosines = self._cosines(view.grouped)  # [M, G, Q]
            if view.grouped.assignment is not None:
                cosines = _at_positions(cosines, view.grouped.assignment)
            maps.append(self._position_maps(cosines, view, picture.size))
        return maps

    def _position_maps(
        self, scores: Array, view: EncodedView, size: tuple[int, int]
    ) -> PositionMaps:
        direct, align_corners = self.direct(view), self.protocol.align_corners
        return PositionMaps.of(scores, view, size, direct=direct, align_corners=align_corners)

    def _cosines(self, grouped: GroupedImage) -> Array:
        """Cosines of groups and phrases, float [M, G, Q]."""
        xp: Any = array_namespace(grouped.embedding)
        return _unit(grouped.embedding) @ xp.matrix_transpose(_unit(self._embeddings))

    def _positions(self, maps: PositionMaps, picture: "_Picture") -> tuple[np.ndarray, np.ndarray]:
        """Under `probability`: the position nearest to each pixel, and what is likely there.

        Positions are those of one grid over the image, as fine as the windows' own; before any
        refinement.

        Returns:
            int [H, W], and the probability of every class, float [h*w, 1 + K].
        """
        at = maps.grid if maps.grid is not None else maps.at_view(*_middles(picture.views[0]))
        cosines = to_numpy(at).astype(np.float32)  # [h, w, Q]
        logits = self.protocol.scale * cosines.reshape(-1, cosines.shape[-1])
        weights = np.exp(logits - logits.max(axis=1, keepdims=True))
        weights /= weights.sum(axis=1, keepdims=True)
        likely = np.zeros((len(weights), 1 + len(self.classes.names)), np.float32)
        np.maximum.at(likely.T, np.asarray(self._phrase_classes), weights.T)
        return nearest_position((cosines.shape[0], cosines.shape[1]), picture.size), likely


@dataclass(frozen=True)
class _Picture:
    """An encoded image, and what is worked out of it once however often it is labelled.

    Attributes:
        labeller: whose protocol holds.
        views: of the image, encoded.
        size: rows and columns (H, W) wanted.
    """

    labeller: Labeller
    views: Views
    size: tuple[int, int]

    @cached_property
    def regions(self) -> list[Array | None]:
        """For each view the group of each pixel: of its windows, or of the image if `direct`."""
        return [
            regions(view.grouped, self.size)
            if self.labeller.direct(view)
            else self.labeller.regions(view)
            for view in self.views
        ]

    @property
    def _pamr(self) -> Pamr:
        protocol = self.labeller.protocol
        return Pamr(protocol.pamr_iterations, protocol.pamr_dilations)

    @cached_property
    def _affinity(self) -> Affinity:
        """PAMR's, guided by the normalised image at the size of the maps."""
        upright = next(each.view for each in self.views if not each.view.flipped)
        pixels = self.labeller.model.from_numpy(upright.pixels)
        return self._pamr.affinity(resize_bilinear(pixels, self.size))

    @cached_property
    def _window_affinities(self) -> dict[int, list[Affinity]]:
        """PAMR's for every window of every view, guided by its pixels, by the view's identity."""
        found = {}
        for each in self.views:
            pixels = self.labeller.model.from_numpy(each.view.pixels)
            crops = (pixels[:, box.slices[0], box.slices[1]] for box in each.view.boxes)
            found[id(each)] = [self._pamr.affinity(crop) for crop in crops]
        return found

    def refined_windows(self, scores: Array, view: EncodedView) -> WindowMaps:
        """Scores of positions [M, h*w, L], refined in each window of a view."""
        xp: Any = array_namespace(scores)
        shape = (len(view.view.boxes), *view.grouped.grid, scores.shape[-1])
        affinities = self._window_affinities[id(view)]
        align_corners = self.labeller.protocol.align_corners
        grids = xp.reshape(scores, shape)
        return WindowMaps(grids, affinities, view.view, self.size, align_corners)

    def refined(self, maps: Sequence[ScoreMaps]) -> ScoreMaps:
        """The mean of the views' maps, along the edges of the image if that is asked for."""
        mean = mean_of(maps, [each.view.flipped for each in self.views])
        if self.labeller.protocol.refine == "none" or isinstance(maps[0], WindowMaps):
            return mean
        return RefinedMaps(mean, self._affinity)


def _templates(protocol: Protocol) -> tuple[str, ...]:
    return imagenet_templates() if isinstance(protocol.templates, str) else protocol.templates


def _middles(view: EncodedView) -> tuple[np.ndarray, np.ndarray]:
    """Rows and columns of the view in the middle of each position of a grid over all of it."""
    middles = []
    for axis, length in enumerate(view.view.shape):
        step = view.view.padding.shape[axis] / view.grouped.grid[axis]  # pixels a position
        number = max(int(length / step), 1)
        middles.append(((np.arange(number) + 0.5) * (length / number)).astype(np.int64))
    return middles[0], middles[1]


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
