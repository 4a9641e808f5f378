"""How good the regions are before anyone names them: tells grouping failures from naming failures.

Letters: H W pixels, R region, K class, S true segment (a class within one image).
"""

from dataclasses import dataclass

import numpy as np

from ovseg.evaluation.overlap import Counts, confusion_matrix, ignored_label, mean_of_present, ratio
from ovseg.models.interface import Array


@dataclass(frozen=True)
class GroupingCounts:
    """Sums over images, windows or both; sums of two are the counts of their union.

    Attributes:
        oracle: confusion matrix if every region were named by its commonest true class,
            int64 [K, K].
        best_match: summed over true segments, the IoU with their best single region, float [K].
        segments: true segments of every class, int64 [K].
        pieces: summed over true segments, the regions whose commonest true class is theirs, [K].
    """

    oracle: Counts
    best_match: np.ndarray
    segments: Counts
    pieces: Counts

    def __add__(self, other: "GroupingCounts") -> "GroupingCounts":
        return GroupingCounts(
            self.oracle + other.oracle,
            self.best_match + other.best_match,
            self.segments + other.segments,
            self.pieces + other.pieces,
        )


@dataclass(frozen=True)
class GroupingScores:
    """Quality of unnamed regions.

    Attributes:
        oracle_mean_iou: mIoU if every region got its best name: the ceiling that the grouping
            sets. What lies between it and the mIoU is lost in naming.
        best_match_mean_iou: IoU of each true segment with its best single region, averaged over
            the segments of a class, then over classes.
        over_segmentation: regions per true segment, 1 being ideal.
    """

    oracle_mean_iou: float
    best_match_mean_iou: float
    over_segmentation: float


def no_groups(classes: int) -> GroupingCounts:
    """Counts of nothing, to add to."""
    zero = np.zeros(classes, np.int64)
    return GroupingCounts(
        np.zeros((classes, classes), np.int64), np.zeros(classes), zero, zero.copy()
    )


def grouping_counts(
    target: Array, regions: Array, region_count: int, classes: int, ignored: int | None = None
) -> GroupingCounts:
    """Compare unnamed regions with the true label map.

    Args:
        target: true labels in 0..K-1 or `ignored`, integer [H, W].
        regions: region of every pixel in 0..R-1, integer [H, W], same library and device.
        region_count: R.
        classes: K.
        ignored: label of pixels that are not counted; that of `ignored_label` by default.
    """
    # Regions may outnumber the labels: then `ignored` is a row like any other, and cut off.
    size = max(region_count, classes)
    ignored = ignored_label(classes) if ignored is None else ignored
    square = confusion_matrix(target, regions, size, ignored=max(ignored, size))
    table = np.asarray(square.tolist(), np.int64)[:classes, :region_count]  # [K, R]
    area = table.sum(0)  # [R]
    used = area > 0
    name = table.argmax(0)  # commonest class of each region, [R]
    oracle = np.zeros((classes, classes), np.int64)
    np.add.at(oracle.T, name[used], table.T[used])
    true = table.sum(1)  # [K]
    iou = ratio(table, true[:, None] + area[None, :] - table)  # [K, R]
    present = true > 0
    best = np.where(present, np.nan_to_num(iou).max(1, initial=0.0), 0.0)
    pieces = np.where(present, np.bincount(name[used], minlength=classes), 0)
    return GroupingCounts(oracle, best, present.astype(np.int64), pieces.astype(np.int64))


def grouping_scores(counts: GroupingCounts) -> GroupingScores:
    """Turn summed counts into scores; NaN where there was nothing to measure."""
    found = np.diagonal(counts.oracle)
    union = counts.oracle.sum(0) + counts.oracle.sum(1) - found
    return GroupingScores(
        oracle_mean_iou=mean_of_present(ratio(found, union)),
        best_match_mean_iou=mean_of_present(ratio(counts.best_match, counts.segments)),
        over_segmentation=float(ratio(counts.pieces.sum(), counts.segments.sum())),
    )
