"""J and F by hand."""

import numpy as np
import pytest

from ovseg.evaluation.video.masks import contour_accuracy, outline, region_similarity


def box(top: int, left: int, height: int, width: int) -> np.ndarray:
    mask = np.zeros((100, 100), bool)
    mask[top : top + height, left : left + width] = True
    return mask


def test_regions() -> None:
    assert region_similarity(box(0, 0, 10, 10), box(0, 5, 10, 10)) == pytest.approx(50 / 150)
    assert region_similarity(box(0, 0, 0, 0), box(0, 0, 0, 0)) == 1.0


def test_outlines_lie_on_both_sides_above_and_left() -> None:
    edge = outline(box(10, 20, 5, 5))
    assert edge[9, 19:25].all() and edge[10:15, 19].all() and not edge[11:14, 20:24].any()


def test_outlines_may_be_a_little_apart() -> None:
    """A hundredth of a diagonal of 141 is 1.1, so two pixels."""
    true = box(20, 20, 40, 40)
    assert contour_accuracy(true, true) == 1.0
    assert contour_accuracy(box(22, 20, 40, 40), true) == 1.0
    shifted = contour_accuracy(box(23, 20, 40, 40), true)
    assert 0.5 < shifted < 0.9  # the upper and the lower edge are too far away
    assert contour_accuracy(box(0, 0, 0, 0), true) == 0.0
    assert contour_accuracy(box(0, 0, 0, 0), box(0, 0, 0, 0)) == 1.0
