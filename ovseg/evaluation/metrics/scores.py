"""Scores from summed confusion matrices.

Letters: K class.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

Counts = NDArray[np.int64]


@dataclass(frozen=True)
class Scores:
    """Overlap scores of a whole set; shares in 0..1, NaN where there is nothing to measure.

    Attributes:
        iou: intersection over union of every class, over the whole set, [K].
        accuracy: share of every class's true pixels that were found, [K].
        precision: share of the pixels predicted as a class that are of it, [K].
        mean_iou: mean of `iou` over the classes that occur in truth or prediction.
        mean_iou_foreground: the same without class 0; equal to `mean_iou` where class 0 is
            not the background.
        pixel_accuracy: share of all counted pixels that are right.
        mean_accuracy: mean of `accuracy`.
        frequency_weighted_iou: mean of `iou` weighted by true pixels.
    """

    iou: tuple[float, ...]
    accuracy: tuple[float, ...]
    precision: tuple[float, ...]
    mean_iou: float
    mean_iou_foreground: float
    pixel_accuracy: float
    mean_accuracy: float
    frequency_weighted_iou: float


@dataclass(frozen=True)
class Confused:
    """Pixels of class `target` that were called `prediction`.

    `share` is relative to all true pixels of `target`.
    """

    target: int
    prediction: int
    pixels: int
    share: float


def scores(confusion: Counts, *, background: bool) -> Scores:
    """Scores of a confusion matrix, int64 [K, K] with true classes as rows.

    Args:
        confusion: summed over the images of a set.
        background: whether class 0 is the background.
    """
    found = np.diagonal(confusion).astype(np.float64)
    true = confusion.sum(1).astype(np.float64)
    predicted = confusion.sum(0).astype(np.float64)
    iou = ratio(found, true + predicted - found)
    accuracy = ratio(found, true)
    return Scores(
        iou=tuple(iou.tolist()),
        accuracy=tuple(accuracy.tolist()),
        precision=tuple(ratio(found, predicted).tolist()),
        mean_iou=mean_of_present(iou),
        mean_iou_foreground=mean_of_present(iou[1:] if background else iou),
        pixel_accuracy=float(ratio(found.sum(), true.sum())),
        mean_accuracy=mean_of_present(accuracy),
        frequency_weighted_iou=_weighted_mean(iou, true),
    )


def ratio(part: ArrayLike, whole: ArrayLike) -> NDArray[np.float64]:
    """`part / whole`, NaN where the whole is 0."""
    part, whole = np.asarray(part, np.float64), np.asarray(whole, np.float64)
    return np.divide(part, whole, out=np.full(part.shape, np.nan), where=whole > 0)


def mean_of_present(values: NDArray[np.float64]) -> float:
    """Mean of what is not NaN; NaN where nothing is."""
    present = values[~np.isnan(values)]
    return float(present.mean()) if present.size else float("nan")


def _weighted_mean(values: NDArray[np.float64], weights: NDArray[np.float64]) -> float:
    present = weights > 0
    if not present.any():
        return float("nan")
    return float((values[present] * weights[present]).sum() / weights[present].sum())


def top_confusions(confusion: Counts, count: int = 10) -> list[Confused]:
    """The `count` largest wrong cells, most pixels first."""
    wrong = confusion.copy()
    np.fill_diagonal(wrong, 0)
    true = confusion.sum(1)
    order = np.argsort(-wrong, axis=None, kind="stable")[:count]
    cells = [divmod(int(cell), wrong.shape[1]) for cell in order]
    return [
        Confused(row, column, int(wrong[row, column]), float(wrong[row, column] / true[row]))
        for row, column in cells
        if wrong[row, column]
    ]
