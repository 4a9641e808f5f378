"""PASCAL VOC and the ways its folder can be wrong."""

from pathlib import Path

import numpy as np
import pytest

from ovseg.errors import DataError, UsageError
from ovseg.evaluation.sets.catalogue import open_set
from tests.evaluation.sets import tiny

LABELS = np.array([[0, 0, 1], [20, 255, 15]], np.uint8)


def test_labels_with_background_are_those_of_the_file(tmp_path: Path) -> None:
    tiny.voc(tmp_path, {"2007_000033": LABELS})
    voc = open_set("voc", tmp_path)
    assert (len(voc.classes), voc.classes[0], voc.classes[20]) == (21, "background", "monitor")
    assert voc.samples[0].name == "2007_000033"
    assert voc.read_labels(voc.samples[0]).tolist() == LABELS.tolist()


def test_without_background_label_0_is_ignored(tmp_path: Path) -> None:
    tiny.voc(tmp_path, {"2007_000033": LABELS})
    voc20 = open_set("voc20", tmp_path)
    assert (len(voc20.classes), voc20.classes[0]) == (20, "aeroplane")
    assert voc20.read_labels(voc20.samples[0]).tolist() == [[255, 255, 0], [19, 255, 14]]


@pytest.mark.parametrize("inside", ["VOC2012", "VOCdevkit/VOC2012"])
def test_folders_around_it_are_accepted(tmp_path: Path, inside: str) -> None:
    tiny.voc(tmp_path / inside, {"a": LABELS})
    assert open_set("voc", tmp_path).root == tmp_path / inside


def test_splits(tmp_path: Path) -> None:
    tiny.voc(tmp_path, {"a": LABELS, "b": LABELS})
    tiny.voc(tmp_path, {"c": LABELS}, split="train")
    assert [s.name for s in open_set("voc", tmp_path, "train").samples] == ["c"]
    with pytest.raises(UsageError, match=r"no split test.*--split train or val"):
        open_set("voc", tmp_path, "test")


def test_a_missing_file_is_named_with_layout_source_and_size(tmp_path: Path) -> None:
    tiny.voc(tmp_path, {"a": LABELS, "b": LABELS})
    (tmp_path / "SegmentationClass/a.png").unlink()
    (tmp_path / "JPEGImages/b.jpg").unlink()
    with pytest.raises(DataError) as caught:
        open_set("voc", tmp_path)
    message = str(caught.value)
    assert "SegmentationClass/a.png (and 1 more files) is missing" in message
    assert "expected there: JPEGImages/*.jpg" in message
    assert "VOCtrainval_11-May-2012.tar (1.9 GB)" in message
    assert "\n" not in message


def test_a_wrong_folder(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"ImageSets/Segmentation/val\.txt is missing"):
        open_set("voc", tmp_path)
    with pytest.raises(DataError, match=r"no such folder"):
        open_set("voc", tmp_path / "absent")


def test_an_unknown_set_suggests_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"did you mean ade20k"):
        open_set("ade20", tmp_path)


def test_a_colour_picture_is_no_label_file(tmp_path: Path) -> None:
    tiny.voc(tmp_path, {"a": LABELS})
    tiny.photo(tmp_path / "SegmentationClass/a.png")
    voc = open_set("voc", tmp_path)
    with pytest.raises(DataError, match=r"one channel"):
        voc.read_labels(voc.samples[0])
    (tmp_path / "SegmentationClass/a.png").write_bytes(b"\x89PNG broken")
    with pytest.raises(DataError, match=r"not a readable PNG"):
        voc.read_labels(voc.samples[0])
