"""The `groupvit` protocol: sliding windows whose scores are averaged.

Letters: B image, M window, G group, K column of scores, H W pixels of the resized image.

Zero-shot papers since GroupViT score an image in overlapping windows, average the scores of each
pixel, bring the averages to the original size and take the best class. All windows go through the
encoder together, once.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from ovseg.data.images import resized_shape
from ovseg.errors import UsageError
from ovseg.inference.score_maps import Box, ScoredWindows
from ovseg.models.interface import Array, GroupedImage, Preprocessing, array_namespace


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
                f"window {self.side}/{self.stride}: the stride must be between 1 and the window's "
                "side"
            )


WindowChoice = SlidingWindow | Literal["auto", "none"]
"""Windows, one pass over the whole image ("none"), or what the model is used with ("auto")."""


def parse_window(text: str) -> WindowChoice:
    """Read `auto`, `none`, `SIDE` or `SIDE/STRIDE`; the stride is half the side by default.

    Raises:
        UsageError: it is none of these.
    """
    if text == "auto":
        return "auto"
    if text == "none":
        return "none"
    side, _, stride = text.partition("/")
    if not side.isdecimal() or not (stride or "1").isdecimal():
        raise UsageError(
            f"window {text!r}: give its side and stride in pixels, as 448/224, or none, or auto"
        )
    return SlidingWindow(int(side), int(stride) if stride else max(int(side) // 2, 1))


def window_shape(
    height: int, width: int, window: SlidingWindow, rule: Preprocessing, short_side: int
) -> tuple[int, int]:
    """Rows and columns an image is resized to before windows are cut.

    The sides of `resized_shape`, not rounded. Only a side that a window does not fit goes to the
    nearest multiple of what the model needs.

    Raises:
        UsageError: the window itself is no such multiple.
    """
    multiple = rule.multiple_of
    if window.side % multiple:
        near = max(round(window.side / multiple), 1) * multiple
        raise UsageError(
            f"window of {window.side} pixels: the side must be a multiple of {multiple}, "
            f"such as {near}"
        )
    exact = resized_shape(height, width, short_side, rule.long_side)
    rounded = resized_shape(height, width, short_side, rule.long_side, multiple)
    rows, columns = (
        side if side >= window.side else other for side, other in zip(exact, rounded, strict=True)
    )
    return rows, columns


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


def score_windows(
    pixels: Array,
    window: SlidingWindow,
    encode: Callable[[Array], GroupedImage],
    score: Callable[[GroupedImage], Array],
    batch: int = 32,
) -> list[ScoredWindows]:
    """Encode and score the windows of images of one size; one result per image.

    Args:
        pixels: normalised images at `window_shape`, float [B, 3, H, W].
        window: how windows are laid.
        encode: groups a batch of windows, float [n, 3, side, side].
        score: scores groups of the n windows, float [n, G, K].
        batch: windows encoded at once.
    """
    images, _, height, width = pixels.shape
    boxes = boxes_of(height, width, window)
    places = [(image, box) for image in range(images) for box in boxes]
    pieces = [
        _score_piece(pixels, places[start : start + batch], encode, score)
        for start in range(0, len(places), batch)
    ]
    joined = _join(boxes * images, pieces)
    return [_of_image(joined, index, len(boxes)) for index in range(images)]


def _score_piece(
    pixels: Array,
    places: list[tuple[int, Box]],
    encode: Callable[[Array], GroupedImage],
    score: Callable[[GroupedImage], Array],
) -> ScoredWindows:
    xp: Any = array_namespace(pixels)
    crops = [pixels[image, :, box.slices[0], box.slices[1]] for image, box in places]
    grouped = encode(xp.stack(crops))
    boxes = [box for _, box in places]
    return ScoredWindows(boxes, score(grouped), grouped.grid, grouped.assignment)


def _join(boxes: list[Box], pieces: list[ScoredWindows]) -> ScoredWindows:
    if len(pieces) == 1:
        return pieces[0]
    xp: Any = array_namespace(pieces[0].scores)
    scores = xp.concat([piece.scores for piece in pieces])
    shares = [piece.assignment for piece in pieces if piece.assignment is not None]
    return ScoredWindows(boxes, scores, pieces[0].grid, xp.concat(shares) if shares else None)


def _of_image(joined: ScoredWindows, index: int, count: int) -> ScoredWindows:
    own = slice(index * count, (index + 1) * count)
    assignment = None if joined.assignment is None else joined.assignment[own]
    return ScoredWindows(joined.boxes[own], joined.scores[own], joined.grid, assignment)
