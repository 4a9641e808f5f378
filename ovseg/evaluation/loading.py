"""Images and labels from disk, decoded and resized in worker threads while the model computes.

Letters: H W original image, H' W' resized image.
"""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ovseg.data.images import Pixels, read_image, resize, resized_shape
from ovseg.data.workers import map_chunks
from ovseg.distributed import cpu_count
from ovseg.errors import DataError
from ovseg.evaluation.protocol import Protocol
from ovseg.evaluation.sets.base import EvaluationSample, EvaluationSet, Labels
from ovseg.inference.score_maps import Box
from ovseg.inference.windows import SlidingWindow, boxes_of
from ovseg.models.interface import Preprocessing

CHUNK = 16
"""Images per chunk, the unit of work. What shares a batch depends on it alone, and not on how many
processes there are or where a run was interrupted: so results are the same to the last bit."""

ONE_PASS = 1 << 30
"""Side of a window that no image fills."""

_AHEAD = 2  # chunks decoded before they are needed


@dataclass(frozen=True)
class View:
    """One look at an image: resized, normalised, perhaps mirrored, and its windows.

    Attributes:
        pixels: float32 [3, H', W'].
        boxes: the windows.
        flipped: whether left and right are swapped.
    """

    pixels: NDArray[np.float32]
    boxes: tuple[Box, ...]
    flipped: bool


@dataclass(frozen=True)
class LoadedSample:
    """A sample in memory: the image, uint8 [H, W, 3], its true labels, and its views."""

    sample: EvaluationSample
    image: Pixels
    labels: Labels
    views: tuple[View, ...]


def load_chunks(
    evaluated: EvaluationSet,
    chunks: Sequence[Sequence[EvaluationSample]],
    protocol: Protocol,
    preprocessing: Preprocessing,
) -> Iterator[list[LoadedSample]]:
    """Load chunk after chunk, some ahead of the consumer.

    Raises:
        DataError: an image or label file is damaged, or their sizes differ.
    """

    def load(sample: EvaluationSample) -> LoadedSample:
        return load_sample(evaluated, sample, protocol, preprocessing)

    with ThreadPoolExecutor(max_workers=min(8, cpu_count() + 1)) as pool:
        yield from map_chunks(pool, load, chunks, _AHEAD)


def load_sample(
    evaluated: EvaluationSet,
    sample: EvaluationSample,
    protocol: Protocol,
    preprocessing: Preprocessing,
) -> LoadedSample:
    """Read one sample; DataError if a file is damaged or image and labels differ in size."""
    image = read_image(sample.image)
    labels = evaluated.read_labels(sample)
    if labels.shape != image.shape[:2]:
        raise DataError(
            f"{sample.image}: {image.shape[1]}×{image.shape[0]} pixels, but its labels are "
            f"{labels.shape[1]}×{labels.shape[0]}"
        )
    return LoadedSample(sample, image, labels, views_of(image, protocol, preprocessing))


def views_of(image: Pixels, protocol: Protocol, preprocessing: Preprocessing) -> tuple[View, ...]:
    """The looks at an image [H, W, 3] that a protocol takes: one, or more where it averages."""
    views = []
    for scale in protocol.scales:
        pixels, boxes = _resized(image, scale, protocol, preprocessing)
        views.append(View(pixels, boxes, flipped=False))
        if protocol.flip:
            views.append(View(np.ascontiguousarray(pixels[..., ::-1]), boxes, flipped=True))
    return tuple(views)


def _resized(
    image: Pixels, scale: float, protocol: Protocol, preprocessing: Preprocessing
) -> tuple[NDArray[np.float32], tuple[Box, ...]]:
    """The normalised image at one scale, float32 [3, H', W'], and its windows."""
    height, width, window = _view_shape(image.shape[:2], scale, protocol, preprocessing)
    resized = resize(image, (height, width)).astype(np.float32)
    resized -= np.array(preprocessing.mean, np.float32)
    resized /= np.array(preprocessing.std, np.float32)
    boxes = boxes_of(height, width, window)
    return np.ascontiguousarray(resized.transpose(2, 0, 1)), tuple(boxes)


def _view_shape(
    shape: tuple[int, ...], scale: float, protocol: Protocol, preprocessing: Preprocessing
) -> tuple[int, int, SlidingWindow]:
    """Rows and columns of a view, and its windows.

    A side that no whole window fits goes to the nearest multiple of what the model needs.
    """
    short_side = round((protocol.short_side or preprocessing.short_side) * scale)
    long_side = protocol.long_side if protocol.short_side else preprocessing.long_side
    if protocol.window:
        window = SlidingWindow(protocol.window, protocol.stride)
    elif preprocessing.window:
        window = SlidingWindow(preprocessing.window, preprocessing.stride)
    else:
        window = SlidingWindow(ONE_PASS, ONE_PASS)
    exact = resized_shape(shape[0], shape[1], short_side, long_side)
    multiple = preprocessing.multiple_of
    rounded = resized_shape(shape[0], shape[1], short_side, long_side, multiple)
    height, width = (
        side if side >= window.side else other for side, other in zip(exact, rounded, strict=True)
    )
    return height, width, window
