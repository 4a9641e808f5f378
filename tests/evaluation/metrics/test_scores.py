"""Scores against numbers worked out by hand."""

import math

import numpy as np
import pytest

from ovseg.evaluation.metrics.scores import Confused, scores, top_confusions

# Class 0: 6 of 10 found, 2 false. Class 1: 8 of 10 found, 4 false. Class 2: nowhere.
MATRIX = np.array([[6, 4, 0], [2, 8, 0], [0, 0, 0]])


def test_scores_by_hand() -> None:
    result = scores(MATRIX, background=True)
    assert result.iou[:2] == pytest.approx((6 / 12, 8 / 14))
    assert math.isnan(result.iou[2])
    assert result.accuracy[:2] == pytest.approx((0.6, 0.8))
    assert result.precision[:2] == pytest.approx((6 / 8, 8 / 12))
    assert result.mean_iou == pytest.approx((6 / 12 + 8 / 14) / 2)
    assert result.mean_iou_foreground == pytest.approx(8 / 14)
    assert result.pixel_accuracy == pytest.approx(14 / 20)
    assert result.mean_accuracy == pytest.approx(0.7)
    assert result.frequency_weighted_iou == pytest.approx((6 / 12 + 8 / 14) / 2)


def test_without_background_class_0_counts_as_any_other() -> None:
    result = scores(MATRIX, background=False)
    assert result.mean_iou_foreground == result.mean_iou


def test_a_class_that_is_only_predicted_counts_as_zero() -> None:
    assert scores(np.array([[5, 5], [0, 0]]), background=False).mean_iou == pytest.approx(0.25)


def test_an_empty_set_has_no_score() -> None:
    result = scores(np.zeros((3, 3), np.int64), background=True)
    assert math.isnan(result.mean_iou)
    assert math.isnan(result.frequency_weighted_iou)


def test_top_confusions_are_sorted_and_leave_the_diagonal_out() -> None:
    assert top_confusions(MATRIX) == [Confused(0, 1, 4, 0.4), Confused(1, 0, 2, 0.2)]
    assert top_confusions(MATRIX, count=1) == [Confused(0, 1, 4, 0.4)]
