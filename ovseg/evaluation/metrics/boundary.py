"""Boundary IoU: overlap counted only near outlines, where IoU forgives most.

B. Cheng et al., Boundary IoU: Improving Object-Centric Image Segmentation Evaluation, CVPR 2021,
eq. 3, for label maps: intersections and unions are summed over a set before they are divided.

Letters: H W image, K class.
"""

import cv2
import numpy as np
from numpy.typing import NDArray

from ovseg.evaluation.metrics.confusion import ignored_label
from ovseg.evaluation.metrics.scores import Counts

WIDTH = 0.02
"""Width of the band as a share of the image diagonal, the paper's value."""


def boundary_band(labels: NDArray[np.unsignedinteger], width: int) -> NDArray[np.bool_]:
    """Pixels within `width` pixels (chessboard distance) of another label or of the image edge.

    For each class alone this is its mask without the mask eroded `width` times by a 3x3 square
    with zeros around the image; the least and the greatest label near a pixel give all at once.

    Args:
        labels: uint8 or uint16 [H, W].
        width: pixels, at least 1.

    Returns:
        bool [H, W].
    """
    square = np.ones((2 * width + 1, 2 * width + 1), np.uint8)
    band: NDArray[np.bool_] = cv2.dilate(labels, square) != cv2.erode(labels, square)
    band[:width] = band[-width:] = True
    band[:, :width] = band[:, -width:] = True
    return band


def boundary_counts(
    target: NDArray[np.unsignedinteger], prediction: NDArray[np.unsignedinteger], classes: int
) -> Counts:
    """Pixels of every class's band: common to both, of the target, of the prediction.

    Ignored pixels are not counted, but end a true region as any other label does. The prediction
    does not know of them: its band is that of the whole map.

    Args:
        target: true labels, `ignored_label` where ignored, uint8 or uint16 [H, W].
        prediction: predicted labels, of the same type, [H, W].
        classes: K.

    Returns:
        int64 [K, 3]; boundary IoU of a class is `common / (target + prediction - common)`.
    """
    width = max(1, round(WIDTH * float(np.hypot(*target.shape))))
    counted = target != ignored_label(classes)
    true = boundary_band(target, width) & counted
    predicted = boundary_band(prediction, width) & counted
    common = true & predicted & (target == prediction)
    counts = [
        np.bincount(labels[where], minlength=classes)
        for labels, where in ((target, common), (target, true), (prediction, predicted))
    ]
    return np.stack(counts, axis=1)
