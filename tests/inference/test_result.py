"""One image's result: shares, COCO annotations, pictures."""

import io
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask

from ovseg.errors import DataError, UsageError
from ovseg.inference.overlay import colours, label_palette
from ovseg.inference.result import Segmentation


def result(classes: int = 3) -> Segmentation:
    """A 10×20 image with a 2×5 block of label 1 and a 4×4 block of label 3."""
    labels = np.zeros((10, 20), np.uint16)
    labels[1:3, 2:7] = 1
    labels[5:9, 10:14] = 3
    scores = np.where(labels == 1, 0.25, 0.75).astype(np.float32)
    names = ("background", *(f"class {index}" for index in range(1, classes + 1)))
    return Segmentation(
        image=np.full((10, 20, 3), 100, np.uint8),
        classes=names,
        labels=labels,
        scores=scores,
        group_map=lambda: np.zeros((10, 20), np.int32),
        group_scores=np.zeros((1, classes + 1), np.float32),
    )


def test_shares_are_sorted_and_sum_to_one() -> None:
    shares = result().shares
    assert [share.label for share in shares] == [0, 3, 1]
    assert sum(share.share for share in shares) == pytest.approx(1)
    assert shares[2].share == pytest.approx(10 / 200)
    assert shares[2].score == pytest.approx(0.25)


def test_mask_of_a_class() -> None:
    assert result().mask("class 1").sum() == 10
    assert not result().mask("class 2").any()
    with pytest.raises(KeyError):
        result().mask("class 9")


def test_annotations_decode_to_the_mask() -> None:
    annotations = result().annotations(image_id=7)
    assert [a["category_id"] for a in annotations] == [3, 1]
    block = annotations[0]
    assert (block["area"], block["bbox"], block["image_id"]) == (16, [10, 5, 4, 4], 7)
    assert block["score"] == pytest.approx(0.75)
    assert np.array_equal(coco_mask.decode(block["segmentation"]), result().labels == 3)


def test_coco_dataset_lists_every_class() -> None:
    coco = result().to_coco("a.jpg")
    assert coco["images"] == [{"id": 1, "file_name": "a.jpg", "height": 10, "width": 20}]
    assert [c["name"] for c in coco["categories"]] == ["class 1", "class 2", "class 3"]


def test_label_image_is_indexed() -> None:
    image = result().label_image()
    assert image.mode == "P"
    assert np.array_equal(np.asarray(image), result().labels)
    assert image.convert("RGB").getpixel((3, 1)) == tuple(label_palette()[1])


def test_many_classes_need_sixteen_bits() -> None:
    image = result(classes=300).label_image()
    assert np.array_equal(np.asarray(image), result().labels)
    assert image.mode.startswith("I;16")


def test_overlay_colours_classes_and_leaves_background() -> None:
    picture = np.asarray(result().overlay(opacity=1.0))
    assert picture.shape[0] > 10, "the legend is below the picture"
    assert (picture[0, 19] == 100).all()
    assert (picture[6, 11] == label_palette()[3]).all()


def test_neighbouring_labels_differ_in_colour() -> None:
    palette = label_palette().astype(int)
    assert not palette[0].any()
    distance = np.abs(palette[1:36, None] - palette[None, 1:36]).sum(axis=-1)
    assert distance[~np.eye(35, dtype=bool)].min() > 20
    assert np.array_equal(colours(np.array([256, 1])), label_palette()[[1, 1]])


def test_classes_beyond_the_palette_are_told_apart_in_one_picture() -> None:
    many = result(classes=80)
    labels = many.labels.copy()
    labels[labels == 3] = 40
    labels[labels == 1] = 26  # by its own colour hardly another than 40
    picture = np.asarray(replace(many, labels=labels).overlay(opacity=1.0))
    assert (picture[6, 11] == label_palette()[1]).all(), "the largest class comes first"
    assert (picture[10:] == label_palette()[2]).all(axis=-1).any(), "the second is in the legend"


def test_a_result_is_described_in_a_line_and_shown_by_notebooks() -> None:
    assert repr(result()) == (
        "<Segmentation of 20×10 pixels: background 87.0%, class 3 8.0%, class 1 5.0%>"
    )
    shown = Image.open(io.BytesIO(result()._repr_png_()))
    assert np.array_equal(np.asarray(shown), np.asarray(result().overlay()))


def test_show_opens_the_overlay(monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[Image.Image] = []
    monkeypatch.setattr(Image.Image, "show", lambda image: shown.append(image))
    result().show()
    assert shown[0].size == result().overlay().size


def test_the_name_of_a_file_says_what_is_saved(tmp_path: Path) -> None:
    assert result().save(tmp_path / "a.png") == tmp_path / "a.png"
    result().save(str(tmp_path / "a.jpg"))
    result().save(tmp_path / "a.labels.png")
    result().save(tmp_path / "a.json")
    overlay = np.asarray(result().overlay())
    assert np.array_equal(np.asarray(Image.open(tmp_path / "a.png")), overlay)
    assert np.array_equal(np.asarray(Image.open(tmp_path / "a.labels.png")), result().labels)
    assert json.loads((tmp_path / "a.json").read_text()) == result().to_coco()


@pytest.mark.parametrize("name", ["a", "a.labels.jpg", "a.txt"])
def test_names_that_say_nothing_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(UsageError, match=r"the name must end with \.png"):
        result().save(tmp_path / name)


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be written"):
        result().save(tmp_path / "none" / "a.png")
