"""COCO's `instances_*.json`: regions as run lengths or polygons, with numbered categories.

Polygons have no holes there: a cut of no width leads to each. A region in several parts is a list
of polygons. Of a video the images are its frames, with a `video_id` and a `frame_id`, and regions
have a `track_id`, as in TAO and in CocoVID.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any

from ovseg.data.annotations.entries import Entry, Id, by_id, in_order, read_document, reference
from ovseg.data.annotations.masks import mask_of, run_lengths
from ovseg.data.annotations.outlines import polygons
from ovseg.data.annotations.region import AnnotatedImage, Region, text
from ovseg.data.annotations.waiting import Waiting

VIDEO = 1
"""The id of a file's only video."""
BEGINNING = '{"info": {"description": "segmented by ovseg"}'


class Writer:
    """Writes a dataset as its images come; the list of images waits in a file.

    Args:
        stream: that takes the JSON.
        classes: names of the labels from 1.
        tolerance: in pixels for polygons; None for run lengths.
        videos: the list of videos, where images are frames.
    """

    def __init__(
        self,
        stream: IO[bytes],
        classes: Sequence[str],
        tolerance: float | None = None,
        videos: Sequence[Mapping[str, Any]] = (),
    ) -> None:
        self._stream = stream
        self._tolerance = tolerance
        self._images = Waiting(", ")
        self._next_id = 1
        head = f'{BEGINNING}, "categories": {json.dumps(categories(classes))}'
        if videos:
            head += f', "videos": {json.dumps(list(videos))}'
        stream.write(f'{head}, "annotations": ['.encode())

    def add(self, image: AnnotatedImage) -> None:
        """Write an image's annotations."""
        for annotation in annotations(image, self._next_id, self._tolerance):
            comma = ", " if self._next_id > 1 else ""
            self._stream.write(f"{comma}{json.dumps(annotation)}".encode())
            self._next_id += 1
        self._images.add(json.dumps(image_entry(image)))

    def finish(self) -> None:
        """Write the list of images and the end."""
        self._stream.write(b'], "images": [')
        self._images.pour(self._stream)
        self._stream.write(b"]}\n")


def annotations(
    image: AnnotatedImage, first_id: int = 1, tolerance: float | None = None
) -> list[dict[str, Any]]:
    """One annotation per region; ids count from `first_id`.

    `segmentation` is a compressed RLE, or polygons where a tolerance is given; `area` in pixels of
    the mask, `bbox` (x, y, width, height) in pixels, `category_id` the label.
    """
    return [
        {
            "id": number,
            "image_id": image.number,
            "category_id": region.label,
            "segmentation": _segmentation(region, image, tolerance),
            "area": region.area,
            "bbox": [float(side) for side in region.box],
            "iscrowd": 0,
            "score": region.score,
            **({} if region.track is None else {"video_id": VIDEO, "track_id": region.track}),
        }
        for number, region in enumerate(image.regions, start=first_id)
    ]


def _segmentation(region: Region, image: AnnotatedImage, tolerance: float | None) -> Any:
    if tolerance is None:
        return run_lengths(region, image.height, image.width)
    return [each.in_one().ravel().tolist() for each in polygons(region, tolerance)]


def dataset(
    image: AnnotatedImage,
    classes: Sequence[str],
    first_id: int = 1,
    tolerance: float | None = None,
) -> dict[str, Any]:
    """A dataset of one image: images, annotations, categories."""
    return {
        "images": [image_entry(image)],
        "annotations": annotations(image, first_id, tolerance),
        "categories": categories(classes),
    }


def image_entry(image: AnnotatedImage) -> dict[str, Any]:
    """An image as the list of images has it."""
    entry = {
        "id": image.number,
        "file_name": image.name,
        "height": image.height,
        "width": image.width,
    }
    if image.seconds is None:
        return entry
    return {
        **entry, "video_id": VIDEO, "frame_id": image.number - 1, "seconds": image.seconds,
    }  # fmt: skip


def categories(classes: Sequence[str]) -> list[dict[str, Any]]:
    """The list of categories: labels and names."""
    return [{"id": label, "name": text(name)} for label, name in enumerate(classes, start=1)]


@dataclass(frozen=True)
class Document:
    """A dataset whose ids and sizes have been checked.

    Attributes:
        images: by their ids, in order.
        sizes: height and width in pixels.
        categories: by their ids.
        annotations: of each image that has any, with the category of each.
    """

    images: Mapping[Id, Entry]
    sizes: Mapping[Id, tuple[int, int]]
    categories: Mapping[Id, Entry]
    annotations: Mapping[Id, Sequence[tuple[Entry, Id]]]


def read_instances(path: Path) -> Document:
    """Read a dataset.

    Raises:
        DataError: it is missing, no instances file, or something in it does not fit together.
    """
    document = read_document(path, "COCO instances file")
    images = by_id(document.entries("images"))
    named = by_id(document.entries("categories"))
    found: dict[Id, list[tuple[Entry, Id]]] = {}
    for entry in document.entries("annotations"):
        number = reference(entry, "image_id", images, "image")
        category = reference(entry, "category_id", named, "category")
        found.setdefault(number, []).append((entry, category))
    ordered = {number: images[number] for number in in_order(images)}
    return Document(ordered, {n: e.shape() for n, e in ordered.items()}, named, found)


def read(path: Path) -> Iterator[AnnotatedImage]:
    """The images of a dataset; labels are the categories' places, from 1, in order of their ids.

    Raises:
        DataError: as `read_instances`, or a region has no usable shape.
    """
    document = read_instances(path)
    labels = {number: label for label, number in enumerate(in_order(document.categories), start=1)}
    names = {number: entry.text("name") for number, entry in document.categories.items()}
    for order, (number, image) in enumerate(document.images.items(), start=1):
        height, width = document.sizes[number]
        regions = [
            replace(
                Region.of(labels[category], names[category], mask, entry.number("score")),
                track=_whole(entry, "track_id"),
            )
            for entry, category in document.annotations.get(number, ())
            if (mask := mask_of(entry, height, width)).any()
        ]
        known = number if isinstance(number, int) else order
        seconds = image.number("seconds")
        yield AnnotatedImage(image.file_name(), height, width, regions, known, seconds)


def _whole(entry: Entry, field: str) -> int | None:
    found = entry.values.get(field)
    return found if isinstance(found, int) and not isinstance(found, bool) else None
