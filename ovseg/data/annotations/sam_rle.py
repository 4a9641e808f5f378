"""Masks as Segment Anything's data set has them (SA-1B), one JSON object per image, a line each.

Each object is what a file of SA-1B holds: `image` with its size and `annotations` with run lengths,
`bbox` and `area`. `label`, `name` and `score` are further keys: the masks here have classes, and
their scores are the model's, not a predicted IoU.
"""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO

from ovseg.data.annotations.entries import Entry, lines_of
from ovseg.data.annotations.masks import mask_of, run_lengths
from ovseg.data.annotations.region import AnnotatedImage, Mask, Region

_BEGINNING = {"description": "segmented by ovseg"}
_MOST_CLASSES = 1 << 20


class Writer:
    """Writes a line per image; the format has no polygons.

    Args:
        stream: that takes the lines.
    """

    def __init__(
        self, stream: IO[bytes], classes: Sequence[str], tolerance: float | None = None
    ) -> None:
        del classes, tolerance
        self._stream = stream
        self._next_id = 1

    def add(self, image: AnnotatedImage) -> None:
        """Write an image's line."""
        found = []
        for region in image.regions:
            segmentation = run_lengths(region, image.height, image.width)
            found.append(
                {
                    "id": self._next_id,
                    "segmentation": segmentation,
                    "bbox": [float(side) for side in region.box],
                    "area": region.area,
                    "label": region.label,
                    "name": region.name,
                    "score": region.score,
                }
            )
            self._next_id += 1
        entry = {
            "image_id": image.number,
            "file_name": image.name,
            "height": image.height,
            "width": image.width,
        }
        line = {"info": _BEGINNING, "image": entry, "annotations": found}
        self._stream.write(json.dumps(line).encode() + b"\n")

    def finish(self) -> None:
        """Nothing follows the last line."""


def read(path: Path) -> Iterator[AnnotatedImage]:
    """The images of such a file.

    Raises:
        DataError: it is missing, or something in it does not fit together.
    """
    for number, document in enumerate(lines_of(path), start=1):
        image = document.entry("image")
        height, width = image.shape()
        regions = [
            _region(entry, mask_of(entry, height, width))
            for entry in document.entries("annotations")
        ]
        known = image.integer("image_id", 0, 1 << 53) if "image_id" in image.values else number
        found = [region for region in regions if region is not None]
        yield AnnotatedImage(image.file_name(), height, width, found, known)


def _region(entry: Entry, mask: Mask) -> Region | None:
    if not mask.any():
        return None
    label = entry.integer("label", 1, _MOST_CLASSES)
    return Region.of(label, entry.text("name"), mask, entry.number("score"))
