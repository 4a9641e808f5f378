"""The confusion matrix of one image: one `bincount`, in int64, on the device of the label maps.

Letters: H W image, K class.
"""

from typing import Any

import numpy as np
from array_api_compat import array_namespace, is_torch_array

from ovseg.errors import DataError
from ovseg.models.interface import Array

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
