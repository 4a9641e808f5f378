"""How a model looks at an image: at which size, through which windows, mirrored or not.

Zero-shot papers since GroupViT score an image in overlapping windows, average the scores of each
pixel, bring the averages to the original size and take the best class.

Letters: H W original image, H' W' resized image.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ovseg.data.images import Pixels, resize, resize_bicubic, resized_shape
from ovseg.errors import UsageError
from ovseg.inference.protocol import Protocol
from ovseg.models.interface import Preprocessing


@dataclass(frozen=True)
class Box:
    """A window's place, in pixels: rows top..top+height, columns left..left+width."""

    top: int
    left: int
    height: int
    width: int

    @property
    def slices(self) -> tuple[slice, slice]:
        """Rows and columns to index an image [..., H, W] with."""
        rows = slice(self.top, self.top + self.height)
        return rows, slice(self.left, self.left + self.width)


@dataclass(frozen=True)
class Padding:
    """What is put around every window before the model sees it, in pixels.

    Attributes:
        shape: rows and columns with the padding.
        above, before: pixels of it above the window and to its left.
    """

    shape: tuple[int, int]
    above: int = 0
    before: int = 0


@dataclass(frozen=True)
class View:
    """One look at an image: resized, normalised, perhaps mirrored, and its windows.

    Attributes:
        pixels: float32 [3, H', W'].
        boxes: the windows, row by row, all of one size.
        padding: of every window.
        flipped: whether left and right are swapped.
    """

    pixels: NDArray[np.float32]
    boxes: tuple[Box, ...]
    padding: Padding
    flipped: bool = False

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns (H', W')."""
        return self.pixels.shape[1], self.pixels.shape[2]

    def window(self, box: Box) -> NDArray[np.float32]:
        """The pixels in a box with the padding around them, float32 [3, rows, columns]."""
        inside = self.pixels[:, box.slices[0], box.slices[1]]
        if self.padding.shape == (box.height, box.width):
            return inside
        whole = np.zeros((3, *self.padding.shape), np.float32)
        rows = slice(self.padding.above, self.padding.above + box.height)
        columns = slice(self.padding.before, self.padding.before + box.width)
        whole[:, rows, columns] = inside
        return whole


def views_of(image: Pixels, protocol: Protocol, preprocessing: Preprocessing) -> tuple[View, ...]:
    """The looks at an image [H, W, 3] that a protocol takes: one, or more where it averages.

    Args:
        image: RGB, uint8.
        protocol: filled in for the model (`Protocol.for_model`).
        preprocessing: the model's.

    Raises:
        UsageError: the model cannot take windows of this side.
    """
    views = []
    for scale in protocol.scales:
        shape = view_shape(image.shape[0], image.shape[1], protocol, preprocessing, scale)
        resampled = resize_bicubic if protocol.resample == "bicubic" else resize
        pixels = normalised(resampled(image, shape), preprocessing)
        views.append(lay_windows(pixels, protocol))
        if protocol.flip:
            mirrored = np.ascontiguousarray(pixels[..., ::-1])
            views.append(lay_windows(mirrored, protocol, flipped=True))
    return tuple(views)


def normalised(image: Pixels, preprocessing: Preprocessing) -> NDArray[np.float32]:
    """Pixels [H, W, 3] as the model wants them, float32 [3, H, W]."""
    values = image.transpose(2, 0, 1).astype(np.float32, order="C")  # of the fewer bytes
    values -= np.array(preprocessing.mean, np.float32)[:, None, None]
    values /= np.array(preprocessing.std, np.float32)[:, None, None]
    return values


def lay_windows(pixels: NDArray[np.float32], protocol: Protocol, *, flipped: bool = False) -> View:
    """A view of normalised pixels [3, H', W'] through the protocol's windows."""
    height, width = pixels.shape[1:]
    boxes = boxes_of(height, width, protocol.window, protocol.stride)
    multiple = 1 if protocol.one_pass else protocol.pad_to  # a whole image has whole patches
    padding = pad_evenly(boxes[0].height, boxes[0].width, multiple)
    return View(pixels, tuple(boxes), padding, flipped)


def view_shape(
    height: int, width: int, protocol: Protocol, preprocessing: Preprocessing, scale: float = 1.0
) -> tuple[int, int]:
    """Rows and columns (H', W') that an image [H, W] is resized to.

    Windows need not end at a patch: only a side that no whole window fits goes to the nearest
    multiple of what the model needs.

    Raises:
        UsageError: the window itself is no such multiple.
    """
    multiple = preprocessing.multiple_of
    if not protocol.one_pass and protocol.window % multiple:
        near = max(round(protocol.window / multiple), 1) * multiple
        raise UsageError(
            f"window of {protocol.window} pixels: the side must be a multiple of {multiple}, "
            f"such as {near}"
        )
    short_side = round(protocol.short_side * scale)
    sides = (height, width, short_side, protocol.long_side)
    cut = protocol.resample == "bicubic"
    exact = resized_shape(*sides, cut=cut)
    rounded = resized_shape(*sides, multiple, cut=cut)
    rows, columns = (
        side if not protocol.one_pass and side >= protocol.window else other
        for side, other in zip(exact, rounded, strict=True)
    )
    return rows, columns


def boxes_of(height: int, width: int, side: int, stride: int) -> list[Box]:
    """Windows that cover an image of these pixels, row by row; a side of 0 is the whole image."""
    rows, columns = (min(side or length, length) for length in (height, width))
    return [
        Box(top, left, rows, columns)
        for top in _starts(height, rows, stride)
        for left in _starts(width, columns, stride)
    ]


def _starts(length: int, side: int, stride: int) -> list[int]:
    """First pixel of each window along one side; the last is shifted inwards."""
    count = -(-(length - side) // stride) + 1 if length > side else 1
    return [min(index * stride, length - side) for index in range(count)]


def pad_evenly(height: int, width: int, multiple: int) -> Padding:
    """Up to the next multiple; the odd pixel goes below and to the right."""
    rows, columns = (-(-side // multiple) * multiple for side in (height, width))
    return Padding((rows, columns), (rows - height) // 2, (columns - width) // 2)
