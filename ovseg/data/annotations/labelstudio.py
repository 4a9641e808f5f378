"""Label Studio's tasks with predictions: brush strokes, or polygons in percent.

A list of tasks, to be imported into a project whose labelling interface names the image `image` and
the labels `label` (BrushLabels, or PolygonLabels for polygons). Images are given as files of local
storage: `/data/local-files/?d=NAME`.
"""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any
from urllib.parse import quote

import numpy as np

from ovseg.data.annotations.entries import Entry, read_list, shown
from ovseg.data.annotations.label_studio_rle import pack, unpack
from ovseg.data.annotations.masks import mask_of
from ovseg.data.annotations.outlines import Polygon, polygons
from ovseg.data.annotations.region import AnnotatedImage, Mask, Region

_META = {"description": "segmented by ovseg"}
_BRUSH, _POLYGON = "brushlabels", "polygonlabels"


class Writer:
    """Writes tasks as images come.

    Args:
        stream: that takes the JSON.
        tolerance: in pixels for polygons; None for brush strokes.
    """

    def __init__(
        self, stream: IO[bytes], classes: Sequence[str], tolerance: float | None = None
    ) -> None:
        del classes
        self._stream = stream
        self._tolerance = tolerance
        self._any = False
        stream.write(b"[")

    def add(self, image: AnnotatedImage) -> None:
        """Write an image's task."""
        results = [
            {
                "id": f"{image.number}-{place}",
                "from_name": "label",
                "to_name": "image",
                "original_width": image.width,
                "original_height": image.height,
                **shape,
                **({} if score is None else {"score": score}),
            }
            for place, (shape, score) in enumerate(self._shapes(image), start=1)
        ]
        task = {
            "meta": {**_META, "file_name": image.name},
            "data": {"image": f"/data/local-files/?d={quote(image.name)}"},
            "predictions": [{"model_version": "ovseg", "result": results}],
        }
        comma = b",\n" if self._any else b"\n"
        self._stream.write(comma + json.dumps(task).encode())
        self._any = True

    def finish(self) -> None:
        """Write the end."""
        self._stream.write(b"\n]\n")

    def _shapes(self, image: AnnotatedImage) -> Iterator[tuple[dict[str, Any], float | None]]:
        for region in image.regions:
            if self._tolerance is None:
                packed = pack(region.within(image.height, image.width))
                value = {"format": "rle", "rle": packed, _BRUSH: [region.name]}
                yield {"type": _BRUSH, "value": value}, region.score
                continue
            for polygon in polygons(region, self._tolerance):
                value = {"points": _percent(polygon, image), _POLYGON: [region.name]}
                yield {"type": _POLYGON, "value": value}, region.score


def _percent(polygon: Polygon, image: AnnotatedImage) -> list[list[float]]:
    """Corners in percent of width and height."""
    shares = polygon.in_one() * 100 / np.array([image.width, image.height])
    return [[float(share) for share in corner] for corner in shares.round(6)]


def read(path: Path) -> Iterator[AnnotatedImage]:
    """The images of tasks; a polygon is a region, and labels are numbered as their names come up.

    Raises:
        DataError: it is missing, no list of tasks, or something in it does not fit together.
    """
    labels: dict[str, int] = {}
    for number, task in enumerate(read_list(path, "list of Label Studio tasks"), start=1):
        results = [
            result
            for prediction in task.entries("predictions")
            for result in prediction.entries("result")
        ]
        name = task.entry("meta").file_name()
        sizes = {result.shape("original_height", "original_width") for result in results}
        if len(sizes) > 1:
            raise task.fault("predictions", "give several sizes of one image")
        height, width = sizes.pop() if sizes else (0, 0)  # which nothing tells
        regions = [_region(result, height, width, labels) for result in results]
        kept = [region for region in regions if region is not None]
        yield AnnotatedImage(name, height, width, kept, number)


def _region(result: Entry, height: int, width: int, labels: dict[str, int]) -> Region | None:
    kind, value = result.text("type"), result.entry("value")
    if kind not in (_BRUSH, _POLYGON):
        raise result.fault("type", f"is {shown(kind)}, neither {_BRUSH} nor {_POLYGON}")
    named = value.get(kind)
    if not isinstance(named, list) or len(named) != 1 or not isinstance(named[0], str):
        raise value.fault(kind, f"is {shown(named)}, not one name")
    mask = _brushed(value, height, width) if kind == _BRUSH else _filled(value, height, width)
    label = labels.setdefault(named[0], len(labels) + 1)
    return Region.of(label, named[0], mask, result.number("score")) if mask.any() else None


def _brushed(value: Entry, height: int, width: int) -> Mask:
    try:
        return unpack(value.get("rle"), height, width)
    except ValueError as error:
        raise value.fault("rle", str(error)) from error


def _filled(value: Entry, height: int, width: int) -> Mask:
    points = value.get("points")
    try:
        corners = np.array(points, np.float64).reshape(-1, 2) * (width / 100, height / 100)
    except (TypeError, ValueError) as error:
        raise value.fault("points", f"are {shown(points)}, not corners") from error
    shape = {"segmentation": [corners.ravel().tolist()]}
    return mask_of(Entry(value.path, shape, value.where), height, width)
