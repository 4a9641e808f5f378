"""Images and words in, label maps out: the model knows tensors, the segmenter knows pictures.

Letters: B image, H W pixels, Q phrase, K class.
"""

import logging
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np

from ovseg.data.class_list import BACKGROUND, ClassList
from ovseg.data.images import Pixels, resize, resized_shape
from ovseg.errors import UsageError
from ovseg.inference.dense import Look, refinement_called, segment_densely
from ovseg.inference.embeddings import EmbeddingCache
from ovseg.inference.inputs import Failure, ImageLike, chunked, load, to_pixels
from ovseg.inference.masks import LabelMap, label_map
from ovseg.inference.options import Options
from ovseg.inference.score_maps import windowed_label_map
from ovseg.inference.segmentation import Segmentation
from ovseg.inference.synonyms import best_synonym
from ovseg.inference.windows import SlidingWindow, score_windows, window_shape
from ovseg.models.interface import (
    Array,
    DenseModel,
    GroupedImage,
    SegmentationModel,
    is_dense,
    to_numpy,
)
from ovseg.models.registry import load_model

_log = logging.getLogger(__name__)

MANY = 3
"""Unknown phrases up to which each has a warning of its own."""


class Segmenter:
    """Segments images by any classes one can name."""

    def __init__(self, model: SegmentationModel) -> None:
        self.model = model
        self._embeddings = EmbeddingCache(model)

    @classmethod
    def from_pretrained(cls, name_or_path: str | Path, device: str = "auto") -> "Segmenter":
        """Load a model by name (`starter`) or file and make a segmenter of it.

        Raises:
            OvsegError: the model is unknown, unreadable, or needs a package or device that is not
                there.
        """
        return cls(load_model(name_or_path, device))

    def segment(
        self,
        image: ImageLike,
        classes: str | Sequence[str] | ClassList,
        options: Options | None = None,
        **changes: Any,
    ) -> Segmentation:
        """Segment one image.

        Args:
            image: a file, a Pillow image, or RGB pixels, uint8 [H, W, 3].
            classes: `cat,dog`, a list of names, or a `ClassList`; synonyms separated by `;`.
            options: how; single fields can be given by keyword instead, as `background=False`.

        Raises:
            OvsegError: the image cannot be read, or the classes make no sense.
        """
        settings = replace(options or Options(), **changes)
        vocabulary = as_class_list(classes)
        self.warn_of_unknown(vocabulary)
        return self._segment_batch([to_pixels(image)], vocabulary, settings)[0]

    def segment_files(
        self,
        paths: Iterable[Path],
        classes: str | Sequence[str] | ClassList,
        options: Options | None = None,
        batch_size: int = 8,
    ) -> Iterator[tuple[Path, Segmentation] | Failure]:
        """Segment many files, in order; one that fails is reported and the others go on.

        Neighbours that reach the model in the same shape share a batch.
        """
        settings = options or Options()
        vocabulary = as_class_list(classes)
        self.warn_of_unknown(vocabulary)
        for chunk in chunked(paths, batch_size):
            yield from self._segment_chunk(chunk, vocabulary, settings)

    def warn_of_unknown(self, classes: ClassList) -> None:
        """Log a warning for each phrase that the model cannot ground, or one for many."""
        unknown = self.model.unknown(classes.phrases)
        if len(unknown) > MANY:
            named = ", ".join(one.phrase for one in unknown[:MANY])
            _log.warning(
                "the model does not know %d of %d phrases: %s and %d more",
                len(unknown),
                len(classes.phrases),
                named,
                len(unknown) - MANY,
            )
            return
        for one in unknown:
            nearest = ", ".join(one.nearest)
            hint = f"; nearest that it knows: {nearest}" if nearest else ""
            _log.warning("the model does not know '%s'%s", one.phrase, hint)

    def _segment_chunk(
        self, paths: Sequence[Path], classes: ClassList, options: Options
    ) -> Iterator[tuple[Path, Segmentation] | Failure]:
        loaded = [load(path) for path in paths]
        for _shape, run in groupby(loaded, key=lambda item: self._shape_of(item, options)):
            items = list(run)
            images = [item[1] for item in items if not isinstance(item, Failure)]
            results = iter(self._segment_batch(images, classes, options)) if images else iter(())
            for item in items:
                yield item if isinstance(item, Failure) else (item[0], next(results))

    def _shape_of(
        self, item: tuple[Path, Pixels] | Failure, options: Options
    ) -> tuple[int, int] | None:
        return None if isinstance(item, Failure) else self._model_shape(item[1], options)

    def _segment_batch(
        self, images: Sequence[Pixels], classes: ClassList, options: Options
    ) -> list[Segmentation]:
        """Images that reach the model in one shape."""
        pixels = self._prepare(images, options)
        window = self._window(options)
        if is_dense(self.model):
            return self._segment_densely(self.model, images, pixels, window, classes, options)
        if options.refine:
            raise UsageError(f"{self.model.card.name} cannot be refined: only dense models can")
        if window is not None:
            return self._segment_windows(images, pixels, window, classes, options)
        grouped = self.model.encode_image(pixels)
        scores = self._scores(grouped, classes, options)  # [B, G, 1 + K]
        shares = grouped.assignment if grouped.assignment is not None else [None] * len(images)
        return [
            _segmentation(
                image, classes, label_map(each, grouped.grid, image.shape[:2], share), each
            )
            for image, each, share in zip(images, scores, shares, strict=True)
        ]

    def _segment_densely(
        self,
        model: DenseModel,
        images: Sequence[Pixels],
        pixels: Array,
        window: SlidingWindow | None,
        classes: ClassList,
        options: Options,
    ) -> list[Segmentation]:
        """Images of one shape, through a model whose phrases are compared at the pixels."""
        templates = options.templates or model.templates
        return segment_densely(
            model,
            images,
            pixels,
            classes,
            embed=lambda phrases: model.from_numpy(self._embeddings.get(phrases, templates)),
            threshold=self._threshold(options),
            look=Look(window, model.reading.pad_to),
            refinement=refinement_called(options.refine),
        )

    def _threshold(self, options: Options) -> float | None:
        """The background threshold; None where there is to be no background."""
        if not options.background:
            return None
        return self.model.threshold if options.threshold is None else options.threshold

    def _segment_windows(
        self,
        images: Sequence[Pixels],
        pixels: Array,
        window: SlidingWindow,
        classes: ClassList,
        options: Options,
    ) -> list[Segmentation]:
        scored = score_windows(
            pixels,
            window,
            self.model.encode_image,
            lambda grouped: self._scores(grouped, classes, options),
        )
        shape = (int(pixels.shape[-2]), int(pixels.shape[-1]))
        return [
            _segmentation(
                image, classes, windowed_label_map(each, shape, image.shape[:2]), each.scores
            )
            for image, each in zip(images, scored, strict=True)
        ]

    def _window(self, options: Options) -> SlidingWindow | None:
        """The windows to use, or None for one pass."""
        if isinstance(options.window, SlidingWindow):
            return options.window
        rule = self.model.preprocessing
        if options.window == "none" or not rule.window:
            return None
        return SlidingWindow(rule.window, rule.stride)

    def _model_shape(self, image: Pixels, options: Options) -> tuple[int, int]:
        rule = self.model.preprocessing
        short_side = options.short_side or rule.short_side
        height, width = image.shape[:2]
        window = self._window(options)
        if window is not None:
            return window_shape(height, width, window, rule, short_side)
        return resized_shape(height, width, short_side, rule.long_side, rule.multiple_of)

    def _prepare(self, images: Sequence[Pixels], options: Options) -> Array:
        """Resize, stack and normalise, float32 [B, 3, H, W]."""
        rule = self.model.preprocessing
        shape = self._model_shape(images[0], options)
        batch = np.stack([resize(image, shape) for image in images]).astype(np.float32)
        normalised = (batch - np.array(rule.mean, np.float32)) / np.array(rule.std, np.float32)
        return self.model.from_numpy(np.ascontiguousarray(normalised.transpose(0, 3, 1, 2)))

    def _scores(self, grouped: GroupedImage, classes: ClassList, options: Options) -> Array:
        """Scores of background and classes per group, [B, G, 1 + K]; best synonym per class."""
        templates = options.templates or self.model.templates
        embeddings = self._embeddings.get(classes.phrases, templates)  # [Q, C]
        scores = self.model.score(
            grouped, self.model.from_numpy(embeddings), self._threshold(options)
        )  # [B, G, 1 + Q]
        return best_synonym(scores, classes)


def as_class_list(classes: str | Sequence[str] | ClassList) -> ClassList:
    """A class list from any of the ways to give one."""
    if isinstance(classes, ClassList):
        return classes
    return ClassList.parse(classes) if isinstance(classes, str) else ClassList.of(classes)


def _segmentation(
    image: Pixels, classes: ClassList, found: LabelMap, group_scores: Array
) -> Segmentation:
    return Segmentation(
        image=image,
        classes=(BACKGROUND, *classes.names),
        labels=to_numpy(found.labels).astype(np.uint16),
        scores=to_numpy(found.scores).astype(np.float32),
        groups=to_numpy(found.groups).astype(np.int32),
        group_scores=to_numpy(group_scores).astype(np.float32).reshape(-1, 1 + len(classes.names)),
    )
