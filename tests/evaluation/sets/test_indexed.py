"""Sets of the table: PASCAL VOC and Context, ADE20K, Cityscapes, and how folders can be wrong."""

from pathlib import Path

import numpy as np
import pytest
from scipy.io import savemat

from ovseg.errors import DataError, UsageError
from ovseg.evaluation.sets.catalogue import open_set
from ovseg.evaluation.sets.indexed import IDS_OF_459
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


# aeroplane, bag, tv monitor, wood by alphabetical label; 0 is one of the other 400.
CONTEXT_LABELS = np.array([[0, 1, 2], [55, 59, 0]], np.uint8)
OTHER = 431
# The 59-class release puts VOC's 20 first, under its own names.
RELEASED = (
    "aeroplane bicycle bird boat bottle bus car cat chair cow diningtable dog horse motorbike "
    "person pottedplant sheep sofa train tvmonitor bag bed bench book building cabinet ceiling "
    "cloth computer cup door fence floor flower food grass ground keyboard light mountain mouse "
    "curtain platform sign plate road rock shelves sidewalk sky snow bedclothes track tree truck "
    "wall water window wood"
)


def photos(root: Path) -> None:
    tiny.photo(root / "JPEGImages/a.jpg")
    tiny.text(root / "ImageSets/Main/val.txt", "a\n")


def test_the_59_ids_are_distinct_and_sorted() -> None:
    assert len(set(IDS_OF_459)) == 59
    assert list(IDS_OF_459) == sorted(IDS_OF_459)


def as_png(root: Path) -> None:
    tiny.index_png(root / "SegmentationClassContext/a.png", CONTEXT_LABELS)


def as_mat(root: Path) -> None:
    ids = np.array([OTHER, *IDS_OF_459], np.uint16)
    (root / "trainval").mkdir(parents=True)
    savemat(root / "trainval/a.mat", {"LabelMap": ids[CONTEXT_LABELS]})


def as_release_of_59(root: Path) -> None:
    released = RELEASED.split()
    alphabetical = [name.replace(" ", "") for name in open_set("context", root).words.names]
    alphabetical[alphabetical.index("table")] = "diningtable"
    table = np.array([0, *(released.index(name) + 1 for name in alphabetical)], np.uint8)
    lines = "\n".join(f"{number}: {name}" for number, name in enumerate(released, start=1))
    tiny.text(root / "59_labels.txt", lines)
    tiny.index_png(root / "59_context_labels/a.png", table[CONTEXT_LABELS])


@pytest.mark.parametrize("form", ["SegmentationClassContext", "trainval", "59_context_labels"])
def test_all_forms_give_the_same_labels(tmp_path: Path, form: str) -> None:
    photos(tmp_path)
    as_png(tmp_path)
    as_mat(tmp_path)
    as_release_of_59(tmp_path)
    for other in {"SegmentationClassContext", "trainval", "59_context_labels"} - {form}:
        (tmp_path / other).rename(tmp_path / f"no {other}")
    context = open_set("context", tmp_path)
    assert context.labels_from.startswith(form)
    assert context.read_labels(context.samples[0]).tolist() == CONTEXT_LABELS.tolist()
    context59 = open_set("context59", tmp_path)
    assert len(context59.classes) == 59
    assert context59.read_labels(context59.samples[0]).tolist() == [[255, 0, 1], [54, 58, 255]]


def test_labels_may_lie_beside_the_devkit(tmp_path: Path) -> None:
    photos(tmp_path / "VOCdevkit/VOC2010")
    as_mat(tmp_path)
    context = open_set("context", tmp_path)
    assert context.read_labels(context.samples[0]).tolist() == CONTEXT_LABELS.tolist()


def test_missing_labels_and_lists(tmp_path: Path) -> None:
    photos(tmp_path)
    with pytest.raises(DataError, match=r"a label folder .* is missing.*pascal-context"):
        open_set("context", tmp_path)
    as_mat(tmp_path)
    with pytest.raises(DataError, match=r"ImageSets/Main/train\.txt is missing"):
        open_set("context", tmp_path, "train")
    (tmp_path / "trainval/a.mat").write_bytes(b"no mat file")
    context = open_set("context", tmp_path)
    with pytest.raises(DataError, match=r"not a readable .mat file"):
        context.read_labels(context.samples[0])


def test_ade20k_ignores_label_0(tmp_path: Path) -> None:
    root = tmp_path / "ADEChallengeData2016"
    tiny.photo(root / "images/validation/ADE_val_00000001.jpg")
    tiny.index_png(
        root / "annotations/validation/ADE_val_00000001.png", np.array([[0, 1], [150, 2]])
    )
    ade = open_set("ade20k", tmp_path)
    assert (len(ade.classes), ade.background) == (150, False)
    assert ade.read_labels(ade.samples[0]).tolist() == [[255, 0], [149, 1]]
    with pytest.raises(UsageError, match=r"no split nosuch in this folder: choose --split valid"):
        open_set("ade20k", tmp_path, "nosuch")
    (root / "images/validation/ADE_val_00000001.jpg").unlink()
    with pytest.raises(DataError, match=r"images/validation/ADE_val_00000001.jpg is missing"):
        open_set("ade20k", tmp_path)


def test_cityscapes_reads_the_annotation_ids(tmp_path: Path) -> None:
    tiny.photo(tmp_path / "leftImg8bit/val/ulm/ulm_0_leftImg8bit.png")
    ids = np.array([[0, 7, 8], [33, 29, 4]])
    tiny.index_png(tmp_path / "gtFine/val/ulm/ulm_0_gtFine_labelIds.png", ids)
    cityscapes = open_set("cityscapes", tmp_path)
    assert cityscapes.classes[0] == "road"
    assert cityscapes.classes[18] == "bicycle"
    labels = cityscapes.read_labels(cityscapes.samples[0])
    assert labels.tolist() == [[255, 0, 1], [18, 255, 255]]
    with pytest.raises(UsageError, match=r"no split nosuch in this folder: choose --split val"):
        open_set("cityscapes", tmp_path, "nosuch")


def test_cityscapes_without_annotations(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"gtFine/val is missing.*needs an account"):
        open_set("cityscapes", tmp_path)
