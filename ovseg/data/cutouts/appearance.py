"""How a cut-out looks in a scene: turned, recoloured, blurred, with a shadow, photographed.

Letters: H W scene rows and columns, h w a cut-out's. Cut-outs are RGBA uint8
[h, w, 4], their colours not premultiplied.
"""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray


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
