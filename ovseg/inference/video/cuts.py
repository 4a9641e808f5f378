"""Where a video cuts to another scene: what was seen before says nothing about what follows."""

from collections import deque

import cv2
import numpy as np
from numpy.typing import NDArray

from ovseg.data.images import Pixels

_BINS = 8  # of each colour
_SIDE = 64  # pixels that a frame is shrunk to
_ALWAYS = 0.2
"""Share of the colours that must have changed at a cut, where nothing moves."""
_TIMES = 4.0
"""How many times what is usual since the last cut, where things move."""


class CutDetector:
    """Compares the colours of each frame with those of the one before."""

    def __init__(self) -> None:
        self._before: NDArray[np.float64] | None = None
        self._usual: deque[float] = deque(maxlen=25)

    def is_cut(self, pixels: Pixels) -> bool:
        """Whether a frame, uint8 [H, W, 3], belongs to another scene than the one before."""
        colours, before = _colours(pixels), self._before
        self._before = colours
        if before is None:
            return False
        changed = float(np.abs(colours - before).sum() / 2)
        usual = float(np.median(self._usual)) if self._usual else 0.0
        if changed > max(_ALWAYS, _TIMES * usual):
            self._usual.clear()
            return True
        self._usual.append(changed)
        return False


def _colours(pixels: Pixels) -> NDArray[np.float64]:
    """Share of each colour, [512], summing to 1; blurred over neighbouring ones, so that light
    that changes a little changes little."""
    small = cv2.resize(pixels, (_SIDE, _SIDE), interpolation=cv2.INTER_AREA)
    ranges = [0, 256] * 3
    counts = cv2.calcHist([small], [0, 1, 2], None, [_BINS] * 3, ranges)
    for axis in range(3):
        counts = counts + 0.5 * _shifted(counts, 1, axis) + 0.5 * _shifted(counts, -1, axis)
    return (counts / counts.sum()).ravel().astype(np.float64)


def _shifted(counts: NDArray[np.float32], by: int, axis: int) -> NDArray[np.float32]:
    moved = np.roll(counts, by, axis)
    edge = [slice(None)] * 3
    edge[axis] = slice(0, 1) if by > 0 else slice(-1, None)
    moved[tuple(edge)] = 0
    return moved
