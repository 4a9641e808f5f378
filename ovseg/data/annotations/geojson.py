"""GeoJSON (RFC 7946): a feature per region, whose polygons have their holes.

Coordinates are pixels, x to the right and y downwards from the image's upper left corner, not
degrees: viewers of pathology and drone images take them so. Features name their image; `images`, a
further member, lists all with their sizes, those without regions, too.
"""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np

from ovseg.data.annotations.entries import Entry, read_document
from ovseg.data.annotations.masks import mask_of
from ovseg.data.annotations.outlines import Polygon, polygons
from ovseg.data.annotations.region import AnnotatedImage, Mask, Region
from ovseg.data.annotations.waiting import Waiting

_BEGINNING = '{"type": "FeatureCollection", "name": "segmented by ovseg", "features": ['
_TOLERANCE = 1.0  # pixels, where none is asked for
_MOST_CLASSES = 1 << 20


class Writer:
    """Writes features as images come; the list of images waits in a file.

    Args:
        stream: that takes the JSON.
        tolerance: of the polygons, in pixels; None for 1.
    """

    def __init__(
        self, stream: IO[bytes], classes: Sequence[str], tolerance: float | None = None
    ) -> None:
        del classes
        self._stream = stream
        self._tolerance = _TOLERANCE if tolerance is None else tolerance
        self._images = Waiting(",")
        self._any = False
        stream.write(_BEGINNING.encode())

    def add(self, image: AnnotatedImage) -> None:
        """Write an image's features."""
        for region in image.regions:
            comma = "," if self._any else ""
            feature = json.dumps(self._feature(image, region))
            self._stream.write(f"{comma}\n{feature}".encode())
            self._any = True
        entry = {"file_name": image.name, "height": image.height, "width": image.width}
        self._images.add(f"\n{json.dumps(entry)}")

    def _feature(self, image: AnnotatedImage, region: Region) -> dict[str, Any]:
        parts = [_closed(each) for each in polygons(region, self._tolerance)]
        several = len(parts) > 1
        return {
            "type": "Feature",
            "geometry": {
                "type": "MultiPolygon" if several else "Polygon",
                "coordinates": parts if several else parts[0],
            },
            "properties": {
                "image": image.name,
                "label": region.label,
                "name": region.name,
                "score": region.score,
            },
        }

    def finish(self) -> None:
        """Write the list of images and the end."""
        self._stream.write(b'], "images": [')
        self._images.pour(self._stream)
        self._stream.write(b"]}\n")


def _closed(polygon: Polygon) -> list[list[list[int]]]:
    """Rings whose last corner is their first, the outer one first."""
    rings = (polygon.outer, *polygon.holes)
    return [np.concatenate([ring, ring[:1]]).tolist() for ring in rings]


def read(path: Path) -> Iterator[AnnotatedImage]:
    """The images of a collection that lists them, in order.

    Raises:
        DataError: it is missing, no such collection, or something in it does not fit together.
    """
    document = read_document(path, "GeoJSON file of regions")
    images = document.entries("images")
    found: dict[str, list[Entry]] = {image.file_name(): [] for image in images}
    for feature in document.entries("features"):
        name = feature.entry("properties").file_name("image")
        if name not in found:
            raise feature.fault("properties", "name an image that is not in the list of images")
        found[name].append(feature)
    for number, image in enumerate(images, start=1):
        height, width = image.shape()
        regions = [_region(feature, height, width) for feature in found[image.file_name()]]
        kept = [region for region in regions if region is not None]
        yield AnnotatedImage(image.file_name(), height, width, kept, number)


def _region(feature: Entry, height: int, width: int) -> Region | None:
    geometry, properties = feature.entry("geometry"), feature.entry("properties")
    kind, coordinates = geometry.text("type"), geometry.get("coordinates")
    if kind not in ("Polygon", "MultiPolygon") or not isinstance(coordinates, list):
        raise geometry.fault("type", f"is {kind}: regions are polygons")
    parts = [coordinates] if kind == "Polygon" else coordinates
    mask = np.zeros((height, width), dtype=bool)
    for part in parts:
        mask |= _filled(geometry, part, height, width)
    if not mask.any():
        return None
    label = properties.integer("label", 1, _MOST_CLASSES)
    return Region.of(label, properties.text("name"), mask, properties.number("score"))


def _filled(geometry: Entry, rings: Any, height: int, width: int) -> Mask:
    """The pixels of a polygon: within its outer ring and in none of its holes."""
    if not isinstance(rings, list) or not rings:
        raise geometry.fault("coordinates", "have a polygon without rings")
    masks = [
        mask_of(Entry(geometry.path, {"segmentation": [ring]}, geometry.where), height, width)
        for ring in rings
    ]
    whole: Mask = np.logical_xor.reduce(masks)
    return whole
