"""Annotation documents as people have them: each ends as the right labels or as one line."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pycocotools import mask as coco_mask

from ovseg.data.annotations.entries import Entry
from ovseg.data.annotations.masks import mask_of
from ovseg.errors import DataError
from ovseg.evaluation.sets.catalogue import open_set
from tests.evaluation.sets import tiny

PATH = "annotations/instances_val2017.json"
BOX = [2.0, 1.0, 8.0, 1.0, 8.0, 6.0, 2.0, 6.0]
WANTED = np.zeros((8, 10), np.int64)
WANTED[1:6, 2:8] = 16  # cat
RUNS = [16 + 1, *(5, 3) * 5, 5, 2 + 16]  # column by column
Change = Callable[[dict[str, Any]], None]


def document() -> dict[str, Any]:
    annotation = {
        "id": 5,
        "image_id": 9,
        "category_id": 17,
        "area": 30,
        "iscrowd": 0,
        "segmentation": [BOX],
    }
    return {
        "images": [{"id": 9, "file_name": "9.jpg", "height": 8, "width": 10}],
        "annotations": [annotation],
        "categories": [{"id": 1, "name": "person"}, {"id": 17, "name": "cat"}],
    }


def labels_of(root: Path, content: dict[str, Any] | str) -> list[list[int]]:
    tiny.photo(root / "val2017/9.jpg")
    tiny.text(root / PATH, content if isinstance(content, str) else json.dumps(content))
    objects = open_set("coco-object", root)
    return objects.read_labels(objects.samples[0]).tolist()


def put(part: str, field: str, value: Any) -> Change:
    return lambda document: document[part][0].__setitem__(field, value)


def drop(part: str, field: str) -> Change:
    return lambda document: document[part][0].pop(field)


def both(first: Change, second: Change) -> Change:
    return lambda document: [first(document), second(document)]


def renumbered(document: dict[str, Any]) -> None:
    document["categories"] = [{"id": 1, "name": "Cat"}]
    document["annotations"][0]["category_id"] = 1


SEGMENTATION = "annotations", "segmentation"
RIGHT: dict[str, Change] = {
    "ids as text": both(put("images", "id", "9"), put("annotations", "image_id", "9")),
    "ids as words": both(put("images", "id", "im_9"), put("annotations", "image_id", "im_9")),
    "ids as 1.0": both(put("images", "id", 9.0), put("annotations", "image_id", 9.0)),
    "image_id of another type": put("annotations", "image_id", "9"),
    "image_id 9.0": put("annotations", "image_id", 9.0),
    "category_id of another type": put("annotations", "category_id", "17"),
    "no area": drop("annotations", "area"),
    "no iscrowd": drop("annotations", "iscrowd"),
    "category 1 called cat": renumbered,
    "flat": put(*SEGMENTATION, BOX),
    "points": put(*SEGMENTATION, [BOX[i : i + 2] for i in range(0, 8, 2)]),
    "nested points": put(*SEGMENTATION, [[BOX[i : i + 2] for i in range(0, 8, 2)]]),
    "plain RLE": put(*SEGMENTATION, {"size": [8, 10], "counts": RUNS}),
    "unused category": lambda d: d["categories"].append({"id": 0, "name": "widgets"}),
}
WRONG: dict[str, tuple[Change, str]] = {
    "image_id without image": (put("annotations", "image_id", 10), r"image_id is 10: no image has"),
    "null id": (put("images", "id", None), r"images\[0\]: id is null"),
    "id true": (put("images", "id", True), r"id is true, neither a whole number nor text"),
    "id 1.5": (put("images", "id", 1.5), r"images\[0\] \(id 1\.5\): id is 1\.5, neither"),
    "image twice": (lambda d: d["images"].append(d["images"][0]), r"also that of images\[0\]"),
    "no height": (drop("images", "height"), r"images\[0\] \(id 9\): height is missing"),
    "huge": (put("images", "height", 10**9), r"height is 1000000000, not a whole number from 1"),
    "no file": (drop("images", "file_name"), r"file_name is missing"),
    "half a character": (put("images", "file_name", "\ud800.jpg"), r"file_name is .*not a text"),
    "outside": (put("images", "file_name", "../../x.jpg"), r"file_name is .*not a path below"),
    "area as text": (put("annotations", "area", "30"), r"area is '30', not a number"),
    "area NaN": (put("annotations", "area", float("nan")), r"area is NaN, not a number"),
    "iscrowd": (put("annotations", "iscrowd", 7), r"iscrowd is 7, not a whole number from 0 to 1"),
    "no segmentation": (drop(*SEGMENTATION), r"\(id 5\): segmentation is missing"),
    "null": (put(*SEGMENTATION, None), r"segmentation is null"),
    "empty": (put(*SEGMENTATION, []), r"segmentation is \[\]: an instance needs outlines or RLE"),
    "an empty one": (put(*SEGMENTATION, [[]]), r"an outline of 0 numbers"),
    "four numbers": (put(*SEGMENTATION, [[2, 1, 6, 5]]), r"4 numbers.*a box is no outline"),
    "flat four numbers": (put(*SEGMENTATION, [2, 1, 6, 5]), r"4 numbers.*a box is no outline"),
    "odd": (put(*SEGMENTATION, [[*BOX, 3]]), r"an outline of 9 numbers"),
    "texts": (put(*SEGMENTATION, [["2"] * 8]), r"segmentation has '2' for a coordinate"),
    "infinite": (put(*SEGMENTATION, [[float("inf")] * 8]), r"has Infinity for a coordinate"),
    "far": (put(*SEGMENTATION, [[1e9] * 8]), r"has 1000000000\.0 for a coordinate in 10×8 pixels"),
    "swapped": (
        put(*SEGMENTATION, {"size": [10, 8], "counts": RUNS}),
        r"has the size \[10, 8\], its image \[8, 10\] \(height and width are swapped\)",
    ),
    "counts": (
        put(*SEGMENTATION, {"size": [8, 10], "counts": [5]}),
        r"has counts that are no run lengths of 80 pixels",
    ),
    "a size of its own": (
        put(*SEGMENTATION, {"size": [1_000_000, 1_000_000], "counts": [10]}),
        r"has the size \[1000000, 1000000\], its image \[8, 10\]",
    ),
    "to the right for ever": (
        put(*SEGMENTATION, [[0, 0, 30_000_001, 0, 30_000_001, 5]]),
        r"has 30000001 for a coordinate in 10×8 pixels",
    ),
    "a long side": (put("images", "width", 1 << 20), r"width is 1048576, not a whole number from"),
    "negative": (put(*SEGMENTATION, {"size": [8, 10], "counts": [-5, 85]}), r"no run lengths"),
    "compressed": (put(*SEGMENTATION, {"size": [8, 10], "counts": "PPPé"}), r"no run lengths"),
    "no counts": (put(*SEGMENTATION, {"size": [8, 10]}), r"no run lengths"),
    "category not listed": (put("annotations", "category_id", 18), r"category_id is 18: no cat"),
    "category unknown": (
        put("categories", "name", "widget"),
        r"category_id is 1, 'widget': none of the set's classes",
    ),
    "no categories": (lambda d: d.pop("categories"), r"categories is missing"),
    "annotations": (lambda d: d.update(annotations=[3]), r"annotations\[0\] is 3, not an object"),
}


@pytest.mark.parametrize("change", RIGHT.values(), ids=RIGHT)
def test_what_can_be_understood_is_scored_right(tmp_path: Path, change: Change) -> None:
    content = document()
    change(content)
    assert labels_of(tmp_path, content) == WANTED.tolist()


@pytest.mark.parametrize("case", WRONG.values(), ids=WRONG)
def test_what_cannot_is_one_line_with_file_entry_and_field(
    tmp_path: Path, case: tuple[Change, str]
) -> None:
    content = document()
    if "widget" in case[1]:
        content["annotations"][0]["category_id"] = 1
    case[0](content)
    with pytest.raises(DataError, match=case[1]) as raised:
        labels_of(tmp_path, content)
    assert str(raised.value).startswith(str(tmp_path / PATH)) and "\n" not in str(raised.value)


@pytest.mark.parametrize("text", ["", "[]", "{", "[" * 100_000, '{"images": 1' + "0" * 5000 + "}"])
def test_no_document(tmp_path: Path, text: str) -> None:
    with pytest.raises(DataError, match=r"instances_val2017\.json: not a COCO instances file"):
        labels_of(tmp_path, text)


def panoptic(root: Path, change: Change) -> dict[str, Any]:
    ids = np.where(WANTED == 16, 70000, 0)
    tiny.panoptic(root, "val2017", {9: (ids, {70000: 17})}, [(1, "person"), (17, "cat")])
    path = root / "annotations/panoptic_val2017.json"
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))
    return content


def segment(field: str, value: Any) -> Change:
    return lambda document: document["annotations"][0]["segments_info"][0].update({field: value})


@pytest.mark.parametrize(
    "change",
    [
        segment("id", 70000.0),
        segment("category_id", "17"),
        put("images", "id", "9"),
        put("annotations", "image_id", 9.0),
    ],
)
def test_panoptic_ids_of_another_type(tmp_path: Path, change: Change) -> None:
    panoptic(tmp_path, change)
    for name in ("coco-object", "coco-panoptic"):
        opened = open_set(name, tmp_path)
        labels = opened.read_labels(opened.samples[0])
        assert opened.classes[labels[3, 3]] == "cat"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (put("annotations", "image_id", 10), r"annotations\[0\]: image_id is 10: no image has"),
        (segment("id", 70000.5), r"annotations\[0\]: segments_info\[0\] .*id is 70000\.5, not a"),
        (segment("id", 1 << 24), r"id is 16777216, not a whole number from 1 to 16777215"),
        (segment("id", -5), r"id is -5, not a whole number"),
        (segment("category_id", 99), r"segments_info\[0\] .*category_id is 99: no category has"),
        (put("annotations", "file_name", "/etc/x.png"), r"file_name is '/etc/x\.png', not a path"),
        (put("categories", "name", " "), r"categories\[0\] \(id 1\): name is ' ', not a text"),
        (put("categories", "name", "cat"), r"categories: named more than once.*cat"),
        (drop("annotations", "segments_info"), r"segments_info is missing"),
        (lambda d: d["annotations"].append(d["annotations"][0]), r"is 9, which has an annotation"),
    ],
)
def test_panoptic_faults(tmp_path: Path, change: Change, message: str) -> None:
    panoptic(tmp_path, change)
    with pytest.raises(DataError, match=message) as raised:
        open_set("coco-panoptic", tmp_path)
    assert str(raised.value).startswith(str(tmp_path / "annotations/panoptic_val2017.json"))


def test_panoptic_categories_are_known_by_name_to_coco_object(tmp_path: Path) -> None:
    def swapped(document: dict[str, Any]) -> None:
        document["categories"] = [{"id": 17, "name": "person", "isthing": 1}]

    panoptic(tmp_path, swapped)
    objects = open_set("coco-object", tmp_path)
    assert objects.read_labels(objects.samples[0]).max() == 1
    panoptic(tmp_path, lambda d: d["categories"][1].update(name="widget"))
    with pytest.raises(DataError, match=r"category 17, 'widget', is none of COCO's 80 things"):
        open_set("coco-object", tmp_path)


def test_images_without_annotation_are_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    panoptic(tmp_path, lambda d: d["images"].append({"id": 10, "file_name": "10.jpg"}))
    assert len(open_set("coco-panoptic", tmp_path).samples) == 1
    assert "1 images have no annotation and are not scored" in caplog.text


def test_a_name_too_long_for_a_file(tmp_path: Path) -> None:
    panoptic(tmp_path, put("images", "file_name", "a" * 300))
    with pytest.raises(DataError, match=r"aaa is missing in"):
        open_set("coco-panoptic", tmp_path)


def test_compressed_run_lengths_are_decoded_as_they_were_encoded() -> None:
    """Masks at random, from nearly empty to nearly full, small and large."""
    generator = np.random.default_rng(0)
    for _ in range(300):
        height, width = generator.integers(1, 200, 2).tolist()
        mask = generator.random((height, width)) < generator.random() ** 2
        if generator.random() < 0.5:  # long runs
            mask = np.sort(mask, axis=None).reshape(width, height).T
        counts = coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))["counts"].decode()
        values = {"segmentation": {"size": [height, width], "counts": counts}}
        assert (mask_of(Entry(Path(), values, "it"), height, width) == mask).all()
