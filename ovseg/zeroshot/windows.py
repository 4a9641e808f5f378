"""The `groupvit` protocol: sliding windows whose scores are averaged.

Letters: Q phrase, C embedding width, H W pixels of the resized image.

Zero-shot papers since GroupViT score an image in overlapping windows, average the scores of each
pixel, bring the averages to the original size and take the best class.
"""

from dataclasses import dataclass

import numpy as np
from array_api_compat import array_namespace

from ovseg.errors import UsageError
from ovseg.model.interface import Array, SegmentationModel
from ovseg.zeroshot.score_maps import Box, ScoredWindows, best_column, region_map

@dataclass(frozen=True)
class SlidingWindow:
    """Square windows, in pixels of the resized image.

    Attributes:
        side: of a window; cut to the image where that is smaller.
        stride: from one window to the next; the last one is shifted inwards to fit.
    """

    side: int = 448
    stride: int = 224

    def __post_init__(self) -> None:
        if not 0 < self.stride <= self.side:
            raise UsageError(
                f"window of {self.side} pixels with stride {self.stride}: the stride must be "
                "between 1 and the window's side"
            )


def protocol_size(
    height: int, width: int, short_side: int, long_side: int, side: int, multiple_of: int
) -> tuple[int, int]:
    """Rows and columns an image is resized to before windows are cut.

    The shorter side becomes `short_side` unless the longer would exceed `long_side`; the aspect is
    kept to half a pixel. A side shorter than a window, which no whole window fits, is rounded to a
    multiple of the patch instead.
    """
    scale = min(short_side / min(height, width), long_side / max(height, width))
    rows, columns = (int(length * scale + 0.5) for length in (height, width))
    return _encodable(rows, side, multiple_of), _encodable(columns, side, multiple_of)


def _encodable(length: int, side: int, multiple_of: int) -> int:
    if length >= side:
        return length
    return max(multiple_of, round(length / multiple_of) * multiple_of)


def boxes_of(height: int, width: int, window: SlidingWindow) -> list[Box]:
    """Windows that cover an image of these pixels, row by row."""
    rows, columns = min(window.side, height), min(window.side, width)
    return [
        Box(top, left, rows, columns)
        for top in _starts(height, rows, window.stride)
        for left in _starts(width, columns, window.stride)
    ]


def _starts(length: int, side: int, stride: int) -> list[int]:
    """First pixel of each window along one side; the last is shifted inwards."""
    count = -(-(length - side) // stride) + 1
    return [min(index * stride, length - side) for index in range(count)]


def segment_windows(
    model: SegmentationModel,
    pixels: Array,
    class_embeddings: Array,
    threshold: float | None,
    size: tuple[int, int],
    window: SlidingWindow,
    batch: int = 16,
) -> np.ndarray:
    """Segment one image by the protocol.

    Args:
        model: any segmentation model.
        pixels: the normalised image at `protocol_size`, float [1, 3, H, W].
        class_embeddings: float [Q, C].
        threshold: background threshold, or None for no background.
        size: rows and columns of the original image, whose label map is wanted.
        window: how windows are laid; their sides must be multiples of what the model needs.
        batch: windows encoded at once.

    Returns:
        Column of the highest mean score per pixel, int64 of `size`: 0 is background, 1 + k class k.
    """
    boxes = boxes_of(pixels.shape[-2], pixels.shape[-1], window)
    parts = [
        _score(model, pixels, boxes[start : start + batch], class_embeddings, threshold)
        for start in range(0, len(boxes), batch)
    ]
    return best_column(parts, tuple(pixels.shape[-2:]), size)


def _score(
    model: SegmentationModel,
    pixels: Array,
    boxes: list[Box],
    class_embeddings: Array,
    threshold: float | None,
) -> ScoredWindows:
    """Encode windows of one size as one batch and score their groups."""
    xp = array_namespace(pixels)
    crops = xp.concat([pixels[:, :, box.slices[0], box.slices[1]] for box in boxes])
    grouped = model.encode_image(crops)
    return ScoredWindows(
        boxes=boxes,
        scores=model.score(grouped, class_embeddings, threshold),
        regions=region_map(grouped, (boxes[0].height, boxes[0].width)),
        grid=grouped.grid,
    )
