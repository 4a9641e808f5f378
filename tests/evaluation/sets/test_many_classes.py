"""Sets of more classes than 8 bits can tell apart."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from ovseg.errors import DataError
from ovseg.evaluation.overlap import boundary_counts, confusion_matrix
from ovseg.evaluation.result import EvaluationResult, summarise
from ovseg.evaluation.run import evaluate
from ovseg.evaluation.sets.base import EvaluationSet
from ovseg.evaluation.sets.catalogue import open_set
from tests.evaluation.fakes import FakeModel, run_of
from tests.evaluation.sets import tiny

COUNT = 300


def scenes(root: Path) -> EvaluationSet:
    """Two stripes of the last categories, and background between them."""
    ids = np.zeros((40, 56), np.int64)
    ids[:10], ids[30:] = COUNT, COUNT - 1
    names = [(number, f"thing {number}") for number in range(1, COUNT + 1)]
    tiny.panoptic(root, "test", {1: (ids, {COUNT: COUNT, COUNT - 1: COUNT - 1})}, names, "images")
    return open_set("cutouts", root)


def folder(root: Path, bits: int) -> EvaluationSet:
    count = COUNT if bits == 16 else 4
    values = np.zeros((40, 56), np.uint16 if bits == 16 else np.uint8)
    values[:10], values[10:20] = count - 1, 3
    values[20:30] = 2**bits - 1
    tiny.photo(root / "images/a.png", np.full((40, 56, 3), 90, np.uint8))
    (root / "labels").mkdir(parents=True)
    cv2.imwrite(str(root / "labels/a.png"), values)
    tiny.text(root / "classes.txt", "\n".join(["background", *(f"c {i}" for i in range(1, count))]))
    return open_set("folder", root)


def test_scenes_of_many_categories(tmp_path: Path) -> None:
    evaluated = scenes(tmp_path)
    labels = evaluated.read_labels(evaluated.samples[0])
    assert labels.dtype == np.uint16
    assert labels[:, 0].tolist() == [COUNT] * 10 + [0] * 20 + [COUNT - 1] * 10


@pytest.mark.parametrize("bits", [8, 16])
def test_label_files_of_either_depth(tmp_path: Path, bits: int) -> None:
    evaluated = folder(tmp_path, bits)
    labels = evaluated.read_labels(evaluated.samples[0])
    count = len(evaluated.classes)
    assert labels[:, 0].tolist() == [count - 1] * 10 + [3] * 10 + [2**bits - 1] * 10 + [0] * 10


def test_few_classes_in_16_bits(tmp_path: Path) -> None:
    folder(tmp_path, 8)
    values = np.array([[0, 3], [255, 65535]], np.uint16).repeat(20, 0).repeat(28, 1)
    cv2.imwrite(str(tmp_path / "labels/a.png"), values)
    evaluated = open_set("folder", tmp_path)
    labels = evaluated.read_labels(evaluated.samples[0])
    assert labels[::20, ::28].tolist() == [[0, 3], [255, 255]]


def test_they_are_evaluated_and_kept(tmp_path: Path) -> None:
    evaluated = folder(tmp_path, 16)
    run = run_of(evaluated, FakeModel(grouped=True))
    result = summarise(run, evaluate(run))
    assert result.confusion.shape == (COUNT, COUNT)
    assert result.confusion.sum() == 30 * 56, "a quarter is ignored"
    result.write(tmp_path / "r.json")
    assert (EvaluationResult.read(tmp_path / "r.json").confusion == result.confusion).all()


def test_counts_equal_a_loop() -> None:
    generator = np.random.default_rng(0)
    target = generator.integers(0, COUNT, (30, 40)).astype(np.uint16)
    target[:4] = 65535
    predicted = generator.integers(0, COUNT, (30, 40)).astype(np.uint16)
    expected = np.zeros((COUNT, COUNT), np.int64)
    for true, found in zip(target[4:].ravel(), predicted[4:].ravel(), strict=True):
        expected[true, found] += 1
    assert (confusion_matrix(target, predicted, COUNT) == expected).all()
    assert boundary_counts(target, predicted, COUNT)[:, 1].sum() == 26 * 40
    target[9, 9] = COUNT
    with pytest.raises(DataError, match=f"label {COUNT} is not among the {COUNT} classes"):
        confusion_matrix(target, predicted, COUNT)
