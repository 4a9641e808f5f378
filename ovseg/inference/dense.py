"""One image through a dense model: windows, cosines, maps, labels.

Letters: B image or window, Q phrase, K class, C embedding width, H W pixels, h w grid.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from array_api_compat import device

from ovseg.data.class_list import BACKGROUND, ClassList
from ovseg.data.images import Pixels
from ovseg.errors import UsageError
from ovseg.inference.pixel_rule import PixelRule, label_pixels
from ovseg.inference.query_maps import GridMaps, Padding, QueryMaps, RefinedQueries, WindowMaps
from ovseg.inference.refine import Pamr
from ovseg.inference.resize import resize_bilinear, source_positions
from ovseg.inference.segmentation import Segmentation
from ovseg.inference.windows import SlidingWindow, boxes_of
from ovseg.models.interface import Array, DenseModel, GroupedImage, array_namespace, to_numpy

REFINEMENTS = {"pamr": Pamr()}
"""Refinements by name, with the settings SCLIP and NACLIP share."""


def refinement_called(name: str) -> Pamr | None:
    """A refinement by name, None for the empty name.

    Raises:
        UsageError: there is none of that name.
    """
    if not name:
        return None
    if name not in REFINEMENTS:
        raise UsageError(f"unknown refinement '{name}': choose {', '.join(REFINEMENTS)}")
    return REFINEMENTS[name]


@dataclass(frozen=True)
class Look:
    """How a dense model looks at an image.

    Attributes:
        window: what it looks through; None for one pass.
        pad_to: windows are padded with zeros to a multiple of this, half of it on each side.
        batch: windows encoded at once.
    """

    window: SlidingWindow | None
    pad_to: int = 1
    batch: int = 8


def look_at(
    model: DenseModel,
    pixels: Array,
    embeddings: Array,
    look: Look,
    shapes: Sequence[tuple[int, int]],
) -> list[QueryMaps]:
    """Cosines of phrases at every pixel of the images.

    Args:
        model: a dense model.
        pixels: normalised images of one size, float [B, 3, H', W'].
        embeddings: class embeddings, normalised, float [Q, C].
        look: windows or one pass.
        shapes: rows and columns (H, W) of each original image.
    """
    if look.window is not None:
        return [
            _through_windows(model, pixels[i : i + 1], embeddings, look.window, look, shape)
            for i, shape in enumerate(shapes)
        ]
    grouped = model.encode_image(pixels)
    cosines = _cosines(grouped, embeddings)  # [B, h, w, Q]
    return [GridMaps(cosines[i], shape) for i, shape in enumerate(shapes)]


def _through_windows(
    model: DenseModel,
    pixels: Array,
    embeddings: Array,
    window: SlidingWindow,
    look: Look,
    shape: tuple[int, int],
) -> WindowMaps:
    """Windows of an image [1, 3, H', W'] in batches; all have one size."""
    xp: Any = array_namespace(pixels)
    image_shape = (int(pixels.shape[2]), int(pixels.shape[3]))
    boxes = boxes_of(*image_shape, window)
    padding = pad_evenly(boxes[0].height, boxes[0].width, look.pad_to)
    cosines = []
    for start in range(0, len(boxes), look.batch):
        crops = [
            _padded(pixels[:, :, box.slices[0], box.slices[1]], padding)
            for box in boxes[start : start + look.batch]
        ]
        cosines.append(_cosines(model.encode_image(xp.concat(crops)), embeddings))
    return WindowMaps(xp.concat(cosines), boxes, padding, image_shape, shape)


def pad_evenly(height: int, width: int, multiple: int) -> Padding:
    """Up to the next multiple; the odd pixel goes below and to the right."""
    rows, columns = (-(-side // multiple) * multiple for side in (height, width))
    return Padding((rows, columns), (rows - height) // 2, (columns - width) // 2)


def _padded(window: Array, padding: Padding) -> Array:
    """A window [1, 3, rows, columns] with zeros around it."""
    xp: Any = array_namespace(window)
    if tuple(window.shape[2:]) == padding.shape:
        return window
    whole = xp.zeros(
        (1, window.shape[1], *padding.shape), dtype=window.dtype, device=device(window)
    )
    rows = slice(padding.above, padding.above + window.shape[2])
    columns = slice(padding.before, padding.before + window.shape[3])
    whole[:, :, rows, columns] = window
    return whole


def _cosines(grouped: GroupedImage, embeddings: Array) -> Array:
    """Cosine of every position with every phrase, [B, h, w, Q]."""
    xp: Any = array_namespace(grouped.embedding)
    cosines = grouped.embedding @ xp.matrix_transpose(embeddings)
    return xp.reshape(cosines, (cosines.shape[0], *grouped.grid, -1))


def refined(maps: QueryMaps, image: Array, refinement: Pamr | None) -> QueryMaps:
    """Maps that follow the edges of the network's image [3, H', W'], or the maps themselves."""
    if refinement is None:
        return maps
    return RefinedQueries(maps, refinement.affinity(resize_bilinear(image, maps.shape)))


@dataclass(frozen=True)
class Queries:
    """What is asked of the pixels.

    Attributes:
        phrases: words of the background, then the phrases of the classes.
        classes: class of each phrase, never decreasing; 0 is background.
    """

    phrases: tuple[str, ...]
    classes: tuple[int, ...]

    @classmethod
    def of(
        cls, phrases: Sequence[str], labels: Sequence[int], background: Sequence[str] = ()
    ) -> "Queries":
        """Phrases of classes with their labels from 1, and words for whatever is none of them.

        A background word that is asked for as a class is left out.
        """
        asked = {phrase.casefold() for phrase in phrases}
        others = tuple(word for word in background if word.casefold() not in asked)
        return cls((*others, *phrases), (*(0 for _ in others), *labels))


def segment_densely(
    model: DenseModel,
    images: Sequence[Pixels],
    pixels: Array,
    classes: ClassList,
    embed: Callable[[Sequence[str]], Array],
    threshold: float | None,
    look: Look,
    refinement: Pamr | None = None,
) -> list[Segmentation]:
    """Segment images that reach the model in one size.

    Args:
        model: a dense model.
        images: as they came, uint8 [H, W, 3] each.
        pixels: the same resized and normalised, float [B, 3, H', W'].
        classes: what to look for.
        embed: class embeddings of phrases, float [Q, C].
        threshold: probability below which a pixel is background; None for no background at all.
        look: windows or one pass.
        refinement: lets the labels follow the edges of the image.
    """
    background = model.reading.background if threshold is not None else ()
    queries = Queries.of(classes.phrases, classes.phrase_labels, background)
    shapes = [(image.shape[0], image.shape[1]) for image in images]
    found = look_at(model, pixels, embed(queries.phrases), look, shapes)
    rule = PixelRule(model.reading.scale, threshold or 0.0)
    return [
        segmentation(image, classes, queries, refined(maps, guide, refinement), rule)
        for image, maps, guide in zip(images, found, pixels, strict=True)
    ]


def segmentation(
    image: Pixels, classes: ClassList, queries: Queries, maps: QueryMaps, rule: PixelRule
) -> Segmentation:
    """Label an image, uint8 [H, W, 3], and keep what the positions themselves say beside it."""
    found = label_pixels(maps, queries.classes, rule)
    at_positions = maps.positions()
    return Segmentation(
        image=image,
        classes=(BACKGROUND, *classes.names),
        labels=to_numpy(found.labels).astype(np.uint16),
        scores=to_numpy(found.probability).astype(np.float32),
        groups=_nearest_position(at_positions.shape[:2], maps.shape),
        group_scores=_class_scores(to_numpy(at_positions), queries.classes, rule.scale),
    )


def _class_scores(cosines: np.ndarray, classes: Sequence[int], scale: float) -> np.ndarray:
    """Probability of every class at every position, float32 [h*w, 1 + K]."""
    logits = scale * cosines.reshape(-1, cosines.shape[-1]).astype(np.float32)
    weights = np.exp(logits - logits.max(axis=1, keepdims=True))
    weights /= weights.sum(axis=1, keepdims=True)
    scores = np.zeros((len(weights), max(classes) + 1), np.float32)
    np.maximum.at(scores.T, np.asarray(classes), weights.T)
    return scores


def _nearest_position(grid: tuple[int, int], shape: tuple[int, int]) -> np.ndarray:
    """Index of the position nearest to each pixel, int32 [H, W]."""
    row, column = (
        np.floor(source_positions(positions, pixels) + 0.5).astype(np.int32)
        for pixels, positions in zip(shape, grid, strict=True)
    )
    return row[:, None] * grid[1] + column[None, :]
