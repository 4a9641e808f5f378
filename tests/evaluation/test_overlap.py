"""Overlap of label maps: against loops, torchmetrics, erosion, and numbers worked out by hand."""

import math

import cv2
import numpy as np
import pytest
import torch
from torchmetrics.classification import MulticlassConfusionMatrix, MulticlassJaccardIndex

from ovseg.errors import DataError
from ovseg.evaluation.overlap import (
    BOUNDARY_WIDTH,
    Confused,
    boundary_band,
    boundary_counts,
    confusion_matrix,
    scores,
    top_confusions,
)


def random_maps(classes: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    target = generator.integers(0, classes, (37, 53))
    target[generator.random(target.shape) < 0.1] = 255
    return target.astype(np.uint8), generator.integers(0, classes, (37, 53)).astype(np.uint8)


def by_loop(target: np.ndarray, prediction: np.ndarray, classes: int) -> np.ndarray:
    matrix = np.zeros((classes, classes), np.int64)
    for row in range(target.shape[0]):
        for column in range(target.shape[1]):
            if target[row, column] != 255:
                matrix[target[row, column], prediction[row, column]] += 1
    return matrix


@pytest.mark.parametrize("classes", [2, 21, 171, 253])
@pytest.mark.parametrize("convert", [np.asarray, torch.from_numpy], ids=["numpy", "torch"])
def test_equals_a_loop_over_pixels(classes: int, convert) -> None:
    target, prediction = random_maps(classes)
    matrix = confusion_matrix(convert(target), convert(prediction), classes)
    assert str(matrix.dtype).endswith("int64")
    assert np.asarray(matrix).tolist() == by_loop(target, prediction, classes).tolist()


@pytest.mark.parametrize("dtype", [np.int32, np.int64])
def test_wider_types_count_alike(dtype: type) -> None:
    target, prediction = random_maps(21)
    wide = confusion_matrix(target.astype(dtype), prediction.astype(dtype), 21)
    assert (wide == confusion_matrix(target, prediction, 21)).all()


def test_equals_torchmetrics() -> None:
    target, prediction = (torch.from_numpy(m.astype(np.int64)) for m in random_maps(21))
    matrix = confusion_matrix(target, prediction, 21)
    theirs = MulticlassConfusionMatrix(21, ignore_index=255)(prediction, target)
    assert torch.equal(matrix, theirs)
    jaccard = MulticlassJaccardIndex(21, ignore_index=255, average="none")(prediction, target)
    ours = scores(matrix.numpy(), background=True)
    np.testing.assert_allclose(ours.iou, jaccard.numpy(), rtol=1e-6)
    assert ours.mean_iou == pytest.approx(float(jaccard.mean()), rel=1e-6)


def test_more_than_two_to_the_thirty_one_pixels_do_not_overflow() -> None:
    total = sum(confusion_matrix(*random_maps(2), 2) * (1 << 40) for _ in range(3))
    assert total.dtype == np.int64
    assert (total > 0).all()


def test_a_label_outside_the_classes_is_an_error() -> None:
    target, prediction = random_maps(21)
    target[0, 0] = 77
    with pytest.raises(DataError, match=r"label 77 is not among the 21 classes"):
        confusion_matrix(target, prediction, 21)


@pytest.mark.parametrize("convert", [np.asarray, torch.from_numpy], ids=["numpy", "torch"])
def test_labels_too_large_for_any_row_are_errors(convert) -> None:
    target, prediction = random_maps(21)
    wide = target.astype(np.int64)
    wide[3, 4] = 300
    with pytest.raises(DataError, match=r"label 300"):
        confusion_matrix(convert(wide), convert(prediction), 21)
    prediction[0, 0] = 21
    with pytest.raises(DataError, match=r"predicted label 21"):
        confusion_matrix(convert(target), convert(prediction), 21)


def test_maps_of_different_sizes_are_an_error() -> None:
    with pytest.raises(DataError, match=r"differ in size"):
        confusion_matrix(np.zeros((2, 3), np.uint8), np.zeros((3, 2), np.uint8), 2)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_equals_itself_on_a_gpu() -> None:
    target, prediction = random_maps(171)
    there = confusion_matrix(
        torch.from_numpy(target).cuda(), torch.from_numpy(prediction).cuda(), 171
    )
    assert there.is_cuda
    assert (there.cpu().numpy() == confusion_matrix(target, prediction, 171)).all()


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
    width = round(BOUNDARY_WIDTH * float(np.hypot(*target.shape)))
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
