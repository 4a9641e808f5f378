"""Grouping quality on maps small enough to work out by hand."""

import numpy as np
import pytest

from ovseg.evaluation.grouping import (
    grouping_counts,
    grouping_scores,
    no_groups,
)

TARGET = np.array([[0, 0, 1, 1], [0, 0, 1, 1], [0, 0, 1, 255]], np.uint8)


def test_perfect_regions_under_any_names() -> None:
    regions = np.where(TARGET == 0, 7, 2)
    result = grouping_scores(grouping_counts(TARGET, regions, 8, classes=3))
    assert result.oracle_mean_iou == 1
    assert result.best_match_mean_iou == 1
    assert result.over_segmentation == 1


def test_split_regions_keep_the_oracle_and_lose_the_match() -> None:
    regions = np.array([[0, 1, 2, 2], [0, 1, 2, 2], [0, 1, 2, 2]])
    result = grouping_scores(grouping_counts(TARGET, regions, 3, classes=3))
    assert result.oracle_mean_iou == 1
    assert result.best_match_mean_iou == pytest.approx((0.5 + 1) / 2)
    assert result.over_segmentation == pytest.approx(3 / 2)


def test_one_region_gets_the_commonest_name() -> None:
    counts = grouping_counts(TARGET, np.zeros_like(TARGET), 1, classes=3)
    assert counts.oracle.tolist() == [[6, 0, 0], [5, 0, 0], [0, 0, 0]]
    result = grouping_scores(counts)
    assert result.oracle_mean_iou == pytest.approx((6 / 11 + 0) / 2)
    assert result.best_match_mean_iou == pytest.approx((6 / 11 + 5 / 11) / 2)
    assert result.over_segmentation == pytest.approx(1 / 2)


def test_counts_add_up_over_images() -> None:
    one = grouping_counts(TARGET, np.zeros_like(TARGET), 1, classes=3)
    two = grouping_counts(TARGET, TARGET % 5, 3, classes=3)
    total = no_groups(3) + one + two
    assert total.oracle.sum() == 22
    assert total.segments.tolist() == [2, 2, 0]
    assert total.best_match == pytest.approx([6 / 11 + 1, 5 / 11 + 1, 0])


def test_more_regions_than_labels() -> None:
    regions = np.arange(TARGET.size).reshape(TARGET.shape) * 40
    result = grouping_scores(grouping_counts(TARGET, regions, 480, classes=3))
    assert result.oracle_mean_iou == 1
    assert result.over_segmentation == pytest.approx(11 / 2)
