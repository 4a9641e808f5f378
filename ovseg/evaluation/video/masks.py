"""DAVIS' measures of a mask: J, of its region, and F, of its outline.

Perazzi et al., A Benchmark Dataset and Evaluation Methodology for Video Object Segmentation, CVPR
2016, section 4.
"""

import math

import cv2
import numpy as np
from numpy.typing import NDArray

Mask = NDArray[np.bool_]  # [H, W]

TOLERANCE = 0.008
"""How far outlines may be apart, as a share of the picture's diagonal."""


def region_similarity(found: Mask, true: Mask) -> float:
    """J: intersection over union; 1 where both are empty."""
    union = int((found | true).sum())
    return int((found & true).sum()) / union if union else 1.0


def contour_accuracy(found: Mask, true: Mask) -> float:
    """F: harmonic mean of the shares of each outline that lie near the other.

    Where one of the masks is empty it is 0, where both are 1.
    """
    ours, theirs = outline(found), outline(true)
    counts = int(ours.sum()), int(theirs.sum())
    if not all(counts):
        return float(counts[0] == counts[1])
    precision = int((ours & _near(theirs)).sum()) / counts[0]
    recall = int((theirs & _near(ours)).sum()) / counts[1]
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def outline(mask: Mask) -> Mask:
    """Pixels that differ from the one to the right, below, or below to the right."""
    padded = np.pad(mask, ((0, 1), (0, 1)), mode="edge")
    here = padded[:-1, :-1]
    return (here ^ padded[:-1, 1:]) | (here ^ padded[1:, :-1]) | (here ^ padded[1:, 1:])


def _near(edge: Mask) -> Mask:
    """Pixels within the tolerance of an outline."""
    radius = math.ceil(TOLERANCE * math.hypot(*edge.shape))
    rows, columns = np.ogrid[-radius : radius + 1, -radius : radius + 1]
    disk = (rows**2 + columns**2 <= radius**2).astype(np.uint8)
    return cv2.dilate(edge.astype(np.uint8), disk).astype(bool)
