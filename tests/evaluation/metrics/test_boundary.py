"""Boundary IoU against eroding the mask of each class."""

import cv2
import numpy as np

from ovseg.evaluation.metrics.boundary import WIDTH, boundary_band, boundary_counts


def blobs(seed: int) -> np.ndarray:
    """A smooth random label map with 4 labels, uint8 [90, 120]."""
    noise = np.random.default_rng(seed).random((90, 120, 4)).astype(np.float32)
    smooth = cv2.GaussianBlur(noise, (0, 0), 6)
    return smooth.argmax(2).astype(np.uint8)


def band_by_erosion(mask: np.ndarray, width: int) -> np.ndarray:
    """The mask without its erosion, with zeros around the image."""
    padded = np.pad(mask.astype(np.uint8), 1)
    eroded = cv2.erode(padded, np.ones((3, 3), np.uint8), iterations=width)[1:-1, 1:-1]
    return mask & (eroded == 0)


def test_band_equals_erosion_of_every_class() -> None:
    labels = blobs(0)
    band = boundary_band(labels, 3)
    for label in range(4):
        mask = labels == label
        assert (band & mask == band_by_erosion(mask, 3)).all()


def test_counts_equal_the_definition() -> None:
    target, prediction = blobs(1), blobs(2)
    target[10:20, 10:40] = 255
    width = round(WIDTH * float(np.hypot(*target.shape)))
    counts = boundary_counts(target, prediction, 4)
    for label in range(4):
        true = band_by_erosion(target == label, width)
        predicted = band_by_erosion(prediction == label, width) & (target != 255)
        assert counts[label].tolist() == [(true & predicted).sum(), true.sum(), predicted.sum()]


def test_equal_maps_overlap_fully_and_a_shift_costs_more_than_in_iou() -> None:
    target = blobs(3)
    counts = boundary_counts(target, target, 4)
    assert (counts[:, 0] == counts[:, 1]).all()
    shifted = np.roll(target, 3, axis=1)
    common, true, predicted = boundary_counts(target, shifted, 4).sum(0)
    overlap = (target == shifted).sum() / (2 * target.size - (target == shifted).sum())
    assert common / (true + predicted - common) < overlap
