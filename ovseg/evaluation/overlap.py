"""How far label maps overlap: confusion matrices, the scores of their sum, and boundary IoU.

A confusion matrix is one `bincount`, in int64, on the device of the label maps.

Boundary IoU counts overlap only near outlines, where IoU forgives most: B. Cheng et al., Boundary
IoU: Improving Object-Centric Image Segmentation Evaluation, CVPR 2021, eq. 3, for label maps:
intersections and unions are summed over a set before they are divided.

Letters: H W image, K class.
"""

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from array_api_compat import array_namespace, is_torch_array
from numpy.typing import ArrayLike, NDArray

from ovseg.errors import DataError
from ovseg.models.interface import Array

Counts = NDArray[np.int64]

IGNORED = 255
"""Label of pixels that no metric counts, in maps of 8 bits."""

_NARROW = 253  # classes that fit into 8 bits: 254 and 255 have meanings of their own


def label_type(classes: int) -> type[np.uint8] | type[np.uint16]:
    """The type of label maps of this many classes: 8 bits where they suffice, else 16."""
    return np.uint8 if classes <= _NARROW else np.uint16


def ignored_label(classes: int) -> int:
    """The label of pixels that are not counted: the largest of `label_type`."""
    return int(np.iinfo(label_type(classes)).max)


def confusion_matrix(
    target: Array, prediction: Array, classes: int, ignored: int | None = None
) -> Array:
    """Pixels of every true class that were given every predicted class.

    The target's rows run up to `ignored`, so that ignored and impossible labels fall into rows of
    their own: no pixel is masked out beforehand, and none is lost without a word.

    Args:
        target: true labels in 0..classes-1 or `ignored`, integer [H, W], NumPy or torch.
        prediction: predicted labels in 0..classes-1, integer [H, W], same library and device.
        classes: K, background included where it is a class.
        ignored: label of pixels that are not counted, at least K; that of `ignored_label` by
            default.

    Returns:
        int64 [K, K], rows are true classes, columns predicted ones.

    Raises:
        DataError: the shapes differ, or a label is neither a class nor `ignored`.
    """
    if tuple(target.shape) != tuple(prediction.shape):
        raise DataError(
            f"label maps differ in size: {tuple(target.shape)} is true, "
            f"{tuple(prediction.shape)} predicted"
        )
    ignored = ignored_label(classes) if ignored is None else ignored
    if ignored > IGNORED:  # a row for every label up to it would be thousands
        target, ignored = _folded(target, classes, ignored), classes + 1
    rows = ignored + 1
    count = _torch_counts if is_torch_array(target) else _numpy_counts
    table = count(target.reshape(-1), prediction.reshape(-1), rows, classes)  # [ignored + 1, K]
    if table[classes:ignored].any():
        stray = int(table[classes:ignored].sum(1).argmax()) + classes
        raise DataError(f"label {stray} is not among the {classes} classes of this set")
    return table[:classes]


def _folded(target: Array, classes: int, ignored: int) -> Array:
    """The same labels with ignored ones as `classes + 1`."""
    xp: Any = array_namespace(target)
    folded = xp.astype(target, xp.int32)
    folded = xp.where(folded == ignored, classes + 1, folded)
    if bool((folded > classes + 1).any()):
        raise DataError(f"label {int(folded.max())} is not among the {classes} classes of this set")
    return folded


def _numpy_counts(target: Array, prediction: Array, rows: int, classes: int) -> Array:
    """Joint histogram [rows, classes]; indices are as narrow as they can be, which is faster."""
    _check_range(int(target.max(initial=0)), int(prediction.max(initial=0)), rows, classes)
    narrow = np.uint16 if rows * classes <= 1 << 16 else np.int64
    index = np.multiply(target, classes, dtype=narrow, casting="unsafe")
    np.add(index, prediction, out=index, casting="unsafe")
    return np.bincount(index, minlength=rows * classes).reshape(rows, classes)


def _torch_counts(target: Array, prediction: Array, rows: int, classes: int) -> Array:
    import torch

    if target.numel():
        # Both at once: each look at a value makes the host wait for the device.
        true, predicted = torch.stack([target.max().long(), prediction.max().long()]).tolist()
        _check_range(true, predicted, rows, classes)
    index = target.to(torch.int32) * classes + prediction
    return torch.bincount(index, minlength=rows * classes).reshape(rows, classes)


def _check_range(target: int, prediction: int, rows: int, classes: int) -> None:
    if target >= rows:
        raise DataError(f"label {target} is not among the {classes} classes of this set")
    if prediction >= classes:
        raise DataError(f"predicted label {prediction} is not below {classes}")


def areas(confusion: Counts) -> Counts:
    """Common, true and predicted pixels of every class, int64 [..., K, 3], of [..., K, K]."""
    common = np.diagonal(confusion, axis1=-2, axis2=-1)
    return np.stack([common, confusion.sum(-1), confusion.sum(-2)], axis=-1)


def class_iou(counts: Counts) -> NDArray[np.float64]:
    """IoU from common, true and predicted pixels [..., 3]; NaN where there are none."""
    common, true, predicted = np.moveaxis(counts, -1, 0)
    return ratio(common, true + predicted - common)


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


BOUNDARY_WIDTH = 0.02
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
    width = max(1, round(BOUNDARY_WIDTH * float(np.hypot(*target.shape))))
    counted = target != ignored_label(classes)
    true = boundary_band(target, width) & counted
    predicted = boundary_band(prediction, width) & counted
    common = true & predicted & (target == prediction)
    counts = [
        np.bincount(labels[where], minlength=classes)
        for labels, where in ((target, common), (target, true), (prediction, predicted))
    ]
    return np.stack(counts, axis=1)
