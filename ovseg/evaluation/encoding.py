"""Windows of many images through the encoder, each once, in batches of equal size.

Letters: M window of one view, B batch, G group, C embedding width, N position, H' W' view.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from array_api_compat import array_namespace

from ovseg.evaluation.loading import View
from ovseg.inference.score_maps import Box
from ovseg.models.interface import Array, GroupedImage, SegmentationModel


@dataclass(frozen=True)
class EncodedView:
    """A view after the encoder.

    Attributes:
        grouped: its windows as a batch, embedding [M, G, C].
        boxes: the M windows.
        shape: rows and columns (H', W') of the view.
        flipped: whether left and right are swapped.
        pixels: normalised, float32 [3, H', W'].
    """

    grouped: GroupedImage
    boxes: tuple[Box, ...]
    shape: tuple[int, int]
    flipped: bool
    pixels: np.ndarray


def encode_views(model: SegmentationModel, views: Sequence[View], batch: int) -> list[EncodedView]:
    """Encode all windows of all views, at most `batch` of one size at a time."""
    by_size: dict[tuple[int, int], list[tuple[int, Box]]] = defaultdict(list)
    for index, view in enumerate(views):
        for box in view.boxes:
            by_size[box.height, box.width].append((index, box))
    pieces: dict[int, list[GroupedImage]] = defaultdict(list)
    for windows in by_size.values():
        for start in range(0, len(windows), batch):
            together = windows[start : start + batch]
            grouped = _encode(model, views, together)
            for row, (index, _) in enumerate(together):
                pieces[index].append(_row(grouped, row))
    return [
        EncodedView(_join(pieces[index]), view.boxes, _shape(view), view.flipped, view.pixels)
        for index, view in enumerate(views)
    ]


def _encode(
    model: SegmentationModel, views: Sequence[View], windows: Sequence[tuple[int, Box]]
) -> GroupedImage:
    crops = [views[i].pixels[:, box.slices[0], box.slices[1]] for i, box in windows]
    return model.encode_image(model.from_numpy(np.stack(crops)))


def _shape(view: View) -> tuple[int, int]:
    return view.pixels.shape[1], view.pixels.shape[2]


def _row(grouped: GroupedImage, row: int) -> GroupedImage:
    """One image of a batch, as a batch of one."""

    def one(values: Array | None) -> Array | None:
        return None if values is None else values[row : row + 1]

    return GroupedImage(
        grouped.embedding[row : row + 1],
        grouped.grid,
        one(grouped.assignment),
        one(grouped.image_embedding),
    )


def _join(parts: Sequence[GroupedImage]) -> GroupedImage:
    """Batches of one, of the same size, as one batch."""
    if len(parts) == 1:
        return parts[0]
    xp = array_namespace(parts[0].embedding)

    def joined(values: list[Array | None]) -> Array | None:
        return None if values[0] is None else xp.concat(values, axis=0)

    return GroupedImage(
        xp.concat([part.embedding for part in parts], axis=0),
        parts[0].grid,
        joined([part.assignment for part in parts]),
        joined([part.image_embedding for part in parts]),
    )
