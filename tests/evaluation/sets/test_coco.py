"""COCO-Object from its three label forms, COCO-Stuff, and panoptic sets."""

import json
from pathlib import Path

import numpy as np
import pytest
from pycocotools import mask as coco_mask

from ovseg.errors import DataError, UsageError
from ovseg.evaluation.result import summarise
from ovseg.evaluation.run import evaluate
from ovseg.evaluation.sets.catalogue import open_set
from ovseg.evaluation.sets.coco import STUFF_IDS, THING_IDS, things_and_stuff
from tests.evaluation.fakes import FakeModel, run_of
from tests.evaluation.sets import tiny

REAL = Path(__file__).resolve().parents[3].parent / "shared/data/coco-train100"

# Category of every pixel of a made-up image: 1 person, 17 cat, 90 toothbrush, 92 banner, 0 none.
CATEGORIES = np.zeros((12, 16), np.int64)
CATEGORIES[:6, :8] = 1
CATEGORIES[6:, :8] = 92
CATEGORIES[2:5, 9:15] = 17
CATEGORIES[8:12, 10:13] = 90
OBJECTS = np.select([c == CATEGORIES for c in (1, 17, 90)], [1, 16, 80], 0)

NAMED = [{"id": i, "name": n} for i, n in ((1, "person"), (17, "cat"), (90, "toothbrush"))]


def write_maps(root: Path) -> None:
    tiny.photo(root / "val2017/000000000009.jpg")
    values = np.where(CATEGORIES == 0, 255, CATEGORIES - 1)
    tiny.index_png(root / "stuffthingmaps/val2017/000000000009.png", values)


def write_panoptic(root: Path) -> None:
    ids = np.where(CATEGORIES == 0, 0, CATEGORIES + 70000)
    category = {int(c) + 70000: int(c) for c in (1, 17, 90, 92)}
    names = [(1, "person"), (17, "cat"), (90, "toothbrush"), (92, "banner")]
    tiny.panoptic(root, "val2017", {9: (ids, category)}, names)


def write_instances(root: Path, *, rle: str = "compressed") -> None:
    tiny.photo(root / "val2017/000000000009.jpg", np.full((12, 16, 3), 90, np.uint8))
    annotations = []
    for category in (1, 17, 90):
        mask = category == CATEGORIES
        annotations.append(
            {
                "image_id": 9,
                "category_id": category,
                "iscrowd": int(rle == "plain"),
                "area": int(mask.sum()),
                "segmentation": segmentation(mask, rle),
            }
        )
    image = {"id": 9, "file_name": "000000000009.jpg", "height": 12, "width": 16}
    document = {"images": [image], "annotations": annotations, "categories": NAMED}
    tiny.text(root / "annotations/instances_val2017.json", json.dumps(document))


def segmentation(mask: np.ndarray, form: str) -> object:
    rows, columns = np.nonzero(mask)
    top, left, bottom, right = rows.min(), columns.min(), rows.max() + 1, columns.max() + 1
    if form == "polygon":  # every region here is a rectangle
        corners = [left, top, right, top, right, bottom, left, bottom]
        return [[float(value) for value in corners]]
    if form == "plain":
        flat = mask.T.reshape(-1)
        ends = np.flatnonzero(np.diff(np.concatenate([[0], flat, [0]])))
        runs = np.diff(np.concatenate([[0], ends, [flat.size]]))
        return {"size": list(mask.shape), "counts": [int(run) for run in runs]}
    encoded = coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))
    return {"size": list(mask.shape), "counts": encoded["counts"].decode()}


def test_three_forms_give_the_same_labels(tmp_path: Path) -> None:
    write_maps(tmp_path)
    write_panoptic(tmp_path)
    write_instances(tmp_path)
    for form in ("stuffthingmaps", "panoptic", "instances"):
        objects = open_set("coco-object", tmp_path, labels=form)
        assert (len(objects.classes), objects.background) == (81, True)
        assert [sample.name for sample in objects.samples] == ["000000000009"]
        assert objects.read_labels(objects.samples[0]).tolist() == OBJECTS.tolist(), form
    assert open_set("coco-object", tmp_path).labels_from.startswith("stuffthingmaps")


@pytest.mark.parametrize("form", ["polygon", "plain", "compressed"])
def test_every_kind_of_segmentation(tmp_path: Path, form: str) -> None:
    write_instances(tmp_path, rle=form)
    objects = open_set("coco-object", tmp_path)
    assert objects.read_labels(objects.samples[0]).tolist() == OBJECTS.tolist()


def test_small_instances_lie_on_large_ones_and_crowds_below_all(tmp_path: Path) -> None:
    write_instances(tmp_path)
    path = tmp_path / "annotations/instances_val2017.json"
    document = json.loads(path.read_text())
    whole, half = np.ones((12, 16), bool), np.zeros((12, 16), bool)
    half[:2, :2] = True
    document["annotations"] = [
        {"image_id": 9, "category_id": c, "iscrowd": crowd, "area": area,
         "segmentation": segmentation(mask, "compressed")}
        for c, crowd, area, mask in ((17, 0, 4, half), (1, 0, 192, whole), (90, 1, 1, half))
    ]  # fmt: skip
    path.write_text(json.dumps(document))
    objects = open_set("coco-object", tmp_path)
    labels = objects.read_labels(objects.samples[0])
    assert np.unique(labels[:2, :2]).tolist() == [16]
    assert labels[5, 5] == 1


@pytest.mark.skipif(not REAL.is_dir(), reason="the hundred photos of COCO are not here")
def test_two_forms_agree_on_real_annotations() -> None:
    panoptic = open_set("coco-object", REAL, "train", labels="panoptic")
    instances = open_set("coco-object", REAL, "train", labels="instances")
    assert len(panoptic.samples) == 100
    for first, second in zip(panoptic.samples, instances.samples, strict=True):
        assert first.name == second.name
        assert (panoptic.read_labels(first) == instances.read_labels(second)).all()


def test_coco_stuff_has_171_classes_and_ignores_the_unlabelled(tmp_path: Path) -> None:
    write_maps(tmp_path)
    stuff = open_set("coco-stuff", tmp_path)
    assert len(stuff.classes) == len(THING_IDS) + len(STUFF_IDS) == 171
    labels = stuff.read_labels(stuff.samples[0])
    expected = np.select([c == CATEGORIES for c in (1, 17, 90, 92)], [0, 15, 79, 80], 255)
    assert labels.tolist() == expected.tolist()
    assert [stuff.classes[label] for label in (0, 15, 79, 80)] == [
        "person", "cat", "toothbrush", "banner",
    ]  # fmt: skip
    assert things_and_stuff().names[-1] == "wood"


def test_panoptic_takes_its_classes_from_the_json(tmp_path: Path) -> None:
    write_panoptic(tmp_path)
    panoptic = open_set("coco-panoptic", tmp_path)
    assert panoptic.classes == ("person", "cat", "toothbrush", "banner")
    expected = np.select([c == CATEGORIES for c in (1, 17, 90, 92)], [0, 1, 2, 3], 255)
    assert panoptic.read_labels(panoptic.samples[0]).tolist() == expected.tolist()


def test_in_scenes_the_unlabelled_is_background(tmp_path: Path) -> None:
    ids = np.where(CATEGORIES == 17, 5, 0)
    tiny.panoptic(tmp_path, "test", {3: (ids, {5: 2})}, [(1, "owl"), (2, "cat")], "images")
    scenes = open_set("cutouts", tmp_path)
    assert scenes.classes == ("background", "owl", "cat")
    assert np.unique(scenes.read_labels(scenes.samples[0])).tolist() == [0, 2]
    objects = open_set("cutouts-objects", tmp_path)
    assert objects.classes == ("owl", "cat") and not objects.background
    assert np.unique(objects.read_labels(objects.samples[0])).tolist() == [1, 255]


def test_a_segment_that_the_json_does_not_know(tmp_path: Path) -> None:
    write_panoptic(tmp_path)
    tiny.colour_png(
        tmp_path / "annotations/panoptic_val2017/000000000009.png", np.full((12, 16), 123456)
    )
    panoptic = open_set("coco-panoptic", tmp_path)
    with pytest.raises(DataError, match=r"segment 123456 is not in panoptic_val2017.json"):
        panoptic.read_labels(panoptic.samples[0])


def test_what_is_missing_is_said(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"stuffthingmaps/val2017/.*is missing.*val2017.zip"):
        open_set("coco-object", tmp_path)
    write_instances(tmp_path)
    with pytest.raises(UsageError, match=r"no split train in this folder: choose --split val2017"):
        open_set("coco-object", tmp_path, "train")
    with pytest.raises(UsageError, match=r"unknown label source polygons"):
        open_set("coco-object", tmp_path, labels="polygons")
    with pytest.raises(UsageError, match=r"--labels is for coco-object"):
        open_set("voc", tmp_path, labels="instances")
    (tmp_path / "val2017/000000000009.jpg").unlink()
    with pytest.raises(DataError, match=r"val2017/\*\.jpg is missing"):
        open_set("coco-object", tmp_path)


def test_a_file_that_is_something_else(tmp_path: Path) -> None:
    tiny.photo(tmp_path / "val2017/000000000009.jpg")
    tiny.text(tmp_path / "annotations/instances_val2017.json", '{"annotations": 3}')
    with pytest.raises(DataError, match=r"not a COCO instances file"):
        open_set("coco-object", tmp_path)


def test_samples_of_several_folders_keep_names_and_scores_apart(tmp_path: Path) -> None:
    """Two photos that are called `1`, and the same two called `1` and `2`, score alike."""
    scored = []
    for first, second in (("1", "2"), ("a/1", "b/1")):
        root = tmp_path / first[0]
        cat, bear = np.zeros((40, 56), np.int64), np.zeros((60, 44), np.int64)
        cat[5:30, 10:40], bear[5:50, 5:44] = 1000, 70000
        tiny.panoptic(
            root,
            "val2017",
            {1: (cat, {1000: 17}), 2: (bear, {70000: 23})},
            [(17, "cat"), (23, "bear")],
            names={1: first, 2: second},
        )
        evaluated = open_set("coco-panoptic", root)
        assert [sample.name for sample in evaluated.samples] == [first, second]
        run = run_of(evaluated, FakeModel(grouped=True))
        records = evaluate(run)
        assert [int(r.confusion.sum()) for r in records] == [25 * 30, 45 * 39]
        scored.append(summarise(run, records).scores.mean_iou)
    assert scored[0] == scored[1]


def test_an_image_twice_is_refused(tmp_path: Path) -> None:
    ids = np.full((8, 10), 5)
    segments = {1: (ids, {5: 17}), 2: (ids, {5: 17})}
    tiny.panoptic(tmp_path, "val2017", segments, [(17, "cat")], names={1: "1", 2: "1"})
    with pytest.raises(DataError, match=r"lists the image val2017/1\.jpg more than once"):
        open_set("coco-panoptic", tmp_path)
