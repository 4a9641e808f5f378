"""Every format gives back what was written into it, whatever names there are."""

import json
import zipfile
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import pytest

from ovseg.data.annotations.formats import FORMATS, read_annotations, run_file
from ovseg.data.annotations.region import AnnotatedImage, Mask, Region
from ovseg.errors import DataError, UsageError

CLASSES = ("cat", 'a "b" <c>&\'', "日本 ;,\n=1+1")
FILES = ("a/b.jpg", "<&\"'>.png", "x\udce9 y.jpg", "a/b.png")
ALL = sorted(FORMATS)
NO_MASKS = ("yolo", "geojson")
NO_SCORES = ("yolo", "cvat")
NO_POLYGONS = ("sam-rle",)


def ragged(height: int, width: int, seed: int) -> Mask:
    """Half of the pixels in ragged pieces, some with holes."""
    noise = np.random.default_rng(seed).random((height, width)).astype(np.float32)
    smooth = cv2.GaussianBlur(noise, (0, 0), 4)
    return np.asarray(smooth > np.median(smooth))


def some_images() -> list[AnnotatedImage]:
    """Four images, the second without any region."""
    images = []
    for number, name in enumerate(FILES, start=1):
        height, width = 40 + 7 * number, 60
        regions = [
            Region.of(
                label, CLASSES[label - 1], ragged(height, width, 9 * number + label), label / 4
            )
            for label in (1, 2, 3)
            if number != 2
        ]
        images.append(AnnotatedImage(name, height, width, regions, number))
    return images


def written(
    folder: Path, name: str, images: Sequence[AnnotatedImage], tolerance: float | None = None
) -> Path:
    path = folder / FORMATS[name].file
    with run_file(path, FORMATS[name], CLASSES, tolerance) as run:
        for image in images:
            run.add(image)
    return path


def covered(image: AnnotatedImage, name: str) -> Mask:
    """Pixels of all regions of a class, which some formats take apart."""
    whole = np.zeros((image.height, image.width), dtype=bool)
    for region in image.regions:
        if region.name == name:
            whole |= region.within(image.height, image.width)
    return whole


@pytest.mark.parametrize("tolerance", [None, 0.0])
@pytest.mark.parametrize("name", ALL)
def test_what_was_written_is_read(tmp_path: Path, name: str, tolerance: float | None) -> None:
    if name in NO_MASKS and tolerance is None:
        tolerance = 0.0
    images = some_images()
    found = list(read_annotations(written(tmp_path, name, images, tolerance)))
    assert [image.name for image in found] == [image.as_text().name for image in images]
    for image, wanted in zip(found, images, strict=True):
        if not wanted.regions:
            assert not image.regions
            continue
        assert (image.height, image.width) == (wanted.height, wanted.width)
        for region in wanted.regions:
            assert (covered(image, region.name) == covered(wanted, region.name)).all()
            (score,) = {each.score for each in image.regions if each.name == region.name}
            assert score == (None if name in NO_SCORES else region.score)


@pytest.mark.parametrize("name", sorted(set(ALL) - set(NO_POLYGONS)))
def test_polygons_are_near_the_edge(tmp_path: Path, name: str) -> None:
    (image, *_) = images = some_images()
    (found, *_) = read_annotations(written(tmp_path, name, images, 1.0))
    for region in image.regions:
        mask = covered(image, region.name)
        off = mask != covered(found, region.name)
        assert 0 < off.mean() < 0.1
        edge = cv2.morphologyEx(
            mask.astype(np.uint8), cv2.MORPH_GRADIENT, np.ones((5, 5), np.uint8)
        )
        assert (edge[off] > 0).all(), "two pixels from the edge at most"


@pytest.mark.parametrize("name", ALL)
def test_nothing_appears_of_a_run_that_fails(tmp_path: Path, name: str) -> None:
    path = tmp_path / FORMATS[name].file
    with pytest.raises(RuntimeError), run_file(path, FORMATS[name], CLASSES, None) as run:
        run.add(some_images()[0])
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ALL)
def test_a_run_of_no_image_is_replaced_and_a_strangers_file_stays(
    tmp_path: Path, name: str
) -> None:
    path = written(tmp_path, name, [])
    assert list(read_annotations(path)) == []
    assert list(read_annotations(written(tmp_path, name, some_images()[:1])))
    written(tmp_path, name, [])
    path.write_bytes(b"something else")
    with pytest.raises(DataError, match="is not of an earlier run"):
        written(tmp_path, name, [])
    assert path.read_bytes() == b"something else"


DAMAGE = [
    b"",
    b"\0",
    b"{}",
    b"[]",
    b'{"images": 1}',
    b"<a>",
    b"[1]",
    b'{"image": {}}',
    b"PK\x03\x04",
]


@pytest.mark.parametrize("name", ALL)
def test_damage_is_one_line(tmp_path: Path, name: str) -> None:
    path = tmp_path / FORMATS[name].file
    whole = written(tmp_path, name, some_images()).read_bytes()
    for content in (*DAMAGE, whole[: len(whole) // 2], whole.replace(b"4", b"-9")):
        path.write_bytes(content)
        try:
            list(read_annotations(path))
        except DataError as error:
            assert str(error).startswith(str(path)) and "\n" not in str(error)
    with pytest.raises(DataError, match="no such file"):
        list(read_annotations(tmp_path / "none" / path.name))


def test_the_name_tells_the_format_or_an_argument_does(tmp_path: Path) -> None:
    path = written(tmp_path, "coco", some_images()).rename(tmp_path / "x.txt")
    assert len(list(read_annotations(path, "coco"))) == 4
    with pytest.raises(UsageError, match="tells no format"):
        read_annotations(path)
    with pytest.raises(UsageError, match="no format voc"):
        read_annotations(path, "voc")


def test_a_document_type_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "annotations.cvat.xml"
    path.write_text('<!DOCTYPE a [<!ENTITY b "bbbbbbbb">]><annotations>&b;</annotations>')
    with pytest.raises(DataError, match="document type"):
        list(read_annotations(path))


def test_coco_is_what_pycocotools_reads(tmp_path: Path) -> None:
    from pycocotools.coco import COCO

    path = written(tmp_path, "coco", some_images())
    coco = COCO(str(path))
    assert [coco.imgs[number]["file_name"] for number in (1, 2)] == list(FILES[:2])
    (annotation,) = coco.loadAnns(coco.getAnnIds(imgIds=[3], catIds=[2]))
    assert (coco.annToMask(annotation) == covered(some_images()[2], CLASSES[1])).all()


def test_names_cannot_leave_the_folder_of_labels(tmp_path: Path) -> None:
    with zipfile.ZipFile(written(tmp_path, "yolo", some_images())) as archive:
        names = archive.namelist()
    assert names[0] == "data.yaml" and names[-1] == "images.jsonl"
    assert {"labels/a/b.txt", "labels/a/b-2.txt"} <= set(names), "two images of one stem"
    images = [json.loads(line) for line in zipfile.ZipFile(tmp_path / "annotations.yolo.zip")
              .read("images.jsonl").splitlines()]  # fmt: skip
    assert [each["file_name"] for each in images] == [each.as_text().name for each in some_images()]
