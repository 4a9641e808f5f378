"""PASCAL Context in its three forms, which agree."""

from pathlib import Path

import numpy as np
import pytest
from scipy.io import savemat

from ovseg.errors import DataError
from ovseg.evaluation.sets.catalogue import open_set
from ovseg.evaluation.sets.context import IDS_OF_459
from tests.evaluation.sets import tiny

# aeroplane, bag, tv monitor, wood by alphabetical label; 0 is one of the other 400.
LABELS = np.array([[0, 1, 2], [55, 59, 0]], np.uint8)
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
    tiny.index_png(root / "SegmentationClassContext/a.png", LABELS)


def as_mat(root: Path) -> None:
    ids = np.array([OTHER, *IDS_OF_459], np.uint16)
    (root / "trainval").mkdir(parents=True)
    savemat(root / "trainval/a.mat", {"LabelMap": ids[LABELS]})


def as_release_of_59(root: Path) -> None:
    released = RELEASED.split()
    alphabetical = [name.replace(" ", "") for name in open_set("context", root).words.names]
    alphabetical[alphabetical.index("table")] = "diningtable"
    table = np.array([0, *(released.index(name) + 1 for name in alphabetical)], np.uint8)
    lines = "\n".join(f"{number}: {name}" for number, name in enumerate(released, start=1))
    tiny.text(root / "59_labels.txt", lines)
    tiny.index_png(root / "59_context_labels/a.png", table[LABELS])


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
    assert context.read_labels(context.samples[0]).tolist() == LABELS.tolist()
    context59 = open_set("context59", tmp_path)
    assert len(context59.classes) == 59
    assert context59.read_labels(context59.samples[0]).tolist() == [[255, 0, 1], [54, 58, 255]]


def test_labels_may_lie_beside_the_devkit(tmp_path: Path) -> None:
    photos(tmp_path / "VOCdevkit/VOC2010")
    as_mat(tmp_path)
    context = open_set("context", tmp_path)
    assert context.read_labels(context.samples[0]).tolist() == LABELS.tolist()


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
