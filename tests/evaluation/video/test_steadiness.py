"""Measures of steadiness by hand."""

import numpy as np
import pytest

from ovseg.evaluation.video.steadiness import (
    FlowConsistency,
    VideoConsistency,
    agreement,
    flicker,
)


def test_flicker_counts_where_the_true_label_stays() -> None:
    before, now = np.array([[0, 0, 1, 1]]), np.array([[0, 1, 1, 0]])
    true_before, true_now = np.array([[0, 0, 1, 1]]), np.array([[0, 0, 1, 0]])
    assert flicker(before, now, true_before, true_now) == pytest.approx(1 / 3)


def test_video_consistency() -> None:
    measure = VideoConsistency(2)
    measure.add(np.array([[1, 1, 0, 0]]), np.array([[1, 1, 0, 0]]))
    assert measure.mean is None
    measure.add(np.array([[1, 0, 0, 0]]), np.array([[1, 1, 0, 1]]))
    assert measure.mean == pytest.approx(2 / 3)  # of three that stay, one has lost its label


def test_flow_takes_labels_along() -> None:
    draw = np.random.default_rng(0)
    texture = np.kron(draw.integers(0, 255, (24, 40, 3)), np.ones((4, 4, 1))).astype(np.uint8)
    labels = np.zeros((96, 160), np.int64)
    labels[30:60, 60:100] = 1
    steady, still = FlowConsistency(), FlowConsistency()
    for step in range(4):
        pixels = np.roll(texture, 3 * step, axis=1)
        steady.add(pixels, np.roll(labels, 3 * step, axis=1))
        still.add(pixels, labels)
    assert steady.mean is not None and still.mean is not None
    assert steady.mean > 0.95 > still.mean


def test_agreement() -> None:
    assert agreement(np.array([0, 0, 1, 1]), np.array([0, 1, 1, 1])) == pytest.approx(
        (1 / 2 + 2 / 3) / 2
    )
