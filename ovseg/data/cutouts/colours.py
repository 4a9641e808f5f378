"""Naming the colour of pixels: the eleven basic colour terms of English."""

import cv2
import numpy as np
from numpy.typing import NDArray

COLOURS = (
    "black", "white", "gray", "red", "orange", "brown",
    "yellow", "green", "blue", "purple", "pink",
)  # fmt: skip
_BLACK, _WHITE, _GRAY, _RED, _ORANGE, _BROWN, _YELLOW, _GREEN, _BLUE, _PURPLE, _PINK = range(11)
_MAIN, _BOTH, _SECOND = 0.55, 0.8, 0.25  # shares of an object's pixels


def name_colours(rgb: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Index into `COLOURS` of every pixel: uint8 [P, 3] -> uint8 [P].

    Bounds on hue (degrees), saturation and value; brown is dark orange, pink is pale red.
    """
    hsv = cv2.cvtColor(rgb.reshape(-1, 1, 3), cv2.COLOR_RGB2HSV).reshape(-1, 3).astype(np.float32)
    hue, saturation, value = hsv[:, 0] * 2, hsv[:, 1] / 255, hsv[:, 2] / 255
    bounds = np.array([14, 42, 68, 165, 255, 295, 345], np.float32)
    wheel = np.array([_RED, _ORANGE, _YELLOW, _GREEN, _BLUE, _PURPLE, _PINK, _RED], np.uint8)
    named = wheel[np.searchsorted(bounds, hue, side="right")]
    warm = (named == _RED) | (named == _ORANGE)
    named[warm & (value < 0.65) & ((named == _ORANGE) | (saturation < 0.6))] = _BROWN
    named[(named == _ORANGE) & (saturation < 0.55) & (value < 0.85)] = _BROWN
    named[(named == _RED) & (saturation < 0.55) & (value >= 0.75)] = _PINK
    named[(named == _YELLOW) & (value < 0.45)] = _BROWN
    pale = saturation < 0.16
    named[pale] = _GRAY
    named[pale & (value > 0.82)] = _WHITE
    named[(value < 0.22) | (pale & (value < 0.3))] = _BLACK
    return named


def colour_words(rgb: NDArray[np.uint8]) -> str:
    """ "red", "black and white", or "" where no colour or two prevail; uint8 [P, 3]."""
    if not len(rgb):
        return ""
    shares = np.bincount(name_colours(rgb), minlength=len(COLOURS)) / len(rgb)
    first, second = np.argsort(-shares, kind="stable")[:2]
    if shares[first] >= _MAIN:
        return COLOURS[first]
    if shares[first] + shares[second] >= _BOTH and shares[second] >= _SECOND:
        # Said in the order people say them: "black and white", "red and white".
        return " and ".join(COLOURS[index] for index in _spoken_order(int(first), int(second)))
    return ""


def _spoken_order(first: int, second: int) -> tuple[int, int]:
    if {first, second} == {_BLACK, _WHITE}:
        return _BLACK, _WHITE
    return (second, first) if first == _WHITE else (first, second)
