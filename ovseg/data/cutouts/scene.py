"""Composing a scene: cut-outs on a photograph, how each looks, which pixels each of them got.

Letters: H W scene rows and columns, h w a cut-out's. Cut-outs are RGBA uint8 [h, w, 4], their
colours not premultiplied.

Everything random comes from one generator per scene, so that a scene depends on the seed and its
number alone. Frames: pixels, (row, column), origin top left.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from ovseg.data.cutouts.library import CutOut, shrink

MIN_VISIBLE = 0.4  # share of an object that must be seen
MIN_PIXELS = 0.002  # and its share of the scene
_TRIES = 8
_SHAPES = ((4, 3), (4, 3), (3, 2), (1, 1), (3, 4))  # width to height
_GROUP_COUNTS = (1, 2, 3)
_GROUP_WEIGHTS = (0.35, 0.45, 0.2)
_MEMBERS = (1, 2, 3)
_MEMBER_WEIGHTS = (0.78, 0.15, 0.07)


@dataclass(frozen=True)
class Shadow:
    """A soft shadow.

    Attributes:
        strength: share of light taken away where it is darkest, 0..1.
        shift: offset (rows, columns) in shares of the object's height and width.
        softness: standard deviation of its edge, in shares of the object's height.
        flat: whether it lies on the ground below the object instead of on a wall behind it.
    """

    strength: float
    shift: tuple[float, float]
    softness: float
    flat: bool


@dataclass(frozen=True)
class Sprite:
    """A cut-out ready to be pasted.

    Attributes:
        cutout: what it is.
        rgba: its pixels after scaling, turning and colouring, uint8 [h, w, 4].
        shadow: how it darkens the ground.
    """

    cutout: CutOut
    rgba: NDArray[np.uint8]
    shadow: Shadow | None


@dataclass(frozen=True)
class Placed:
    """A sprite and the position (row, column) of its top left corner, perhaps outside."""

    sprite: Sprite
    row: int
    column: int

    @property
    def bottom(self) -> int:
        return self.row + self.sprite.rgba.shape[0]


@dataclass(frozen=True)
class Instance:
    """An object as it is seen.

    Attributes:
        cutout: what it is.
        visible: share of its pixels that are seen, 0..1.
        hidden_by: number of the instance that covers most of it, or None.
    """

    cutout: CutOut
    visible: float
    hidden_by: int | None


@dataclass(frozen=True)
class Scene:
    """A composed picture.

    Attributes:
        image: RGB uint8 [H, W, 3].
        labels: number of the instance each pixel shows, -1 for the photograph, int16 [H, W].
        instances: the objects, from back to front.
        redrawn: how often an object was placed anew because too little of it was seen.
        dropped: objects that found no place.
    """

    image: NDArray[np.uint8]
    labels: NDArray[np.int16]
    instances: tuple[Instance, ...]
    redrawn: int = 0
    dropped: int = 0


def scene_shape(rng: Generator, side: int) -> tuple[int, int]:
    """Height and width in pixels, the longer one `side`."""
    width, height = _SHAPES[rng.integers(len(_SHAPES))]
    longest = max(width, height)
    return round(side * height / longest), round(side * width / longest)


def choose_names(rng: Generator, names: Sequence[str]) -> list[tuple[str, int]]:
    """Different names with how many of each to show."""
    groups = min(len(names), int(rng.choice(_GROUP_COUNTS, p=_GROUP_WEIGHTS)))
    chosen = rng.choice(len(names), size=groups, replace=False)
    counts = rng.choice(_MEMBERS, size=groups, p=_MEMBER_WEIGHTS)
    return [(names[index], int(count)) for index, count in zip(chosen, counts, strict=True)]


def make_sprite(
    rng: Generator, cutout: CutOut, pixels: NDArray[np.uint8], shape: tuple[int, int], crowd: int
) -> Sprite:
    """Draw size, mirroring, turn, colour and blur of a cut-out, RGBA uint8 [h, w, 4].

    Args:
        crowd: how many objects share the scene; many are drawn smaller.
    """
    low, high = (0.3, 0.75) if crowd == 1 else (0.2, 0.6) if crowd < 4 else (0.16, 0.42)
    side = int(rng.uniform(low, high) * min(shape))
    rgba = shrink(pixels, side) if side < max(pixels.shape[:2]) else pixels
    if cutout.may_mirror and rng.random() < 0.5:
        rgba = np.ascontiguousarray(rgba[:, ::-1])
    if rng.random() < 0.5:
        rgba = turn(rgba, float(rng.normal(0, 9)))
    rgba = recolour(rng, rgba)
    if rng.random() < 0.25:
        rgba = blur(rgba, float(rng.uniform(0.4, 1.3)))
    return Sprite(cutout, rgba, draw_shadow(rng))


def place(
    rng: Generator, sprites: Sequence[Sprite], shape: tuple[int, int]
) -> tuple[Scene, list[Placed]]:
    """Find places where enough of every sprite is seen.

    The lower an object stands, the nearer it is. Who is seen too little is placed anew, a few
    times, and then left out. The scene returned has no pixels yet.
    """
    placed: list[Placed] = []
    redrawn = dropped = 0
    for sprite in sprites:
        attempt = _try(rng, sprite, placed, shape)
        for _ in range(_TRIES):
            if attempt is not None:
                break
            redrawn += 1
            attempt = _try(rng, sprite, placed, shape)
        dropped += attempt is None
        placed = placed if attempt is None else attempt
    labels, instances = _look(placed, shape)
    empty = np.zeros((*shape, 3), np.uint8)
    return Scene(empty, labels, tuple(instances), redrawn, dropped), placed


def _try(
    rng: Generator, sprite: Sprite, placed: list[Placed], shape: tuple[int, int]
) -> list[Placed] | None:
    """The objects with one more, from back to front, or None where one is seen too little."""
    height, width = sprite.rgba.shape[:2]
    row = int(rng.uniform(-0.1 * height, shape[0] - 0.9 * height))
    column = int(rng.uniform(-0.15 * width, shape[1] - 0.85 * width))
    candidate = sorted([*placed, Placed(sprite, row, column)], key=lambda item: item.bottom)
    labels, instances = _look(candidate, shape)
    areas = np.bincount(labels[labels >= 0], minlength=len(candidate))
    seen = all(instance.visible >= MIN_VISIBLE for instance in instances)
    large = bool((areas >= MIN_PIXELS * labels.size).all())
    return candidate if seen and large else None


def _look(
    placed: Sequence[Placed], shape: tuple[int, int]
) -> tuple[NDArray[np.int16], list[Instance]]:
    """Which object each pixel shows, and how much of each object is seen."""
    labels = np.full(shape, -1, np.int16)
    covered = np.zeros((len(placed), len(placed)), np.int64)
    for number, item in enumerate(placed):
        inside, (rows, columns) = _window(item, shape)
        solid = item.sprite.rgba[inside][..., 3] >= 128
        below = labels[rows, columns][solid]
        covered[number] = np.bincount(below[below >= 0], minlength=len(placed))
        labels[rows, columns][solid] = number
    areas = np.bincount(labels[labels >= 0], minlength=len(placed))
    instances = []
    for number, item in enumerate(placed):
        total = int((item.sprite.rgba[..., 3] >= 128).sum())
        hider = int(covered[:, number].argmax()) if len(placed) else 0
        hidden = covered[hider, number] > 0.12 * total
        visible = float(areas[number]) / max(total, 1)
        instances.append(Instance(item.sprite.cutout, visible, hider if hidden else None))
    return labels, instances


def paint(
    rng: Generator, ground: NDArray[np.uint8], scene: Scene, placed: Sequence[Placed]
) -> Scene:
    """The scene with pixels: ground RGB uint8 [H, W, 3], shadows, objects, then camera noise."""
    canvas = ground.astype(np.float32)
    for item in placed:
        if item.sprite.shadow is not None:
            cast_shadow(canvas, item.sprite.rgba[..., 3], item.row, item.column, item.sprite.shadow)
        inside, (rows, columns) = _window(item, scene.labels.shape)
        rgba = item.sprite.rgba[inside].astype(np.float32)
        alpha = rgba[..., 3:] / 255
        canvas[rows, columns] += alpha * (rgba[..., :3] - canvas[rows, columns])
    return replace(scene, image=photograph(rng, canvas))


def _window(
    item: Placed, shape: tuple[int, ...]
) -> tuple[tuple[slice, slice], tuple[slice, slice]]:
    """The part of a sprite inside the scene, in its own frame and in the scene's."""
    inside, outside = [], []
    for start, length, limit in zip(
        (item.row, item.column), item.sprite.rgba.shape, shape, strict=False
    ):
        low, high = max(0, start), min(limit, start + length)
        inside.append(slice(low - start, max(low, high) - start))
        outside.append(slice(low, max(low, high)))
    return (inside[0], inside[1]), (outside[0], outside[1])


def crop_ground(
    rng: Generator, photograph: NDArray[np.uint8], shape: tuple[int, int]
) -> NDArray[np.uint8]:
    """A random part of a photograph at the scene's size, perhaps mirrored; uint8 [H, W, 3]."""
    height, width = photograph.shape[:2]
    largest = min(height / shape[0], width / shape[1])
    zoom = largest * float(rng.uniform(0.5, 1.0))
    rows, columns = max(1, int(shape[0] * zoom)), max(1, int(shape[1] * zoom))
    top = int(rng.integers(height - rows + 1))
    left = int(rng.integers(width - columns + 1))
    part = photograph[top : top + rows, left : left + columns]
    if rng.random() < 0.5:
        part = part[:, ::-1]
    method = cv2.INTER_AREA if zoom > 1 else cv2.INTER_LINEAR
    return cv2.resize(np.ascontiguousarray(part), (shape[1], shape[0]), interpolation=method)


def draw_shadow(rng: Generator) -> Shadow | None:
    """A shadow in two of three cases."""
    kind = rng.random()
    if kind < 0.34:
        return None
    strength, softness = float(rng.uniform(0.25, 0.6)), float(rng.uniform(0.02, 0.06))
    shift = (float(rng.uniform(0.01, 0.06)), float(rng.uniform(-0.08, 0.08)))
    return Shadow(strength, shift, softness, flat=kind < 0.72)


def turn(rgba: NDArray[np.uint8], degrees: float) -> NDArray[np.uint8]:
    """Rotate about the centre; the picture grows to hold the corners."""
    height, width = rgba.shape[:2]
    matrix = cv2.getRotationMatrix2D(((width - 1) / 2, (height - 1) / 2), degrees, 1.0)
    cosine, sine = abs(matrix[0, 0]), abs(matrix[0, 1])
    new_width = int(np.ceil(width * cosine + height * sine))
    new_height = int(np.ceil(width * sine + height * cosine))
    matrix[:, 2] += ((new_width - width) / 2, (new_height - height) / 2)
    warped = cv2.warpAffine(_premultiply(rgba), matrix, (new_width, new_height))
    return _straight(warped)


def blur(rgba: NDArray[np.uint8], sigma: float) -> NDArray[np.uint8]:
    """Out of focus by `sigma` pixels; the picture grows to hold the soft edge."""
    margin = int(2 * sigma) + 1
    rgba = cv2.copyMakeBorder(rgba, margin, margin, margin, margin, cv2.BORDER_CONSTANT)
    return _straight(cv2.GaussianBlur(_premultiply(rgba), (0, 0), sigma))


def recolour(rng: Generator, rgba: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Small changes of hue, saturation, brightness and contrast; now and then any hue."""
    any_hue = rng.random() < 0.12
    shift = float(rng.uniform(0, 180)) if any_hue else float(rng.normal(0, 2.5))
    saturation, gain = float(rng.uniform(0.75, 1.2)), float(rng.uniform(0.8, 1.15))
    contrast = float(rng.uniform(0.85, 1.1))
    hsv = cv2.cvtColor(np.ascontiguousarray(rgba[..., :3]), cv2.COLOR_RGB2HSV).astype(np.float32)
    hsv[..., 0] = np.mod(hsv[..., 0] + shift, 180)
    hsv[..., 1] *= saturation
    rgb = cv2.cvtColor(np.clip(hsv, 0, 255).astype(np.uint8), cv2.COLOR_HSV2RGB)
    rgb = np.clip((rgb.astype(np.float32) - 128) * contrast + 128, 0, 255) * gain
    return np.dstack([np.clip(rgb, 0, 255).astype(np.uint8), rgba[..., 3]])


def cast_shadow(
    canvas: NDArray[np.float32], alpha: NDArray[np.uint8], row: int, column: int, shadow: Shadow
) -> None:
    """Darken the canvas [H, W, 3] in place with the shadow of an object's alpha, uint8 [h, w]."""
    height, width = alpha.shape
    sigma = max(0.8, shadow.softness * height)
    margin = int(3 * sigma) + 1
    shape = alpha.astype(np.float32) / 255
    top = row + round(shadow.shift[0] * height)
    left = column + round(shadow.shift[1] * width)
    if shadow.flat:
        flat_height = max(2, round(0.18 * height))
        shape = cv2.resize(shape, (width, flat_height), interpolation=cv2.INTER_AREA)
        top = row + height - round(0.6 * flat_height)
        left = column + round(0.5 * shadow.shift[1] * width)
    shape = cv2.copyMakeBorder(shape, margin, margin, margin, margin, cv2.BORDER_CONSTANT)
    shape = cv2.GaussianBlur(shape, (0, 0), sigma)
    _darken(canvas, 1 - shadow.strength * shape, top - margin, left - margin)


def _darken(canvas: NDArray[np.float32], light: NDArray[np.float32], row: int, column: int) -> None:
    top, left = max(0, row), max(0, column)
    bottom = min(canvas.shape[0], row + light.shape[0])
    right = min(canvas.shape[1], column + light.shape[1])
    if top < bottom and left < right:
        canvas[top:bottom, left:right] *= light[
            top - row : bottom - row, left - column : right - column, None
        ]


def photograph(rng: Generator, canvas: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Exposure, a colour cast and grain over the whole scene, float -> uint8 [H, W, 3]."""
    cast = (rng.normal(1.0, 0.03, size=3) * rng.uniform(0.88, 1.1)).astype(np.float32)
    grain = rng.standard_normal(canvas.shape[:2], dtype=np.float32) * np.float32(rng.uniform(0, 4))
    return np.clip(canvas * cast + grain[..., None] + np.float32(0.5), 0, 255).astype(np.uint8)


def _premultiply(rgba: NDArray[np.uint8]) -> NDArray[np.float32]:
    floats = rgba.astype(np.float32)
    floats[..., :3] *= floats[..., 3:] / 255
    return floats


def _straight(premultiplied: NDArray[np.float32]) -> NDArray[np.uint8]:
    floats = premultiplied.copy()
    floats[..., :3] *= 255 / np.maximum(floats[..., 3:], 1e-3)
    return np.clip(np.round(floats), 0, 255).astype(np.uint8)
