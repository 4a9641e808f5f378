"""Finding pictures that show the same drawing.

Letters: N pictures, S side of the signature.

Collections hold the same drawing as PNG and SVG, recoloured, or mirrored. Split apart, they would
put training pictures into the test set. A signature is the alpha and the luminance of the cropped
picture at S x S; two pictures are one drawing, as they are or mirrored, where

- their silhouettes agree and their luminance correlates strongly, or
- their silhouettes agree almost exactly and are not those of every ball and box: Open Clip Art
  has the same drawing in black and white and in colours that correlate with nothing.

Thresholds: of 71 drawings that Tux Paint holds twice, the silhouettes of 95 % differ by less than
0.01 and of all by less than 0.03.
"""

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

SIDE = 16
_AGREE, _AGREE_EXACTLY = 0.03, 0.012  # mean absolute difference of alpha in 0..1
_CORRELATE = 0.9
_PLAIN = 0.05  # silhouettes this near to an ellipse or a box say nothing


def signature(rgba: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Alpha and luminance of a cropped cut-out: uint8 [H, W, 4] -> uint8 [2 * S * S]."""
    small = cv2.resize(rgba.astype(np.float32), (SIDE, SIDE), interpolation=cv2.INTER_AREA)
    luminance = small[..., :3] @ np.array([0.299, 0.587, 0.114], np.float32)
    return np.round(np.stack([small[..., 3], luminance])).clip(0, 255).astype(np.uint8).ravel()


def group(signatures: NDArray[np.uint8]) -> list[int]:
    """Number of each picture's group, uint8 [N, 2 * S * S] -> N; it is its first member's index."""
    count = len(signatures)
    parent = list(range(count))
    alpha, contrast = _features(signatures)
    mirrored = [_mirror(features) for features in (alpha, contrast)]
    telling = ~_is_plain(alpha)
    area = alpha.mean(1)
    order = np.argsort(area, kind="stable")
    for position, first in enumerate(order):
        # Silhouettes that agree have areas that agree: only a window of the sorted ones matters.
        stop = int(np.searchsorted(area[order], area[first] + _AGREE, side="right"))
        others = order[position + 1 : stop]
        for alphas, contrasts in ((alpha, contrast), mirrored):
            difference = np.abs(alphas[others] - alpha[first]).mean(1)
            correlation = contrasts[others] @ contrast[first]
            same = (difference < _AGREE) & (correlation > _CORRELATE)
            same |= (difference < _AGREE_EXACTLY) & telling[first]
            for other in others[same]:
                _join(parent, int(first), int(other))
    return [_root(parent, index) for index in range(count)]


def join(first: Sequence[int], second: Sequence[int]) -> list[int]:
    """The finest grouping in which members of a group of either stay together."""
    parent = list(range(len(first)))
    for groups in (first, second):
        for index, leader in enumerate(groups):
            _join(parent, index, leader)
    return [_root(parent, index) for index in range(len(parent))]


def _features(signatures: NDArray[np.uint8]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Alpha in 0..1, and luminance with weighted mean 0 and norm 1; both float [N, S * S]."""
    alpha, luminance = signatures.astype(np.float32).reshape(-1, 2, SIDE * SIDE).swapaxes(0, 1)
    alpha = alpha / 255
    mean = (luminance * alpha).sum(1) / np.maximum(alpha.sum(1), 1e-6)
    contrast = (luminance - mean[:, None]) * alpha
    norm = np.linalg.norm(contrast, axis=1)
    return alpha, contrast / np.maximum(norm, 1.0)[:, None]


def _mirror(features: NDArray[np.float32]) -> NDArray[np.float32]:
    return features.reshape(-1, SIDE, SIDE)[..., ::-1].reshape(len(features), -1)


def _is_plain(alpha: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Which silhouettes are an ellipse or a box, bool [N]."""
    offset = (np.arange(SIDE * 8) + 0.5) / (SIDE * 4) - 1
    fine = (offset[:, None] ** 2 + offset**2 <= 1).astype(np.float32)
    ellipse = cv2.resize(fine, (SIDE, SIDE), interpolation=cv2.INTER_AREA).ravel()
    to_ellipse = np.abs(alpha - ellipse).mean(1)
    return (to_ellipse < _PLAIN) | (1 - alpha.mean(1) < _PLAIN)


def _root(parent: list[int], index: int) -> int:
    while parent[index] != index:
        parent[index] = parent[parent[index]]
        index = parent[index]
    return index


def _join(parent: list[int], first: int, second: int) -> None:
    low, high = sorted((_root(parent, first), _root(parent, second)))
    parent[high] = low
