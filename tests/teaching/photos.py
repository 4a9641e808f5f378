"""A set of painted photos: a red square and a blue disc on grey, of noise."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from tests.evaluation.sets.tiny import index_png, photo, text

CLASSES = ("background", "zonk", "blip;blop")


def painted(seed: int, side: int = 96) -> tuple[np.ndarray, np.ndarray]:
    """A photo, uint8 [H, W, 3], and its labels [H, W]."""
    random = np.random.default_rng(seed)
    pixels = random.normal(110, 12, (side, side, 3))
    labels = np.zeros((side, side), np.uint8)
    top, left = random.integers(4, side // 2 - 24, 2)
    labels[top : top + 36, left : left + 36] = 1
    rows, columns = np.mgrid[:side, :side]
    centre = random.integers(side // 2 + 16, side - 18, 2)
    labels[(rows - centre[0]) ** 2 + (columns - centre[1]) ** 2 < 300] = 2
    pixels[labels == 1] += (110, -80, -80)
    pixels[labels == 2] += (-90, -40, 120)
    return np.clip(pixels, 0, 255).astype(np.uint8), labels


def painted_set(root: Path, seeds: Sequence[int], classes: Sequence[str] = CLASSES) -> Path:
    """A folder set of such photos."""
    text(root / "classes.txt", "\n".join(classes) + "\n")
    for seed in seeds:
        pixels, labels = painted(seed)
        photo(root / f"images/{seed}.png", pixels)
        index_png(root / f"labels/{seed}.png", labels)
    return root
