"""Cuts to another scene."""

import numpy as np

from ovseg.inference.video.cuts import CutDetector


def scene(seed: int, number: int) -> np.ndarray:
    """A picture of large blots that move and get a little brighter."""
    draw = np.random.default_rng(seed)
    blots = np.kron(draw.integers(30, 220, (6, 8, 3)), np.ones((12, 12, 1), np.int64))
    moved = np.roll(blots, 2 * number, axis=1)
    return np.clip(moved + number, 0, 255).astype(np.uint8)


def test_cuts_are_found_where_they_are() -> None:
    detector = CutDetector()
    frames = [scene(seed, number) for seed in range(4) for number in range(10)]
    assert [at for at, frame in enumerate(frames) if detector.is_cut(frame)] == [10, 20, 30]


def test_what_always_moves_is_no_cut() -> None:
    draw = np.random.default_rng(0)
    detector = CutDetector()
    found = [detector.is_cut(draw.integers(0, 256, (48, 64, 3), np.uint8)) for _ in range(20)]
    assert not any(found)
