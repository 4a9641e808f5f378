"""The one way from pixels to labels: views, encoder, scores, maps, labels, by a protocol.

`ovseg segment`, `ovseg eval`, the evaluation of a training run and the check of an
export all go it.

Letters: M window, G group, Q phrase, K class, N position, h w grid, H W original image.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any

import numpy as np

from ovseg.data.class_list import BACKGROUND, ClassList
from ovseg.data.images import Pixels
from ovseg.inference.bands import bands_of
from ovseg.inference.derived_maps import mean_of
from ovseg.inference.encode import EncodedView
from ovseg.inference.groups import group_map, nearest_position, regions
from ovseg.inference.labels import PixelLabels, PixelRule, label_pixels, strongest
from ovseg.inference.maps import PositionMaps, RegionMaps, ScoreMaps, WindowMaps
from ovseg.inference.protocol import Protocol
from ovseg.inference.refine.affinity import unit_rows
from ovseg.inference.refinement import Phrases, RefinedView, Refinement, at_positions
from ovseg.inference.result import Segmentation
from ovseg.inference.text import EmbeddingCache, best_synonym
from ovseg.inference.views import Box, View, views_of
from ovseg.models.enlarging import comparable
from ovseg.models.interface import Array, GroupedImage, SegmentationModel, array_namespace, to_numpy
from ovseg.models.templates import imagenet_templates

Views = Sequence[EncodedView]
Grid = tuple[int, int]
Steady = Callable[[int, Array, Grid], Array]
"""From the number of a view, the scores at its positions, [M, h*w, L], and their grid (h, w) to the
share of each label there."""


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
        self.refinement = Refinement(model, protocol)

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
        picture = EncodedPicture(self, views, size)
        if self.protocol.rule == "probability":
            found = self._probable(picture, self._cosines_of(picture.views), thresholds)
            return [found.at(threshold or 0.0) for threshold in thresholds]
        maps = picture.maps(self._scores_of(picture.views, thresholds[0]))
        if len(thresholds) == 1 or not self.protocol.background:
            return [strongest(maps, self._first)[1]] * len(thresholds)
        best, winner = strongest(maps, first=1)  # the background's column alone varies
        xp: Any = array_namespace(best)
        labels = []
        for threshold in thresholds:
            again = [scores[..., :1] for scores in self._scores_of(picture.views, threshold)]
            bar = picture.maps(again).piece(slice(0, 1))[0]
            labels.append(xp.where(bar >= best, 0, winner))  # of equals the first wins
        return labels

    def patch_scores(self, views: Views, size: tuple[int, int]) -> list[tuple[Array, Grid]]:
        """Of each view the scores at its positions, [M, h*w, L], after the steps on patches.

        Columns are those that maps have: of phrases under the rule `probability`, else of labels.
        """
        found: dict[int, tuple[Array, Grid]] = {}

        def record(view: int, scores: Array, grid: Grid) -> Array:
            found[view] = scores, grid
            return scores

        picture = EncodedPicture(self, views, size, record)
        if self.protocol.rule == "probability":
            picture.maps(self._cosines_of(picture.views), self._phrase_classes)
        else:
            picture.maps(self._scores_of(picture.views, self.threshold))
        return [found[number] for number in range(len(views))]

    def segment(self, image: Pixels, views: Views, steady: Steady | None = None) -> Segmentation:
        """All that is known of an image, uint8 [H, W, 3], from its encoded views.

        Args:
            image: as it was looked at.
            views: encoded.
            steady: a last step on the scores of positions, for frames of a video.
        """
        picture = EncodedPicture(self, views, (image.shape[0], image.shape[1]), steady)
        if self.protocol.rule == "probability":
            cosines = self._cosines_of(picture.views)
            found = self._probable(picture, cosines, [self.threshold])
            labels, scores = found.at(self.threshold or 0.0), found.probability
            plain = cosines[0] if picture.as_encoded else self._cosines(views[0].grouped)
            groups, group_scores = self._positions(plain, picture)
        else:
            scores_of = self._scores_of(picture.views, self.threshold)
            scores, labels = strongest(picture.maps(scores_of), self._first)
            groups = partial(
                group_map,
                views[0],
                picture.regions[0],
                picture.size,
                direct=self.direct(views[0]),
            )
            group_scores = (
                scores_of[0]
                if picture.as_encoded
                else self._scores(views[0].grouped, self.threshold)
            )
        return Segmentation(
            image=image,
            classes=(BACKGROUND, *self.classes.names),
            labels=to_numpy(labels).astype(np.uint16, copy=False),
            scores=to_numpy(scores).astype(np.float32, copy=False),
            group_map=_made_now(groups) if len(bands_of(picture.size)) < 2 else groups,
            group_scores=to_numpy(group_scores)
            .astype(np.float32)
            .reshape(-1, 1 + len(self.classes.names)),
            threshold=self.threshold,
        )

    def regions(self, view: EncodedView) -> Array | None:
        """The group of each pixel of each window, int [M, height, width]; None for positions."""
        box = view.view.boxes[0]
        return regions(view.grouped, (box.height, box.width))

    @property
    def _first(self) -> int:
        """The first column that may win: without a background its column is left out."""
        return 0 if self.protocol.background else 1

    def direct(self, view: EncodedView) -> bool:
        """Whether the view's only grid goes straight to the original size."""
        return self.protocol.direct and self.protocol.one_pass and len(view.view.boxes) == 1

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
        words = len(self.protocol.background_words)
        background = xp.full_like(phrases[..., :1], constant)
        if words:
            likely = xp.max(phrases[..., :words], axis=-1, keepdims=True)
            background = xp.maximum(background, likely)
        return best_synonym(xp.concat([background, phrases[..., words:]], axis=-1), self.classes)

    def _probable(
        self,
        picture: "EncodedPicture",
        cosines: Sequence[Array],
        thresholds: Sequence[float | None],
    ) -> PixelLabels:
        """Rule `probability`: softmax over all phrases at each pixel, best phrase of each class."""
        scale = None if picture.has_probabilities else self.protocol.scale
        rule = PixelRule(scale, self.protocol.area_threshold)
        bars = [threshold for threshold in thresholds if threshold]
        maps = picture.maps(cosines, self._phrase_classes)
        merged = self.refinement.merges
        classes = sorted(set(self._phrase_classes)) if merged else self._phrase_classes
        return label_pixels(maps, classes, rule, bars)

    def _cosines_of(self, views: Views) -> list[Array]:
        return [self._cosines(view.grouped) for view in views]

    def _cosines(self, grouped: GroupedImage) -> Array:
        """Cosines of groups and phrases, float [M, G, Q]."""
        xp: Any = array_namespace(grouped.embedding)
        return unit_rows(comparable(grouped)) @ xp.matrix_transpose(unit_rows(self._embeddings))

    def _positions(
        self, cosines: Array, picture: "EncodedPicture"
    ) -> tuple[Callable[[], np.ndarray], np.ndarray]:
        """Under `probability`: the position nearest to each pixel, and what is likely there.

        Positions are those of one grid over the image, as fine as the windows' own; before any
        refinement.

        Returns:
            what makes int [H, W], and the probability of every class, float [h*w, 1 + K].
        """
        view = picture.sources[0]
        positions = at_positions(cosines, view.grouped)
        maps = PositionMaps.of(
            positions, view, picture.size,
            direct=self.direct(view), align_corners=self.protocol.align_corners,
        )  # fmt: skip
        at = maps.grid if maps.grid is not None else maps.at_view(*_middles(view))
        cosines = to_numpy(at).astype(np.float32)  # [h, w, Q]
        logits = self.protocol.scale * cosines.reshape(-1, cosines.shape[-1])
        weights = np.exp(logits - logits.max(axis=1, keepdims=True))
        weights /= weights.sum(axis=1, keepdims=True)
        likely = np.zeros((len(weights), 1 + len(self.classes.names)), np.float32)
        np.maximum.at(likely.T, np.asarray(self._phrase_classes), weights.T)
        grid = (cosines.shape[0], cosines.shape[1])
        return partial(nearest_position, grid, picture.size), likely


@dataclass(frozen=True)
class EncodedPicture:
    """An encoded image, and what is worked out of it once however often it is labelled.

    Attributes:
        labeller: whose protocol holds.
        sources: views of the image, encoded.
        size: rows and columns (H, W) wanted.
        steady: a last step on the scores of positions; None for none.
    """

    labeller: Labeller
    sources: Views
    size: tuple[int, int]
    steady: Steady | None = None

    @cached_property
    def refined(self) -> list[RefinedView]:
        return [
            RefinedView(
                self.labeller.refinement,
                source,
                None if self.steady is None else partial(self.steady, number),
            )
            for number, source in enumerate(self.sources)
        ]

    @cached_property
    def views(self) -> list[EncodedView]:
        """The views on the grid that is scored."""
        return [each.encoded for each in self.refined]

    @property
    def as_encoded(self) -> bool:
        """Whether that is the grid of the model."""
        return self.views[0] is self.sources[0]

    @property
    def has_probabilities(self) -> bool:
        """Whether maps of phrases are probabilities, from a softmax in each window."""
        return self.steady is not None or any(
            refined.averages_probabilities(direct=self.labeller.direct(view))
            for refined, view in zip(self.refined, self.views, strict=True)
        )

    @cached_property
    def regions(self) -> list[Array | None]:
        """For each view the group of each pixel: of its windows, or of the image if `direct`."""
        return [
            regions(view.grouped, self.size)
            if self.labeller.direct(view)
            else self.labeller.regions(view)
            for view in self.sources
        ]

    def maps(self, scores: Sequence[Array], phrases: Phrases = None) -> ScoreMaps:
        """Mean over the views of scores per group, [M, G, L] each, refined.

        With `phrases`, their classes, the scores are of phrases, and those of groups count at
        positions, not in regions with hard edges.
        """
        every = [self._maps_of(number, each, phrases) for number, each in enumerate(scores)]
        mean = mean_of(every, [each.view.flipped for each in self.sources])
        if isinstance(every[0], WindowMaps):
            return mean
        upright = next(each.view for each in self.sources if not each.view.flipped)
        return self.labeller.refinement.of_pixels(mean, upright)

    def _maps_of(self, number: int, scores: Array, phrases: Phrases) -> ScoreMaps:
        refined, view = self.refined[number], self.views[number]
        direct = self.labeller.direct(view)
        found = None if phrases or refined.changes_patches else self.regions[number]
        if found is None:
            return refined.maps(scores, self.size, direct=direct, classes=phrases)
        if direct:  # as if the view had the original size: nothing is resized twice
            return RegionMaps(scores, found, (Box(0, 0, *self.size),), self.size, self.size)
        return RegionMaps(scores, found, view.view.boxes, view.view.shape, self.size)


def _made_now(make: Callable[[], np.ndarray]) -> Callable[[], np.ndarray]:
    """The same, made: what it is made of need not be kept."""
    return partial(np.asarray, make())


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
