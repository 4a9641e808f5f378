"""How far a score would move with other images of the same kind: the bootstrap over images.

Letters: I image, K class, R resample.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ovseg.evaluation.overlap import Counts, ratio

RESAMPLES = 1000
SEED = 0
_CHUNK = 100  # resamples at a time: bounds memory at 100 x images


@dataclass(frozen=True)
class Interval:
    """A 95 % percentile interval."""

    low: float
    high: float


@dataclass(frozen=True)
class PairedDifference:
    """A paired difference of mean IoU, second minus first.

    Attributes:
        value: difference on the images themselves.
        interval: 95 % interval of the difference over resampled images.
        p_value: two-sided share of resamples on the other side of 0, at least 1 / resamples.
    """

    value: float
    interval: Interval
    p_value: float


def mean_iou_interval(areas: Counts, resamples: int = RESAMPLES, seed: int = SEED) -> Interval:
    """95 % interval of the mIoU when the images are drawn again with replacement.

    Args:
        areas: per image and class intersection, true and predicted pixels, int64 [I, K, 3].
        resamples: how often the images are drawn.
        seed: of the draws; the same seed gives the same interval.
    """
    values = np.concatenate([_mean_iou(w, areas) for w in _weights(len(areas), resamples, seed)])
    return _interval(values)


def share_interval(
    hits: NDArray[np.bool_], resamples: int = RESAMPLES, seed: int = SEED
) -> Interval:
    """95 % interval of a share of hits when the cases are drawn again, bool [I].

    How many hits are drawn is binomial, so that the cases need not be drawn one by one.
    """
    drawn = np.random.default_rng(seed).binomial(len(hits), hits.mean(), size=resamples)
    return _interval(drawn / len(hits))


def paired_difference(
    first: Counts, second: Counts, resamples: int = RESAMPLES, seed: int = SEED
) -> PairedDifference:
    """Difference of mIoU of two runs over the same images, both resampled together.

    Args:
        first, second: per image and class intersection, true and predicted pixels,
            int64 [I, K, 3], images in the same order.
    """
    chunks = [
        _mean_iou(weights, second) - _mean_iou(weights, first)
        for weights in _weights(len(first), resamples, seed)
    ]
    differences = np.concatenate(chunks)
    once = np.ones((1, len(first)))
    value = float(_mean_iou(once, second)[0] - _mean_iou(once, first)[0])
    tail = min(np.mean(differences <= 0), np.mean(differences >= 0))
    return PairedDifference(
        value, _interval(differences), float(min(1.0, max(2 * tail, 1 / resamples)))
    )


def _weights(images: int, resamples: int, seed: int) -> Iterator[NDArray[np.float64]]:
    """How often each image is drawn, [at most _CHUNK, I], until `resamples` rows are out."""
    generator = np.random.default_rng(seed)
    even = np.full(images, 1 / images)
    for start in range(0, resamples, _CHUNK):
        rows = min(_CHUNK, resamples - start)
        yield generator.multinomial(images, even, size=rows).astype(np.float64)


def _mean_iou(weights: NDArray[np.float64], areas: Counts) -> NDArray[np.float64]:
    """mIoU of every resample, [R]."""
    common, true, predicted = np.moveaxis(areas.astype(np.float64), -1, 0)  # [I, K] each
    found = weights @ common
    iou = ratio(found, weights @ (true + predicted) - found)  # [R, K]
    present = ~np.isnan(iou)
    return ratio(np.where(present, iou, 0.0).sum(1), present.sum(1))


def _interval(values: NDArray[np.float64]) -> Interval:
    low, high = np.nanpercentile(values, [2.5, 97.5])
    return Interval(float(low), float(high))
