"""The confusion matrix against a loop over pixels and against torchmetrics."""

import numpy as np
import pytest
import torch
from torchmetrics.classification import MulticlassConfusionMatrix, MulticlassJaccardIndex

from ovseg.errors import DataError
from ovseg.evaluation.metrics.confusion import confusion_matrix
from ovseg.evaluation.metrics.scores import scores


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
